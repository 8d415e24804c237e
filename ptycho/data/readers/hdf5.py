"""HDF5 files read with suspicion: links stay in the file's folder, claims are checked, nothing is a Python object.

HDF5 itself follows external links, virtual datasets and raw external storage wherever they point, fills in zeros where
a virtual dataset's source is missing, and allocates what a header claims. So links are followed here, by hand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptycho.data.lazy import LazyPatterns, frames_in
from ptycho.data.readers.hdf5_heap import check_heaps
from ptycho.data.readers.hdf5_source import UNREADABLE, Hdf5Source, names_in, open_file, open_node
from ptycho.data.readers.limits import check_chunk, check_expansion, check_fits_memory, claimed_bytes, readable
from ptycho.data.readers.units import length_unit
from ptycho.errors import DataError, PtychoError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_CHAIN = 16
_LONGEST_TEXT = 2**24
"""Bytes; the record of a scan with much metadata is the longest text that is read."""


def is_hdf5(path: Path) -> bool:
    """Whether the signature stands at the beginning or behind a user block, as in MATLAB's files."""
    with contextlib.suppress(OSError), path.open("rb") as stream:
        for place in (0, 512, 1024, 2048, 4096, 8192):
            stream.seek(place)
            if stream.read(8) == SIGNATURE:
                return True
    return False


