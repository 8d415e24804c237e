"""Frames in an HDF5 file that stay there until they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5_datasets import Dataset, dataset_of, is_dataset
from ptycho.data.readers.hdf5_tree import UNREADABLE, Hdf5Tree, Place, Trust
from ptycho.errors import DataError


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

    A copy in another process (after a fork, or unpickled) opens the file for itself, and checks again what it links to.

    Parameters
    ----------
    place
        File and dataset.
    trust
        In which folders linked files are read.
    shape, dtype
        As the dataset has them.
    frames_per_chunk
        Frames that it unpacks at once.
    """

    def __init__(
        self, place: Place, trust: Trust, shape: tuple[int, ...], dtype: np.dtype[Any], frames_per_chunk: int = 1
    ) -> None:
        self.place, self.trust, self.shape, self.dtype = place, trust, shape, dtype
        self.frames_per_chunk = frames_per_chunk
        self._open: tuple[int, Hdf5Tree, Dataset] | None = None

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.place.path

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.place.name

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the dataset.

        Raises
        ------
        DataError
            If the file is gone or damaged, or compressed in a way that cannot be read.
        """
        try:
            return self._dataset().read(part)
        except DataError:
            raise
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

    def _dataset(self) -> Dataset:
        if self._open is None or self._open[0] != os.getpid():
            tree = Hdf5Tree(self.path, self.trust, str(self.path))
            node, what = tree.find(self.name), f"{self.path}: {self.name}"
            if not is_dataset(node):
                raise DataError(f"{what} is not there any more; the file was replaced.")
            found = dataset_of(tree, node, what)
            if (found.shape, found.dtype) != (self.shape, self.dtype):
                raise DataError(
                    f"{what}: {found.dtype} of shape {found.shape} found, {self.dtype} of {self.shape} expected; "
                    "the file was replaced."
                )
            self._open = (os.getpid(), tree, found)
        return self._open[2]
