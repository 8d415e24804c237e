"""Writing a scan as PtychoPINN's NPZ, exactly, in bounded memory, and never half."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.npz import MAP_FROM_BYTES
from ptycho.data.readers.roundtrip import scan_record
from ptycho.data.scan import Measurement, Scan
from ptycho.files import written_whole

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same scan gives the same bytes


class PtychoPINNWriter:
    """Writes PtychoPINN's NPZ, as `save_npz` does."""

    name = "ptychopinn-npz"
    description = "an NPZ file with diff3d, xcoords and ycoords"
    extensions = (".npz",)

    def lost(self, scan: Scan) -> list[str]:
        """PtychoPINN takes every number in `diff3d` for an amplitude."""
        if scan.measurement == "amplitude":
            return []
        return [
            "The patterns are stored as counts: ptychodus and this library see that, PtychoPINN takes diff3d for "
            "amplitudes; write amplitudes for it."
        ]

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        with path.open("xb") as stream:
            _write_archive(scan, stream, None, compress=worth_packing(scan))


def save_npz(
    scan: Scan,
    path: str | PathLike[str],
    *,
    measurement: Measurement | None = None,
    compress: bool = True,
    overwrite: bool = False,
) -> None:
    """Write a scan as PtychoPINN's NPZ; `load_scan` reads it back exactly.

    The keys are PtychoPINN's (`diff3d`, `xcoords`, `ycoords`, `probeGuess`, `objectGuess`, ...) and ptychodus's
    `bad_pixels`; `_metadata` states what was measured, the lengths and the object's origin.

    Parameters
    ----------
    scan
        The scan to be written.
    path
        Path of the file.
    measurement
        "amplitude" converts the patterns to float amplitudes, which is what PtychoPINN itself takes
        `diff3d` for; "counts" to float counts; None keeps them as they are.
    compress
        Deflate the arrays; large uncompressed files can be memory-mapped when they are loaded.
    overwrite
        Replace an existing file.

    Raises
    ------
    OutputError
        If the file exists and may not be replaced, or cannot be written; nothing half-written is left.
    DataError
        If the scan's metadata cannot be expressed as JSON.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.save_npz(scan, "scan.npz")
    >>> len(ptycho.load_scan("scan.npz"))
    40
    """
    with written_whole(path, overwrite=overwrite) as stream:
        _write_archive(scan, stream, measurement, compress)


def _write_archive(scan: Scan, stream: IO[bytes], measurement: Measurement | None, compress: bool) -> None:
    metadata = scan_record(scan, measurement=measurement or scan.measurement)
    dtype, chunks = _patterns(scan, measurement)
    arrays = {**_arrays(scan), "_metadata": np.array(metadata)}
    with zipfile.ZipFile(stream, "w") as archive:
        write_member(archive, "diff3d", (len(scan), scan.N, scan.N), dtype, chunks, compress)
        for key, values in arrays.items():
            write_member(archive, key, values.shape, values.dtype, [values], compress)


def _patterns(scan: Scan, measurement: Measurement | None) -> tuple[np.dtype[Any], Iterator[NDArray[Any]]]:
    if measurement is None or (measurement == scan.measurement and scan.patterns.dtype.kind == "f"):
        return scan.patterns.dtype, (np.asarray(scan.patterns[part]) for part in scan.chunks())
    convert = scan.amplitude if measurement == "amplitude" else scan.counts
    dtype = np.dtype(np.float64 if scan.patterns.dtype == np.float64 else np.float32)
    return dtype, (convert(part, dtype) for part in scan.chunks())


def _arrays(scan: Scan) -> dict[str, NDArray[Any]]:
    rows, columns = scan.positions[:, 0], scan.positions[:, 1]
    arrays: dict[str, NDArray[Any]] = {
        "xcoords": columns,
        "ycoords": rows,
        "xcoords_start": columns,
        "ycoords_start": rows,
    }
    if scan.probe is not None:
        arrays["probeGuess"] = scan.probe[0] if scan.probe.shape[0] == 1 else scan.probe
    if scan.object is not None:
        arrays["objectGuess"] = scan.object
    if scan.scan_index is not None:
        arrays["scan_index"] = scan.scan_index
    if scan.mask is not None:
        arrays["bad_pixels"] = ~scan.mask
    return arrays


def worth_packing(scan: Scan) -> bool:
    """Whether the patterns are so few that a reader may unpack them all; more are stored plainly, to be mapped."""
    return scan.patterns.dtype.itemsize * len(scan) * scan.N**2 < MAP_FROM_BYTES


def write_member(
    archive: zipfile.ZipFile,
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: Iterable[NDArray[Any]],
    compress: bool,
) -> None:
    """Add an array to an NPZ archive, piece by piece; its bytes depend on nothing but the arguments."""
    info = zipfile.ZipInfo(f"{key}.npy", date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(info, "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in chunks:
            stream.write(np.ascontiguousarray(chunk, dtype=dtype).tobytes())
