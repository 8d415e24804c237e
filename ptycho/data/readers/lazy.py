"""Patterns that stay in their file until they are asked for.

`LazyPatterns` looks like an (M, N, N) array to a `Scan`. It reads the frames that are indexed, and only the window of
the detector that is wanted; turning, shifting and rescaling happen to what was read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, SystemError)
"""What h5py raises on a file that is damaged, truncated, or needs a filter that is not there."""

Convert = Callable[[NDArray[Any]], NDArray[Any]]


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


class Source(Protocol):
    """Frames in some store, the last two axes being a frame's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the frames, by numbers and slices of rising order."""


class ArraySource:
    """Frames in anything that can be indexed like an array: memory, a memory map, an open dataset."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the array."""
        return np.asarray(self.array[part])


class Hdf5Source:
    """Frames in a dataset of an HDF5 file, which is open from the first read until nothing refers to this any more.

    A copy in another process (after a fork, or unpickled) opens the file for itself.

    Parameters
    ----------
    path, name
        File and dataset.
    shape, dtype
        As the dataset has them.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype
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


@dataclass(frozen=True, eq=False, repr=False)
class LazyPatterns:
    """Frames of one or several sources as an (M, H, W) array that is read piece by piece.

    Parameters
    ----------
    sources
        Their frames follow one another. A source of more than three axes (a raster) is flattened, last axis fastest.
    frames
        (M,) numbers of the frames wanted, in order; None for all.
    window
        Rows and columns of the detector that are kept; None for all.
    transposed
        Swap rows and columns, as a file written by MATLAB needs.
    shifted
        Move the zero frequency from [0, 0] to [H//2, W//2].
    convert, converts_to
        A function of the values that keeps the shape, and the dtype that it returns.
    """

    sources: Sequence[Source]
    frames: NDArray[np.int64] | None = None
    window: tuple[slice, slice] | None = None
    transposed: bool = False
    shifted: bool = False
    convert: Convert | None = None
    converts_to: np.dtype[Any] | None = None

    def __post_init__(self) -> None:
        """Check that the sources belong together."""
        frame_shapes = {source.shape[-2:] for source in self.sources}
        if len(frame_shapes) != 1 or any(len(source.shape) < 3 for source in self.sources):
            shapes = ", ".join(str(source.shape) for source in self.sources)
            raise DataError(f"patterns: shapes {shapes} given, frames of one size (number, row, column) expected.")

    @classmethod
    def of(cls, patterns: Any) -> LazyPatterns:
        """Lazy patterns as they are, and anything else that can be indexed as one source."""
        return patterns if isinstance(patterns, LazyPatterns) else cls((ArraySource(patterns),))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, H, W) after everything that is done to the frames."""
        count = sum(_count(source) for source in self.sources) if self.frames is None else len(self.frames)
        rows, columns = self.sources[0].shape[-2:]
        if self.window is not None:
            rows, columns = (len(range(size)[part]) for size, part in zip((rows, columns), self.window, strict=True))
        return (count, columns, rows) if self.transposed else (count, rows, columns)

    @property
    def ndim(self) -> int:
        """The number of axes, 3."""
        return 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is returned."""
        return self.converts_to or self._stored_dtype

    @property
    def _stored_dtype(self) -> np.dtype[Any]:
        """That of the sources, byte order and all, or what holds the values of all of them."""
        first, *others = (source.dtype for source in self.sources)
        return np.dtype(np.result_type(first, *others)) if others else first

    def __len__(self) -> int:
        """The number M of patterns."""
        return self.shape[0]

    def __repr__(self) -> str:
        """What they are, unread."""
        return f"LazyPatterns({self.shape}, {self.dtype}, {len(self.sources)} source(s))"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Everything, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read patterns by number, slice, or an array of numbers or bools.

        Raises
        ------
        DataError
            If the store cannot be read.
        """
        if isinstance(index, tuple):
            return self[index[0]][(slice(None), *index[1:]) if np.ndim(index[0]) or _is_slice(index[0]) else index[1:]]
        wanted = np.arange(len(self))[index]
        numbers = np.atleast_1d(wanted)
        if self.frames is not None:
            numbers = self.frames[numbers]
        raw = self._read(numbers)
        if self.transposed:
            raw = raw.swapaxes(-2, -1)
        if self.shifted:
            raw = np.fft.fftshift(raw, axes=(-2, -1))
        if self.convert is not None:
            raw = self.convert(raw)
        return raw.astype(self.dtype, copy=False)[0 if np.ndim(wanted) == 0 else slice(None)]

    def select(self, numbers: NDArray[np.int64]) -> LazyPatterns:
        """Some of the patterns, in this order, unread."""
        return dataclasses.replace(self, frames=numbers if self.frames is None else self.frames[numbers])

    def cut(self, rows: slice, columns: slice) -> LazyPatterns:
        """A window of the patterns as they are now, unread.

        Raises
        ------
        ValueError
            If the patterns are cut already.
        """
        if self.window is not None:
            raise ValueError("patterns are cut once")
        window = (columns, rows) if self.transposed else (rows, columns)
        return dataclasses.replace(self, window=window)

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        for source in self.sources:
            getattr(source, "close", lambda: None)()

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Frames by their numbers in the sources, cut but otherwise as stored; runs of numbers are read at once."""
        rows, columns = self.sources[0].shape[-2:] if self.window is None else self._window_shape()
        out = np.empty((len(numbers), rows, columns), self._stored_dtype)
        start = 0
        for stop in (*(np.flatnonzero(np.diff(numbers) != 1) + 1), len(numbers)):
            if stop > start:
                self._read_run(int(numbers[start]), int(numbers[stop - 1]) + 1, out[start:stop])
            start = stop
        return out

    def _window_shape(self) -> tuple[int, int]:
        shape = self.shape[1:]
        return (shape[1], shape[0]) if self.transposed else shape

    def _read_run(self, first: int, stop: int, out: NDArray[Any]) -> None:
        cut = (slice(None), slice(None)) if self.window is None else self.window
        begin = done = 0
        for source in self.sources:
            count = _count(source)
            low, high = max(first - begin, 0), min(stop - begin, count)
            begin += count
            if low < high:
                _read_frames(source, low, high, cut, out[done : done + high - low])
                done += high - low


def _read_frames(source: Source, low: int, high: int, cut: tuple[slice, slice], out: NDArray[Any]) -> None:
    """Frames `low` to `high` of one source, a line of the raster at a time where it has more than one scan axis."""
    lines = source.shape[:-2]
    if len(lines) == 1:
        out[...] = source.read((slice(low, high), *cut))
        return
    width, done = lines[-1], 0
    while low < high:
        line = np.unravel_index(low // width, lines[:-1])
        end = min(high, (low // width + 1) * width)
        part = slice(low % width, low % width + end - low)
        out[done : done + end - low] = source.read((*(int(i) for i in line), part, *cut))
        done, low = done + end - low, end


def _count(source: Source) -> int:
    return int(np.prod(source.shape[:-2], dtype=np.int64))


def _is_slice(value: Any) -> bool:
    return isinstance(value, slice)
