"""What a virtual dataset of HDF5 is made of: which part of it is which part of which dataset."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5_selection import Axis, Part, axes_of, runs
from ptycho.data.readers.hdf5_tree import Hdf5Tree, MissingError, Place, file_of, folder_of
from ptycho.data.readers.limits import shortened
from ptycho.errors import DataError

_PART_LIMIT = 2**17
"""One frame in a file of its own each, and a long scan of them, stay below."""


class Source(Protocol):
    """What is asked of a dataset that is a part of another."""

    shape: tuple[int, ...] | None


Find = Callable[[Place], Source]


@dataclass(frozen=True)
class Piece:
    """A part of the virtual dataset and the part of a source that it is.

    Parameters
    ----------
    here, there
        What is selected along every axis of the virtual dataset and of the source.
    pairs
        Axes of both that belong together; along all others a single number is selected.
    place
        The source.
    """

    here: tuple[Axis, ...]
    there: tuple[Axis, ...]
    pairs: tuple[tuple[int, int], ...]
    place: Place

    def reads(self, wanted: Sequence[NDArray[np.int64]]) -> Iterator[tuple[Part, Part]]:
        """What to read for some numbers along every axis: where it goes in the result, and what of the source it is."""
        found = [axis.find(numbers) for axis, numbers in zip(self.here, wanted, strict=True)]
        if any(not taken.size for taken, _ in found):
            return
        into = [slice(int(taken[0]), int(taken[0]) + 1) for taken, _ in found]
        of = [slice(axis.start, axis.start + 1) for axis in self.there]
        cuts = [_both(self.there[j].at(found[i][1]), found[i][0]) for i, j in self.pairs]
        for chosen in itertools.product(*cuts):
            for (i, j), (theirs, ours) in zip(self.pairs, chosen, strict=True):
                into[i], of[j] = ours, theirs
            yield tuple(into), tuple(of)


def _both(there: NDArray[np.int64], here: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """Runs of numbers that are evenly spaced in the source and in the result alike."""
    found = []
    for begin, end, of in runs(there):
        found += [
            (slice(of.start + first * of.step, of.start + (last - 1) * of.step + 1, of.step), into)
            for first, last, into in runs(here[begin:end])
        ]
    return found


class VirtualParts:
    """The pieces of a virtual dataset, and its shape."""

    def __init__(self, shape: tuple[int, ...], pieces: list[Piece]) -> None:
        self.shape, self._pieces = shape, pieces
        self.covered = sum(math.prod(axis.length or 0 for axis in piece.here) for piece in pieces)
        """Values that the pieces give, those that overlap counted again."""
        self._first = np.asarray([piece.here[0].start for piece in pieces])
        self._stop = np.asarray([piece.here[0].stop for piece in pieces])

    def touching(self, numbers: NDArray[np.int64]) -> Iterator[Piece]:
        """Pieces that may have some of these numbers along the first axis."""
        if numbers.size and self._pieces:
            near = (self._first <= numbers.max()) & (self._stop > numbers.min())
            yield from (self._pieces[i] for i in np.flatnonzero(near))


def virtual_parts(tree: Hdf5Tree, node: Any, what: str, find: Find) -> VirtualParts:
    """What an h5py virtual dataset is made of, every source resolved, checked and found.

    Parameters
    ----------
    tree
        The open files.
    node
        The h5py dataset, whose shape is not asked for: HDF5 would open the sources to find it.
    what
        File and name, for messages.
    find
        Opens a source.

    Raises
    ------
    DataError
        A source is in no trusted folder or not there, or is selected in a way that is not read.
    """
    properties = node.id.get_create_plist()
    count = properties.get_virtual_count()
    if count > _PART_LIMIT:
        raise DataError(f"{what} is made of {count} parts; at most {_PART_LIMIT} are read.")
    pieces: list[Piece] = []
    shape: list[int] = []
    for i in range(count):
        space = properties.get_virtual_vspace(i)
        extent = space.get_simple_extent_dims()
        here = axes_of(space, what) or [Axis(0, max(1, size), max(1, size), size) for size in extent]
        there = axes_of(properties.get_virtual_srcspace(i), what)
        named = (properties.get_virtual_filename(i), properties.get_virtual_dsetname(i))
        pieces += _pieces(tree, node, what, find, here, there, named)
        sizes = [0 if axis.unlimited else size for axis, size in zip(here, extent, strict=True)]
        shape = [max(old, size) for old, size in zip(shape or sizes, sizes, strict=True)]
        if len(pieces) > _PART_LIMIT:
            raise DataError(f"{what} is made of more than {_PART_LIMIT} parts, which are not read.")
    if not pieces:
        raise DataError(f"{what} is a virtual dataset made of nothing; its source files are missing.")
    if any(len(piece.here) != len(shape) for piece in pieces) or not shape:
        raise DataError(f"{what} is made of parts with different numbers of axes; the file is damaged.")
    stops = [max(piece.here[i].stop for piece in pieces) for i in range(len(shape))]
    return VirtualParts(tuple(max(size, stop) for size, stop in zip(shape, stops, strict=True)), pieces)


def _pieces(
    tree: Hdf5Tree,
    node: Any,
    what: str,
    find: Find,
    here: list[Axis],
    there: list[Axis] | None,
    named: tuple[str, str],
) -> list[Piece]:
    """The pieces of one entry: one, or of an entry with a number in the name as many as there are sources."""
    endless = [i for i, axis in enumerate(here) if axis.unlimited]
    if len(endless) > 1:
        raise DataError(f"{what} is virtual without an end along several axes, which is not read.")
    if not any(_numbered(name) for name in named):
        place = _place(tree, node, what, named, 0)
        return [_piece(here, there, place, find(place), what)]
    if not endless:
        raise DataError(f"{what} is made of {shortened(named[0])}, but not of a series of files; the file is damaged.")
    axis, pieces = here[endless[0]], []
    for number in itertools.count():
        if number >= _PART_LIMIT:
            raise DataError(f"{what} is made of more than {_PART_LIMIT} parts, which are not read.")
        try:
            place = _place(tree, node, what, named, number)
            source = find(place)
        except MissingError:
            break
        block = list(here)
        block[endless[0]] = Axis(axis.start + number * axis.stride, axis.block, axis.block, axis.block)
        pieces.append(_piece(block, there, place, source, what))
    if not pieces:
        raise DataError(f"{what} is made of {shortened(named[0])}, of which there is none; put the files there.")
    return pieces


def _piece(here: list[Axis], there: list[Axis] | None, place: Place, source: Source, what: str) -> Piece:
    """One piece, with an end given to selections that have none of their own by what the source has."""
    if source.shape is None:
        raise DataError(f"{what} is made of {shortened(place.name)} in {place.path}, which is empty.")
    theirs = there or [Axis(0, max(1, size), max(1, size), size) for size in source.shape]
    if len(theirs) != len(source.shape):
        raise DataError(
            f"{what} is made of {shortened(place.name)} in {place.path}, which has {len(source.shape)} axes and not "
            f"{len(theirs)}."
        )
    theirs = [
        axis.ended(axis.below(size)) if axis.unlimited else axis
        for axis, size in zip(theirs, source.shape, strict=True)
    ]
    for axis, size in zip(theirs, source.shape, strict=True):
        if axis.stop > size:
            raise DataError(
                f"{what} is made of more of {shortened(place.name)} in {place.path} than is there; the file is damaged."
            )
    endless = next((i for i, axis in enumerate(here) if axis.unlimited), None)
    if endless is not None:
        fixed = math.prod(axis.length or 0 for i, axis in enumerate(here) if i != endless)
        total = math.prod(axis.length or 0 for axis in theirs)
        here = [axis.ended(total // fixed if fixed else 0) if i == endless else axis for i, axis in enumerate(here)]
    longer, their_longer = ([i for i, axis in enumerate(axes) if axis.length != 1] for axes in (here, theirs))
    if [here[i].length for i in longer] != [theirs[j].length for j in their_longer]:
        raise DataError(
            f"{what} is made of {shortened(place.name)} in {place.path} in another shape, which is not read; "
            "copy the patterns into one dataset."
        )
    return Piece(tuple(here), tuple(theirs), tuple(zip(longer, their_longer, strict=True)), place)


def _place(tree: Hdf5Tree, node: Any, what: str, named: tuple[str, str], number: int) -> Place:
    """Where a source is: in the same file, which is written as a dot, or where the trusted folders have it."""
    file, dataset = (_with_number(_decoded(name), number) for name in named)
    if file == ".":
        return Place(file_of(node), dataset)
    return Place(tree.trust.resolve(file, folder_of(node), what), dataset)


def _decoded(name: str | bytes) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def _numbered(name: str | bytes) -> bool:
    return any(mark == "%b" for mark in re.findall("%[b%]", _decoded(name)))


def _with_number(name: str, number: int) -> str:
    """A name with the number of a block in the place of ``%b``, as HDF5 writes it."""
    return re.sub("%[b%]", lambda mark: str(number) if mark[0] == "%b" else "%", name)