class Hdf5File:
    """An HDF5 file for reading, within a ``with`` block.

    Parameters
    ----------
    path
        Path of the file. What it links to is read only if it lies in the same folder or below.

    Raises
    ------
    DataError
        On entering, if it is not a complete HDF5 file; whatever HDF5 complains about inside the block becomes a
        `DataError` too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, Any] = {}
        self._nodes: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Self:
        """Open the file."""
        try:
            self._file(self.path)
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(
                f"{self.path} cannot be read as an HDF5 file, it is truncated or not one ({_first_line(error)})."
            ) from error
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Close the file and what it links to."""
        self._nodes.clear()
        for file in self._files.values():
            with contextlib.suppress(*UNREADABLE):
                file.close()
        self._files.clear()
        if isinstance(error, UNREADABLE) and not isinstance(error, PtychoError):
            raise DataError(f"{self.path} cannot be read, the file is damaged ({_first_line(error)}).") from error

    def find(self, name: str) -> Any:
        """The dataset or group of that name, in this file or where it links to; None if there is none.

        Raises
        ------
        DataError
            If a link leaves the folder, goes in circles, or points to nothing.
        """
        return self._walk(self._file(self.path)["/"], name, 0)

    def __contains__(self, name: str) -> bool:
        """Whether there is a dataset or group of that name."""
        return self.find(name) is not None

    def names(self) -> list[str]:
        """What stands at the top of the file."""
        return names_in(self._file(self.path)["/"])

    def groups(self, name: str = "/") -> dict[str, Any]:
        """The groups inside a group, by their full names, in alphabetical order."""
        inside = self.find(name)
        if inside is None or not hasattr(inside, "keys"):
            return {}
        found = {f"{name.rstrip('/')}/{key}": self.find(f"{name.rstrip('/')}/{key}") for key in names_in(inside)}
        return {key: value for key, value in found.items() if hasattr(value, "keys")}

    def first(self, *names: str) -> str | None:
        """The first of some names that is a dataset."""
        return next((name for name in names if _is_dataset(self.find(name))), None)

    def array(self, name: str, *, kinds: str = "biufc") -> NDArray[Any] | None:
        """A whole dataset of numbers; None if there is none.

        Parameters
        ----------
        name
            Full name of the dataset.
        kinds
            Kinds of numpy dtypes that are expected.

        Raises
        ------
        DataError
            If it is none of the kinds (no Python object is ever made), or larger than the memory.
        """
        dataset = self.find(name)
        if not _is_dataset(dataset):
            return None
        what = f"{self.path}: {name}"
        dtype = _complex_of(dataset.dtype) or dataset.dtype
        if dtype.hasobject or dtype.kind not in kinds:
            raise DataError(f"{what} holds {dataset.dtype}, numbers are expected ({_in_words(kinds)}).")
        if dataset.shape is None:
            return None
        self._check_storage(dataset, what)
        check_fits_memory(what, claimed_bytes(dataset.shape, dataset.dtype))
        try:
            values = np.asarray(dataset[()])
        except UNREADABLE as error:
            raise DataError(f"{what} cannot be read, the file is damaged ({_first_line(error)}).") from error
        return values if _complex_of(dataset.dtype) is None else _as_complex(values)

    def number(self, name: str, units: Any = None) -> float | None:
        """A dataset of one number; None if there is none or it is empty.

        Parameters
        ----------
        name
            Full name of the dataset.
        units
            A function like `length_unit` that turns the attribute ``units`` into a factor.
        """
        values = self.array(name, kinds="biuf")
        if values is None or values.size == 0:
            return None
        if values.size != 1 and not np.all(values == values.reshape(-1)[0]):
            raise DataError(f"{self.path}: {name} has {values.size} different values, one is expected.")
        factor = 1.0 if units is None else units(str(self.attribute(name, "units") or ""), f"{self.path}: {name}")
        return float(values.reshape(-1)[0]) * factor

    def length(self, *names: str) -> float | None:
        """The first of some datasets as a length in metres, by its attribute ``units``; None if it is not positive."""
        for name in names:
            value = self.number(name, length_unit)
            if value is not None and np.isfinite(value) and value > 0:
                return value
        return None

    def text(self, name: str) -> str | None:
        """A dataset of one text; None if there is none."""
        dataset = self.find(name)
        if not _is_dataset(dataset) or dataset.size != 1 or not _is_plain(dataset.id.get_type()):
            return None
        self._check_storage(dataset, f"{self.path}: {name}")
        _check_text(f"{self.path}: {name}", dataset.dtype.itemsize)
        value = np.asarray(dataset[()]).reshape(-1)[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def attribute(self, name: str, key: str) -> Any:
        """An attribute of a dataset or group as a text or number; None if there is none."""
        node = self.find(name)
        if node is None or key not in node.attrs or not _is_plain(node.attrs.get_id(key).get_type()):
            return None
        _check_text(f"{self.path}: the attribute {key} of {name}", node.attrs.get_id(key).get_storage_size())
        value = node.attrs[key]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def patterns(self, *names: str) -> LazyPatterns:
        """Datasets of frames one after the other, unread.

        Raises
        ------
        DataError
            If one is missing, or no stack of frames of numbers, or claims more than can be.
        """
        sources = []
        for name in names:
            dataset, what = self.find(name), f"{self.path}: {name}"
            if not _is_dataset(dataset):
                raise DataError(f"{self.path} lacks the patterns {name}.")
            if dataset.dtype.kind not in "biuf" or dataset.ndim < 3:
                raise DataError(
                    f"{what} holds {dataset.dtype} of shape {dataset.shape}, frames of real numbers "
                    "(number, row, column) are expected."
                )
            self._check_storage(dataset, what)
            frames, where = frames_in(dataset.chunks), Path(dataset.file.filename)
            sources.append(Hdf5Source(where, dataset.name, dataset.shape, dataset.dtype, frames))
        return LazyPatterns(tuple(sources))

    def _file(self, path: Path) -> Any:
        if path not in self._files:
            check_heaps(path)
            self._files[path] = open_file(path)
        return self._files[path]

    def _walk(self, node: Any, name: str, hops: int) -> Any:
        """Follow a name from a group, link by link."""
        import h5py

        if hops > _LONGEST_CHAIN:
            raise DataError(f"{self.path}: the links behind {name} go in circles.")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for place, part in enumerate(parts):
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            rest = parts[place + 1 :]
            if link is None:
                return None
            if isinstance(link, h5py.SoftLink):
                start = node.file["/"] if link.path.startswith("/") else node
                return self._walk(start, "/".join([link.path, *rest]), hops + 1)
            if isinstance(link, h5py.ExternalLink):
                target = self._beside(node.file, link.filename, f"{node.name.rstrip('/')}/{part}")
                return self._walk(self._file(target)["/"], "/".join([link.path, *rest]), hops + 1)
            key = (node.file.filename, f"{node.name.rstrip('/')}/{part}")
            if key not in self._nodes:
                self._nodes[key] = open_node(node, part)
            node = self._nodes[key]
        return node

    def _beside(self, file: Any, name: str, what: str) -> Path:
        """The file that a link names, if it lies in the folder of the file that was opened or below."""
        home = Path(os.path.abspath(self.path.parent))
        folder = Path(os.path.abspath(file.filename)).parent
        candidates = [Path(os.path.normpath(folder / name))]
        if Path(name).is_absolute():
            candidates.append(folder / Path(name).name)  # the folder was moved; HDF5 looks there too
        inside = [path for path in candidates if path.is_relative_to(home)]
        if not inside:
            raise DataError(
                f"{self.path}: {what} links to {name}, which is outside the file's folder and is not followed; "
                "put the linked file beside it."
            )
        found = next((path for path in inside if path.is_file()), None)
        if found is None:
            raise DataError(f"{self.path}: {what} links to {name}, which is not there; put it beside the file.")
        return self.path if found == Path(os.path.abspath(self.path)) else found

    def _check_storage(self, dataset: Any, what: str, seen: frozenset[tuple[str, str]] = frozenset()) -> None:
        """Make sure that a dataset's values come from this folder, are there, and are not too good to be true."""
        key = (dataset.file.filename, dataset.name)
        if key in seen or len(seen) > _LONGEST_CHAIN:
            raise DataError(f"{what}: the virtual dataset refers to itself.")
        if dataset.external:
            for name, *_ in dataset.external:
                self._beside(dataset.file, name, what)
        if dataset.is_virtual:
            for source in dataset.virtual_sources():
                self._check_source(dataset, source, what, seen | {key})
            return
        size = claimed_bytes(dataset.shape, dataset.dtype)
        if not dataset.external:
            check_expansion(what, size, dataset.id.get_storage_size())
        if dataset.chunks:
            check_chunk(what, claimed_bytes(dataset.chunks, dataset.dtype))

    def _check_source(self, dataset: Any, source: Any, what: str, seen: frozenset[tuple[str, str]]) -> None:
        if source.file_name == ".":
            files: Sequence[Any] = [dataset.file]
        elif "%b" in source.file_name:
            folder = Path(dataset.file.filename).parent
            names = sorted(folder.glob(source.file_name.replace("%b", "*")))
            if not names:
                raise DataError(f"{what} is made of {source.file_name}, of which there is none beside the file.")
            files = [self._file(self._beside(dataset.file, str(name), what)) for name in names]
        else:
            files = [self._file(self._beside(dataset.file, source.file_name, what))]
        for file in files:
            found = self._walk(file["/"], source.dset_name, 0) if "%b" not in source.dset_name else None
            if found is None and "%b" not in source.dset_name:
                raise DataError(f"{what} is made of {source.dset_name} in {source.file_name}, which is not there.")
            if found is not None:
                self._check_storage(found, what, seen)


def _is_dataset(node: Any) -> bool:
    return node is not None and hasattr(node, "dtype") and hasattr(node, "shape")


def _check_text(what: str, size: int) -> None:
    if size > _LONGEST_TEXT:
        raise DataError(f"{what} claims {readable(size)}, which no text or number takes; the file is damaged.")


def _is_plain(kind: Any) -> bool:
    """Whether an HDF5 type is a number or a text; HDF5 is known to crash on damaged ones of variable length."""
    import h5py

    return kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)


def _complex_of(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The complex dtype of a compound of two real parts, as MATLAB and others store it; None for any other dtype."""
    if dtype.names is None or len(dtype.names) != 2:
        return None
    real, imaginary = (dtype[name] for name in dtype.names)
    names = tuple(name.lower() for name in dtype.names)
    if names not in (("real", "imag"), ("r", "i"), ("re", "im")) or real != imaginary or real.kind != "f":
        return None
    return np.dtype(np.complex64 if real.itemsize <= 4 else np.complex128)


def _as_complex(values: NDArray[Any]) -> NDArray[Any]:
    real, imaginary = (values[name] for name in values.dtype.names or ())
    return (real + 1j * imaginary).astype(_complex_of(values.dtype))


def _in_words(kinds: str) -> str:
    return "complex or real" if "c" in kinds else "real"


def _first_line(error: BaseException) -> str:
    return str(error).strip("'\"").split("\n")[0] or type(error).__name__
