"""Datasets of an HDF5 file, wherever their values lie: in the file, in raw files, or in the datasets of other files.

HDF5 itself reads only values that lie in a file that was opened by `ptycho.data.readers.hdf5_tree`; raw files and the
parts of virtual datasets are read here, so that nothing is opened that was not checked. Unlike HDF5, which fills in
zeros, a part that is missing is an error.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.regular_files import open_regular
from ptycho.data.readers.hdf5_selection import Part, part_of
from ptycho.data.readers.hdf5_tree import Hdf5Tree, MissingError, Place, file_of, folder_of
from ptycho.data.readers.hdf5_virtual import VirtualParts, virtual_parts
from ptycho.data.readers.limits import check_chunk, check_expansion, claimed_bytes, shortened
from ptycho.errors import DataError

_DEEPEST = 4
"""Virtual datasets that are made of virtual datasets; a detector's and a beamline's make two."""
_PER_VALUE = 4 * _DEEPEST
_AT_LEAST = 2**24
"""Values that may be read of parts for every value that is wanted, and in any case: parts do not overlap often."""


class Dataset:
    """A dataset whose values lie in its own file.

    Parameters
    ----------
    tree
        The open files.
    node
        The h5py dataset.
    what
        File and name, for messages.
    """

    needs_node = True
    """Whether reading needs the file of the dataset to be open."""

    def __init__(self, tree: Hdf5Tree, node: Any, what: str) -> None:
        self.tree, self.node, self.what = tree, node, what
        self.place = place_of(node)
        self.dtype: np.dtype[Any] = node.dtype
        self.shape: tuple[int, ...] | None = self._find_shape()

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of the pieces in which the values are compressed."""
        return self.node.chunks

    def check(self) -> None:
        """Refuse what is too good to be true.

        Raises
        ------
        DataError
            The dataset expands like a bomb, or its chunks are too large to unpack.
        """
        if self.shape is not None:
            check_expansion(self.what, claimed_bytes(self.shape, self.dtype), self.node.id.get_storage_size())
        if self.chunks:
            check_chunk(self.what, claimed_bytes(self.chunks, self.dtype), self.node.id.get_storage_size())

    def read(self, part: Part = (), budget: Budget | None = None) -> NDArray[Any]:
        """Part of the values, by numbers and slices along the leading axes."""
        return np.asarray(self.node[part])

    def _find_shape(self) -> tuple[int, ...] | None:
        return self.node.shape


class RawDataset(Dataset):
    """A dataset whose values lie one after the other in files without any structure."""

    needs_node = False

    def check(self) -> None:
        """Resolve the raw files.

        Raises
        ------
        DataError
            One lies in no folder that the user trusts, or is too short.
        """
        self._segments = []
        needed = claimed_bytes(self.shape or (), self.dtype)
        for name, offset, size in self.node.external:
            path = self.tree.trust.resolve(name, folder_of(self.node), self.what, raw=True)
            there = max(0, path.stat().st_size - offset)
            self._segments.append((path, offset, min(size, there)))
            if there < min(size, needed):
                raise DataError(f"{self.what}: the raw data in {path} end before their values do; the file is damaged.")
            needed = max(0, needed - size)
        if needed:
            raise DataError(f"{self.what}: the raw files hold less than the dataset claims; the file is damaged.")

    def read(self, part: Part = (), budget: Budget | None = None) -> NDArray[Any]:
        """Part of the values; whole entries of the first axis are read and then cut."""
        shape = self.shape or ()
        if not shape:
            return np.frombuffer(self._bytes(0, self.dtype.itemsize), self.dtype).reshape(())
        first, *others = part or (slice(None),)
        numbers = range(shape[0])[first] if isinstance(first, slice) else range(int(first), int(first) + 1)
        entry = math.prod(shape[1:]) * self.dtype.itemsize
        low, high = (min(numbers, default=0), max(numbers, default=-1) + 1)
        values = np.frombuffer(self._bytes(low * entry, (high - low) * entry), self.dtype)
        values = values.reshape(high - low, *shape[1:])[:: numbers.step]
        return values[(slice(None) if isinstance(first, slice) else 0, *others)]

    def _bytes(self, start: int, count: int) -> bytes:
        pieces = []
        for path, offset, size in self._segments:
            if count and start < size:
                some = min(count, size - start)
                with open_regular(path) as stream:
                    stream.seek(offset + start)
                    pieces.append(stream.read(some))
                if len(pieces[-1]) != some:
                    raise DataError(f"{self.what}: {path} became shorter while it was read.")
                start, count = start + some, count - some
            start -= size
            start = max(0, start)
        return b"".join(pieces)


class Budget:
    """Values that may still be read of the parts of a virtual dataset; overlapping parts of parts multiply."""

    def __init__(self, wanted: int) -> None:
        self.left = _AT_LEAST + _PER_VALUE * wanted

    def take(self, count: int, what: str) -> None:
        """Count values that are about to be read."""
        self.left -= count
        if self.left < 0:
            raise DataError(f"{what} is made of parts that overlap again and again, which is refused.")


