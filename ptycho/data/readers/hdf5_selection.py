"""Selections of HDF5 along one axis: which numbers they take, in order, and where these lie in what is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

Part = tuple[Any, ...]
"""Numbers and slices of rising order along the leading axes; what is not named is whole."""

_BLOCK_LIMIT = 2**16
"""Of one part of a virtual dataset: each block is listed before anything is read."""


@dataclass(frozen=True)
class Axis:
    """Numbers that a selection takes along an axis: `block` of them every `stride`, `length` in all.

    ``length`` is None where the selection goes on as long as there are data.
    """

    start: int
    stride: int
    block: int
    length: int | None

    @property
    def unlimited(self) -> bool:
        """Whether the selection has no end of its own."""
        return self.length is None

    def ended(self, length: int) -> Axis:
        """The selection with an end."""
        return Axis(self.start, self.stride, self.block, length)

    @property
    def stop(self) -> int:
        """The number behind the last one that is taken; the selection has an end."""
        assert self.length is not None
        if not self.length:
            return self.start
        return self.start + (self.length - 1) // self.block * self.stride + (self.length - 1) % self.block + 1

    def below(self, size: int) -> int:
        """How many of the numbers are below a size, were the selection without an end."""
        if size <= self.start:
            return 0
        whole, rest = divmod(size - self.start, self.stride)
        return whole * self.block + min(rest, self.block)

    def find(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of some numbers are taken (their places), and as which of the selection's numbers each is."""
        whole, rest = np.divmod(numbers - self.start, self.stride)
        order = whole * self.block + rest
        taken = np.flatnonzero((numbers >= self.start) & (rest < self.block) & (order < (self.length or 0)))
        return taken, order[taken]

    def at(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of some places in the selection's order."""
        return self.start + order // self.block * self.stride + order % self.block


def axes_of(space: Any, what: str) -> list[Axis] | None:
    """The selection of a dataspace axis by axis; None if everything is selected.

    Raises
    ------
    DataError
        The selection is no product of selections along the axes.
    """
    from h5py import h5s

    kind = space.get_select_type()
    if kind == h5s.SEL_ALL:
        return None
    if kind != h5s.SEL_HYPERSLABS:
        raise DataError(f"{what} is made of single points of another dataset, which is not read.")
    if space.is_regular_hyperslab():
        return [_regular(*numbers, what=what) for numbers in zip(*space.get_regular_hyperslab(), strict=True)]
    if space.get_select_hyper_nblocks() > _BLOCK_LIMIT:
        raise DataError(f"{what} is made of more than {_BLOCK_LIMIT} blocks of another dataset, which is not read.")
    return _from_blocks(np.asarray(space.get_select_hyper_blocklist()), space, what)


def _regular(start: int, stride: int, count: int, block: int, *, what: str) -> Axis:
    from h5py import h5s

    if h5s.UNLIMITED in (count, block):
        return Axis(start, 1, 1, None) if block == h5s.UNLIMITED else Axis(start, stride, block, None)
    if min(stride, count, block) < 1 or (block > stride and count > 1):
        raise DataError(f"{what} is made of a selection that cannot be; the file is damaged.")
    return Axis(start, max(stride, block), block, count * block)


def _from_blocks(blocks: NDArray[Any], space: Any, what: str) -> list[Axis]:
    """Axes of an irregular selection, if it takes evenly spaced blocks along each."""
    axes: list[NDArray[np.int64]] = []
    for axis in range(blocks.shape[-1]):
        ranges = np.unique(blocks[:, :, axis], axis=0)
        axes.append(np.unique(np.concatenate([np.arange(low, high + 1) for low, high in ranges])))
    if math.prod(len(numbers) for numbers in axes) != space.get_select_npoints():
        raise DataError(f"{what} is made of blocks that are no product of rows and columns, which is not read.")
    return [Listed.of(numbers) for numbers in axes]


@dataclass(frozen=True)
class Listed(Axis):
    """Numbers that follow no rule."""

    numbers: tuple[int, ...] = ()

    @classmethod
    def of(cls, numbers: NDArray[np.int64]) -> Listed:
        """The selection of some rising numbers."""
        return cls(int(numbers[0]), 1, 1, len(numbers), tuple(int(number) for number in numbers))

    @property
    def stop(self) -> int:
        """The number behind the last one that is taken."""
        return self.numbers[-1] + 1

    def find(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As for a selection that follows a rule."""
        own = np.asarray(self.numbers)
        place = np.minimum(np.searchsorted(own, numbers), len(own) - 1)
        taken = np.flatnonzero(own[place] == numbers)
        return taken, place[taken]

    def at(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """As for a selection that follows a rule."""
        return np.asarray(self.numbers)[order]


def part_of(part: Part, shape: Sequence[int]) -> tuple[list[NDArray[np.int64]], tuple[int, ...]]:
    """The numbers that are wanted along every axis, and the shape of the result, from which single numbers vanish."""
    wanted, result = [], []
    for size, index in zip(shape, (*part, *[slice(None)] * (len(shape) - len(part))), strict=True):
        if isinstance(index, slice):
            wanted.append(np.arange(*index.indices(size), dtype=np.int64))
            result.append(len(wanted[-1]))
        else:
            wanted.append(np.asarray([range(size)[int(index)]], np.int64))
    return wanted, tuple(result)


def runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, slice]]:
    """Evenly spaced runs of rising numbers: where they begin and end in the list, and the slice that they are."""
    begin = 0
    while begin < len(numbers):
        step = int(numbers[begin + 1] - numbers[begin]) if begin + 1 < len(numbers) else 1
        same = np.flatnonzero(np.diff(numbers[begin:]) != step)
        end = begin + 1 + (int(same[0]) if same.size else len(numbers) - begin - 1)
        first, last = int(numbers[begin]), int(numbers[end - 1])
        yield begin, end, slice(first, last + 1, step)
        begin = end
