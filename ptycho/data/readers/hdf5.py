"""HDF5 files read with suspicion: links stay in trusted folders, claims are checked, nothing is a Python object.

HDF5 itself follows external links, virtual datasets and raw external storage wherever they point, fills in zeros where
a virtual dataset's source is missing, and allocates what a header claims. `ptycho.data.readers.hdf5_tree` and
`ptycho.data.readers.hdf5_datasets` follow them instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptycho.config.regular_files import IrregularFileError, open_regular
from ptycho.data.lazy import LazyPatterns, frames_in
from ptycho.data.readers.hdf5_datasets import Dataset, dataset_of, is_dataset
from ptycho.data.readers.hdf5_source import Hdf5Source, names_in
from ptycho.data.readers.hdf5_tree import UNREADABLE, Hdf5Tree, Trust, real_path
from ptycho.data.readers.limits import check_expansion, check_fits_memory, claimed_bytes, readable, shortened
from ptycho.data.readers.units import length_unit
from ptycho.errors import DataError, PtychoError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_TEXT = 2**24
"""Bytes; the record of a scan with much metadata is the longest text that is read."""


def is_hdf5(path: Path) -> bool:
    """Whether the signature stands at the beginning or behind a user block, as in MATLAB's files."""
    with contextlib.suppress(OSError), open_regular(path) as stream:
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
        Path of the file.
    data_dirs
        Folders whose files may be linked to, beside the file's own folder (the real one, where `path` is a link) and
        those that the environment variable ``PTYCHO_DATA_DIRS`` names.

    Raises
    ------
    DataError
        On entering, if it is not a complete HDF5 file; whatever HDF5 complains about inside the block becomes a
        `DataError` too.
    """

    def __init__(self, path: Path, data_dirs: Sequence[str | PathLike[str]] = ()) -> None:
        self.path = path
        self._trust = Trust.of(path, data_dirs)
        self._tree = Hdf5Tree(real_path(path), self._trust, str(path))
        self._unpacked = self._stored = 0

    def __enter__(self) -> Self:
        """Open the file."""
        try:
            self._tree.file(self._tree.root)
        except DataError:
            raise
        except IrregularFileError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from error
        except UNREADABLE as error:
            raise DataError(
                f"{self.path} cannot be read as an HDF5 file, it is truncated or not one ({_first_line(error)})."
            ) from error
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Close the file and what it links to."""
        self._tree.close()
        if isinstance(error, UNREADABLE) and not isinstance(error, PtychoError):
            raise DataError(f"{self.path} cannot be read, the file is damaged ({_first_line(error)}).") from error

    def find(self, name: str) -> Any:
        """The dataset or group of that name, in this file or where it links to; None if there is none.

        Raises
        ------
        DataError
            If a link leaves the trusted folders, goes in circles, or points to nothing.
        """
        return self._tree.find(name)

    def __contains__(self, name: str) -> bool:
        """Whether there is a dataset or group of that name."""
        return self.find(name) is not None

    def names(self) -> list[str]:
        """What stands at the top of the file."""
        return names_in(self._tree.file(self._tree.root)["/"])

    def groups(self, name: str = "/") -> dict[str, Any]:
        """The groups inside a group, by their full names, in alphabetical order."""
        inside = self.find(name)
        if inside is None or not hasattr(inside, "keys"):
            return {}
        found = {f"{name.rstrip('/')}/{key}": self.find(f"{name.rstrip('/')}/{key}") for key in names_in(inside)}
        return {key: value for key, value in found.items() if hasattr(value, "keys")}

    def first(self, *names: str) -> str | None:
        """The first of some names that is a dataset."""
        return next((name for name in names if is_dataset(self.find(name))), None)

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
        node = self.find(name)
        if not is_dataset(node):
            return None
        what = f"{self.path}: {shortened(name)}"
        dtype = _complex_of(node.dtype) or node.dtype
        if dtype.hasobject or dtype.kind not in kinds:
            raise DataError(f"{what} holds {node.dtype}, numbers are expected ({_in_words(kinds)}).")
        dataset = dataset_of(self._tree, node, what)
        if dataset.shape is None:
            return None
        self._count(dataset, what)
        try:
            values = dataset.read()
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(f"{what} cannot be read, the file is damaged ({_first_line(error)}).") from error
        return values if _complex_of(node.dtype) is None else _as_complex(values)

    def _count(self, dataset: Dataset, what: str) -> None:
        """Refuse a file whose arrays are a decompression bomb together."""
        size = claimed_bytes(dataset.shape or (), dataset.dtype)
        check_fits_memory(what, size)
        self._unpacked += size
        self._stored += dataset.node.id.get_storage_size() if dataset.needs_node else size
        check_expansion(f"{self.path}: all arrays together", self._unpacked, self._stored)

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
        node = self.find(name)
        if not is_dataset(node) or not _is_plain(node.id.get_type()):
            return None
        what = f"{self.path}: {shortened(name)}"
        if node.is_virtual or node.external:
            raise DataError(f"{what} is a text that lies in another file, which is not read.")
        dataset = dataset_of(self._tree, node, what)
        if node.size != 1:
            return None
        _check_text(what, node.dtype.itemsize)
        value = np.asarray(dataset.read()).reshape(-1)[0]
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
            node, what = self.find(name), f"{self.path}: {shortened(name)}"
            if not is_dataset(node):
                raise DataError(f"{self.path} lacks the patterns {name}.")
            dataset = self._frames(node, what)
            frames = frames_in(dataset.chunks)
            sources.append(Hdf5Source(dataset.place, self._trust, dataset.shape or (), dataset.dtype, frames))
        return LazyPatterns(tuple(sources))

    def _frames(self, node: Any, what: str) -> Dataset:
        """A dataset of at least three axes of real numbers."""
        if node.dtype.kind in "biuf":
            dataset = dataset_of(self._tree, node, what)
            if len(dataset.shape or ()) >= 3:
                return dataset
            shape = f" of shape {dataset.shape}"
        else:
            shape = ""
        raise DataError(f"{what} holds {node.dtype}{shape}, frames of real numbers (number, row, column) are expected.")


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