class VirtualDataset(Dataset):
    """A dataset made of parts of datasets in the same file or others."""

    needs_node = False

    def __init__(self, tree: Hdf5Tree, node: Any, what: str, outer: frozenset[Place] = frozenset()) -> None:
        self._outer = outer | {place_of(node)}
        self._parts: VirtualParts | None = None
        self._sources: dict[Place, Dataset] = {}
        super().__init__(tree, node, what)
        self.fill = node.fillvalue

    @property
    def chunks(self) -> None:
        """None: it is not stored."""
        return None

    @property
    def parts(self) -> VirtualParts:
        """What it is made of."""
        if self._parts is None:
            self._parts = virtual_parts(self.tree, self.node, self.what, self._source)
        return self._parts

    def check(self) -> None:
        """Refuse a shape that is nearly all made of nothing; finding it has checked every source.

        Raises
        ------
        DataError
            The parts are next to nothing of it.
        """
        itemsize = self.dtype.itemsize
        check_expansion(self.what, claimed_bytes(self.shape or (), self.dtype), self.parts.covered * itemsize)

    def read(self, part: Part = (), budget: Budget | None = None) -> NDArray[Any]:
        """Part of the values."""
        wanted, shape = part_of(part, self.shape or ())
        count = math.prod(len(numbers) for numbers in wanted)
        budget = budget or Budget(count)
        out = np.full([len(numbers) for numbers in wanted], self.fill, self.dtype)
        for piece in self.parts.touching(wanted[0]):
            source = self._source(piece.place)
            for into, of in piece.reads(wanted):
                budget.take(math.prod(len(range(n)[cut]) for n, cut in zip(out.shape, into, strict=True)), self.what)
                values = source.read(of, budget)
                out[into] = converted(values.reshape(out[into].shape), self.dtype, self.what)
        return out.reshape(shape)

    def _find_shape(self) -> tuple[int, ...] | None:
        return self.parts.shape

    def _source(self, place: Place) -> Dataset:
        """A source as it is open now; its file may have been closed to make room for others."""
        known = self._sources.get(place)
        if known is not None and (known.node or not known.needs_node):
            return known
        node = self.tree.source(place)
        if node is None or not is_dataset(node):
            raise MissingError(
                f"{self.what} is made of {shortened(place.name)} in {place.path}, which is not there or no dataset."
            )
        if place_of(node) in self._outer:
            raise DataError(f"{self.what}: the virtual dataset refers to itself.")
        if len(self._outer) >= _DEEPEST:
            raise DataError(f"{self.what} is made of virtual datasets more than {_DEEPEST} deep, which is refused.")
        self._sources[place] = dataset_of(self.tree, node, self.what, self._outer)
        return self._sources[place]


def dataset_of(tree: Hdf5Tree, node: Any, what: str, outer: frozenset[Place] = frozenset()) -> Dataset:
    """The dataset of an h5py node, checked.

    Parameters
    ----------
    tree
        The open files.
    node
        An h5py dataset.
    what
        File and name, for messages.
    outer
        The virtual datasets that it is a part of.

    Raises
    ------
    DataError
        Its values lie in files that are not trusted or not there, or it claims what cannot be.
    """
    if node.is_virtual:
        made: Dataset = VirtualDataset(tree, node, what, outer)
    else:
        made = RawDataset(tree, node, what) if node.external else Dataset(tree, node, what)
    made.check()
    return made


def is_dataset(node: Any) -> bool:
    """Whether an h5py node is a dataset; to find the shape of a virtual one HDF5 would open its parts."""
    import h5py

    return isinstance(node, h5py.Dataset)


def place_of(node: Any) -> Place:
    """File and name of an h5py node."""
    return Place(file_of(node), str(node.name))


def converted(values: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Values of a part in the dtype of the whole; integers that do not fit are clipped, as HDF5 does.

    Raises
    ------
    DataError
        Numbers are not converted to it.
    """
    if values.dtype == dtype or np.can_cast(values.dtype, dtype, "same_kind"):
        if dtype.kind in "iu" and values.dtype.kind in "iu" and not np.can_cast(values.dtype, dtype, "safe"):
            bounds = np.iinfo(dtype)
            low, high = max(bounds.min, np.iinfo(values.dtype).min), min(bounds.max, np.iinfo(values.dtype).max)
            values = np.clip(values, low, high)
        return values.astype(dtype, copy=False)
    if values.dtype.kind in "iuf" and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if values.dtype.kind == "f":
            whole = np.nan_to_num(np.trunc(values.astype(np.float64)), nan=0.0)
            top = np.nextafter(float(bounds.max), 0) if bounds.max > 2**53 else float(bounds.max)
            return np.clip(whole, float(bounds.min), top).astype(dtype)
        low, high = max(bounds.min, np.iinfo(values.dtype).min), min(bounds.max, np.iinfo(values.dtype).max)
        return np.clip(values, low, high).astype(dtype)
    raise DataError(f"{what} is {dtype} made of parts of {values.dtype}, which are not converted.")


__all__ = ["Budget", "Dataset", "RawDataset", "VirtualDataset", "dataset_of", "is_dataset"]
