"""Frames in an HDF5 file that stay there until they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, SystemError)
"""What h5py raises on a file that is damaged, truncated, or needs a filter that is not there."""


def open_file(path: Path) -> Any:
    """An HDF5 file for reading, with the filters of compressed detector files."""
    import h5py
    import hdf5plugin  # noqa: F401  registers them

    return h5py.File(path, "r", locking="best-effort")


def open_node(group: Any, name: str) -> Any:
    """A dataset or group of an open file; raw and virtual sources of a dataset are sought beside the file itself.

    HDF5 would look for raw sources in the working directory, where another file may have the same name.
    """
    import h5py

    node = group[name]
    if not isinstance(node, h5py.Dataset) or not (node.external or node.is_virtual):
        return node
    del node  # HDF5 refuses two prefixes for a dataset that is open twice
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    access.set_virtual_prefix(b"${ORIGIN}")
    return h5py.Dataset(h5py.h5d.open(group.id, name.encode(), access))


def names_in(group: Any) -> list[str]:
    """Names of what stands in a group of an open file, in alphabetical order.

    They are read in HDF5's own order: to sort them it makes a table, and when it cannot finish that, because the file
    is damaged, it crashes with the process.
    """
    import h5py

    names: list[bytes] = []
    group.id.links.iterate(names.append, idx_type=h5py.h5.INDEX_NAME, order=h5py.h5.ITER_NATIVE)
    return sorted(name.decode("utf-8", "surrogateescape") for name in names)


class Hdf5Source:
    """Frames in a dataset of an HDF5 file, which is open from the first read until nothing refers to this any more.

    A copy in another process (after a fork, or unpickled) opens the file for itself.

    Parameters
    ----------
    path, name
        File and dataset.
    shape, dtype
        As the dataset has them.
    frames_per_chunk
        Frames that it unpacks at once.
    """

    def __init__(
        self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], frames_per_chunk: int = 1
    ) -> None:
        self.path, self.name, self.shape, self.dtype, self.frames_per_chunk = path, name, shape, dtype, frames_per_chunk
        self._open: tuple[int, Any, Any] | None = None

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the dataset.

        Raises
        ------
        DataError
            If the file is gone or damaged, or compressed in a way that cannot be read.
        """
        try:
            return np.asarray(self._dataset()[part])
        except UNREADABLE as error:
            reason = str(error).split("\n")[0]
            raise DataError(
                f"{self.path}: the patterns in {self.name!r} cannot be read, the file is damaged, has gone, or is "
                f"compressed by a filter that is not installed ({reason})."
            ) from error

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file."""
        return {**self.__dict__, "_open": None}

    def _dataset(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():
            file = open_file(self.path)
            self._open = (os.getpid(), file, open_node(file, self.name))
        return self._open[2]
