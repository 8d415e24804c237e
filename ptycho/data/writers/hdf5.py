"""What the writers of HDF5 formats share: patterns piece by piece, the exact record, lengths with their units."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.roundtrip import counts_of_amplitudes, scan_record
from ptycho.data.readers.units import PATCH_MIDDLE
from ptycho.data.scan import Scan
from ptycho.errors import DataError

_CHUNK = 2**24
_HEADER = 60_000
"""Bytes that fit into an object's header in any case; it takes 64 KiB."""

Convert = Callable[[NDArray[Any]], NDArray[Any]]

_DISK: contextvars.ContextVar[_Disk | None] = contextvars.ContextVar("disk", default=None)


def stored_counts(scan: Scan) -> tuple[np.dtype[Any], Convert]:
    """The dtype and the function by which raw patterns are stored as counts, which detector formats hold."""
    if scan.measurement == "counts":
        return np.dtype(scan.patterns.dtype), np.asarray
    kind = np.dtype(scan.patterns.dtype)
    return (kind if kind.kind == "f" else np.dtype(np.uint64)), counts_of_amplitudes


def record_of(scan: Scan, *placeholders: str) -> str:
    """The exact record of a scan whose patterns are stored as counts.

    Parameters
    ----------
    scan
        The scan.
    *placeholders
        Fields that the scan lacks and the format demands; they are None again when the record is read.
    """
    amplitudes = np.dtype(scan.patterns.dtype).str if scan.measurement == "amplitude" else None
    return scan_record(scan, amplitude_dtype=amplitudes, placeholders=list(placeholders))


def write_patterns(group: Any, name: str, scan: Scan) -> Any:
    """Write the patterns as counts, one compressed piece per pattern, and return the dataset."""
    dtype, convert = stored_counts(scan)
    dataset = group.create_dataset(
        name,
        (len(scan), scan.N, scan.N),
        dtype,
        chunks=(1, scan.N, scan.N),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
        fletcher32=True,
    )
    for part in scan.chunks():
        dataset[part] = convert(np.asarray(scan.patterns[part]))
        group.file.flush()
        _stop_if_full()
    return dataset


def put(group: Any, name: str, value: Any) -> Any:
    """Write an array, number or text so that HDF5 itself notices a damaged byte, and return the dataset.

    Arrays are chunked with a Fletcher-32 sum each; single numbers and texts lie in the object's header, which has a sum
    of its own, unless they are too long for it.

    Parameters
    ----------
    group
        An open group.
    name
        Of the dataset, with slashes for groups that are made on the way.
    value
        What numpy makes an array of, or a text.
    """
    import h5py

    folder, _, name = name.rpartition("/")
    group = make_group(group, folder) if folder else group
    if isinstance(value, str):
        encoded = value.encode("utf-8")
        value = np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded))))
    values = np.asarray(value)
    if values.ndim and values.size:
        piece = max(1, min(len(values), _CHUNK // max(1, values.nbytes // len(values))))
        chunks = (piece, *values.shape[1:])
        return group.create_dataset(name, data=values, chunks=chunks, fletcher32=True)
    if values.nbytes > _HEADER or not values.size:
        return group.create_dataset(name, data=value)
    place = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    place.set_layout(h5py.h5d.COMPACT)
    place.set_obj_track_times(False)
    kind, space = h5py.h5t.py_create(values.dtype, logical=True), h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, place))
    dataset[()] = values
    return dataset


def make_group(parent: Any, name: str) -> Any:
    """The group of a name, made with all on the way to it where there is none, without a note of the time."""
    import h5py

    for part in name.strip("/").split("/"):
        if part not in parent:
            kind = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
            kind.set_obj_track_times(False)
            h5py.h5g.create(parent.id, part.encode(), gcpl=kind)
        parent = parent[part]
    return parent


def plain_text(text: str) -> str:
    """A text as HDF5 can hold it: without zeros and stray surrogates."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


def write_record(group: Any, scan: Scan, *placeholders: str) -> None:
    """Write the exact record, positions in pixels, and scan numbers into a group of this library's own."""
    own = make_group(group, "ptychopinn")
    put(own, "scan", record_of(scan, *placeholders))
    put(own, "positions", scan.positions).attrs["units"] = "pixel"
    if scan.scan_index is not None:
        put(own, "scan_index", scan.scan_index)


def write_length(group: Any, name: str, value: float | None) -> None:
    """Write a length in metres with its units, unless it is unknown."""
    if value is not None:
        put(group, name, value).attrs["units"] = "m"


def geometric_pixel(scan: Scan) -> float | None:
    """Wavelength * distance / (N * detector pixel), metres; None where one of them is unknown."""
    return scan.replace(pixel_size=None).object_pixel_size if scan.pixel_size is not None else scan.object_pixel_size


def needed_pixel(scan: Scan, format: str, *, geometric: bool = False) -> float:
    """The object's pixel in metres, without which positions in pixels have no place in a format of metres.

    Parameters
    ----------
    scan
        The scan.
    format
        For the message.
    geometric
        Prefer what follows from the geometry to what the scan states, for formats whose readers compute it.

    Raises
    ------
    DataError
        If the scan does not know it.
    """
    pixel = (geometric_pixel(scan) if geometric else None) or scan.object_pixel_size
    if pixel is None:
        raise DataError(
            f"{format} keeps positions in metres, and the scan does not know the object's pixel; give it with "
            "--pixel-size (metres), or --wavelength, --distance and --detector-pixel-size."
        )
    return pixel


def object_centre(scan: Scan, pixel: float) -> tuple[float, float]:
    """(row, col) metres of the middle of the object, in the frame of positions that are the middle of a patch."""
    if scan.object is None or scan.object_origin is None:
        raise ValueError("the scan has no object")
    rows, columns = (
        (start + (size - 1) / 2 + PATCH_MIDDLE) * pixel
        for start, size in zip(scan.object_origin, scan.object.shape, strict=True)
    )
    return rows, columns


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Any]:
    """A new HDF5 file that the libraries of the last ten years read, and whose bytes do not depend on the clock.

    HDF5 that cannot write crashes with the process, so that it is spared the news until its file is closed.

    Raises
    ------
    OSError
        If the file cannot be written, at the latest when the block ends.
    """
    with path.open("x+b", buffering=0) as stream:
        disk = _Disk(stream)
        outer = _DISK.set(disk)
        try:
            with _created(disk) as file:
                yield file
        finally:
            _DISK.reset(outer)
        _stop_if_full(disk)


def _created(disk: _Disk) -> Any:
    """An empty file of the version whose parts have checksums.

    A function of its own: HDF5 crashes at the end of the process if something refers to these properties still.
    """
    import h5py

    access, kind = h5py.h5p.create(h5py.h5p.FILE_ACCESS), h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, disk)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    kind.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(b"new", h5py.h5f.ACC_TRUNC, kind, access))


def _stop_if_full(disk: _Disk | None = None) -> None:
    disk = disk or _DISK.get()
    if disk is not None and disk.error is not None:
        raise disk.error


class _Disk:
    """A file for HDF5 that remembers what went wrong instead of saying so."""

    def __init__(self, stream: io.FileIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        """Read what was written."""
        return self._stream.read(size) or b""

    def readinto(self, buffer: Any) -> int | None:
        """Read what was written; zeros where the disk was full."""
        view = memoryview(buffer).cast("B")
        done = self._stream.readinto(view) or 0
        view[done:] = bytes(len(view) - done)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write everything, or as much as fits."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            step = self._attempt(functools.partial(self._stream.write, view[done:]))
            if step is None:
                break
            done += step
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        return self._attempt(lambda: self._stream.truncate(size)) or 0

    def flush(self) -> None:
        """Nothing is held back."""

    def _attempt(self, act: Callable[[], int | None]) -> int | None:
        if self.error is not None:
            return None
        try:
            return act()
        except OSError as error:
            self.error = error
            return None
