"""Patterns that stay in their file until they are indexed.

`LazyPatterns` looks like an (M, N, N) array to a `Scan`. It reads only the indexed frames and only the requested window
of the detector; transposing, shifting and rescaling are applied after reading. However frames are indexed, each is read
once, in rising order, and neighbouring frames are read together.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.data.mapped import MappedFile, is_mapped
from ptycho.errors import DataError

Convert = Callable[[NDArray[Any]], NDArray[Any]]

_PIECE_BYTES = 2**24
"""Bytes of whole frames that are in memory at once where only a part of each frame is needed."""


class Source(Protocol):
    """Frames in some store, the last two axes being a frame's.

    A store that always decompresses several frames together states their number as ``frames_per_chunk``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the frames, by slices in rising order."""


class ArraySource:
    """Frames in anything that can be indexed like an array: memory, a memory map, an open dataset, made on the fly.

    Pages of a memory map are released after reading, so that they do not count as memory of the process.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self._file = MappedFile.of(array)
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.frames_per_chunk: int = getattr(array, "frames_per_chunk", frames_in(getattr(array, "chunks", None)))

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the array; whole frames are asked for by their numbers alone."""
        while len(part) > 1 and isinstance(part[-1], slice) and part[-1] == slice(None):
            part = part[:-1]
        if self._file is not None:
            return self._file.read(self.array[part])
        if not is_mapped(self.array):
            return np.asarray(self.array[part if len(part) > 1 else part[0]])
        read = np.array(self.array[part])
        held = getattr(self.array, "_mmap", None)
        if held is not None and self.array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
            held.madvise(mmap.MADV_DONTNEED)
        return read

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: the array itself is sent to another process."""
        return {**self.__dict__, "_file": None}


class ChangedSource:
    """Frames that are computed from other frames when they are read, possibly of another size.

    Parameters
    ----------
    patterns
        (M, H, W), the original frames.
    change
        From (K, H, W) to (K, H', W') of `dtype`.
    frame, dtype
        (H', W') and what `change` returns.
    """

    def __init__(self, patterns: Any, change: Convert, frame: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.patterns, self.change = LazyPatterns.of(patterns), change
        self.shape: tuple[int, ...] = (len(self.patterns), *frame)
        self.dtype = np.dtype(dtype)
        self.frames_per_chunk = self.patterns.frames_per_chunk

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the changed frames, computed from some megabytes of the original ones at a time."""
        numbers = range(len(self.patterns))[part[0]]
        rows, columns = self.patterns.shape[1:]
        size = rows * columns * self.patterns.dtype.itemsize
        window = (slice(None), *part[1:])
        made = [self.change(self.patterns[some])[window] for some in _pieces(numbers, size, self.frames_per_chunk)]
        return made[0] if len(made) == 1 else np.concatenate(made)

    def close(self) -> None:
        """Close the underlying files."""
        self.patterns.close()


def frames_in(chunks: Any) -> int:
    """Frames in a chunk of an HDF5 or Zarr array, from its shape; 1 where it is stored in one piece."""
    return math.prod(int(length) for length in chunks[:-2]) if isinstance(chunks, tuple) else 1


def in_memory(array: Any) -> bool:
    """Whether an array lies in memory, so that indexing it reads no file."""
    return isinstance(array, np.ndarray) and not is_mapped(array)


def unpacked(patterns: Any, folder: str | Path, pieces: Iterator[slice]) -> NDArray[Any]:
    """The patterns as a map of a file without a name, which disappears when it is no longer used.

    Parameters
    ----------
    patterns
        (M, H, W), read once.
    folder
        Of the file; it must exist.
    pieces
        Slices that cover the patterns in order.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for piece in pieces:
            file.write(np.ascontiguousarray(patterns[piece]).data)
        file.flush()
        return np.memmap(file, dtype=patterns.dtype, mode="r", shape=tuple(patterns.shape))


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
    def frames_per_chunk(self) -> int:
        """Number of patterns that the store decompresses together and that are best read together; 1 if unknown."""
        return max(getattr(source, "frames_per_chunk", 1) for source in self.sources)

    @property
    def _stored_dtype(self) -> np.dtype[Any]:
        """The dtype of the sources with its byte order, or one that holds the values of all of them."""
        first, *others = (source.dtype for source in self.sources)
        return np.dtype(np.result_type(first, *others)) if others else first

    def __len__(self) -> int:
        """The number M of patterns."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Shape, dtype and number of sources, without reading."""
        return f"LazyPatterns({self.shape}, {self.dtype}, {len(self.sources)} source(s))"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All patterns, in memory."""
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
        wanted = self._numbers(index)
        numbers = np.atleast_1d(wanted)
        if self.frames is not None:
            numbers = self.frames[numbers]
        raw = self._read_any(numbers)
        if self.transposed:
            raw = raw.swapaxes(-2, -1)
        if self.shifted:
            raw = np.fft.fftshift(raw, axes=(-2, -1))
        if self.convert is not None:
            raw = self.convert(raw)
        return raw.astype(self.dtype, copy=False)[0 if np.ndim(wanted) == 0 else slice(None)]

    def number_in_file(self, number: int) -> int:
        """The number of a pattern among all frames of its file, or of its files in their order."""
        number = number if self.frames is None else int(self.frames[number])
        inner = getattr(self.sources[0], "patterns", getattr(self.sources[0], "array", None))
        return inner.number_in_file(number) if isinstance(inner, LazyPatterns) else number

    def select(self, numbers: NDArray[np.int64]) -> LazyPatterns:
        """Some of the patterns, in this order, unread."""
        return dataclasses.replace(self, frames=numbers if self.frames is None else self.frames[numbers])

    def cut(self, rows: slice, columns: slice) -> LazyPatterns:
        """A window of the patterns as they are now, unread."""
        if self.shifted:  # the window's parts lie apart in the store
            return LazyPatterns((ArraySource(self),), window=(rows, columns))
        window = (columns, rows) if self.transposed else (rows, columns)
        if self.window is not None:
            sides = self.sources[0].shape[-2:]
            tall, wide = (range(n)[old][new] for n, old, new in zip(sides, self.window, window, strict=True))
            window = (_within(tall), _within(wide))
        return dataclasses.replace(self, window=window)

    def changed(self, change: Convert, frame: tuple[int, int], dtype: np.dtype[Any]) -> LazyPatterns:
        """The patterns after a function of (K, H, W) frames that makes `frame` = (H', W') of `dtype`, unread."""
        return LazyPatterns((ChangedSource(self, change, frame, dtype),))

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        for source in self.sources:
            getattr(source, "close", lambda: None)()

    def _numbers(self, index: Any) -> Any:
        """Numbers of the indexed patterns, without a list of all of them."""
        if isinstance(index, slice | int):
            chosen = range(len(self))[index]
            return np.asarray(chosen) if isinstance(chosen, int) else np.arange(chosen.start, chosen.stop, chosen.step)
        index = np.asarray(index)
        if index.size == 0:
            return np.zeros(0, np.int64)
        if index.dtype.kind not in "iu":
            return np.arange(len(self))[index]
        if index.min() < -len(self) or index.max() >= len(self):
            raise IndexError(f"patterns {index.min()} to {index.max()} are asked for, and there are {len(self)}")
        return index.astype(np.int64) % len(self)

    def _read_any(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Frames in any order: each is read once, in rising order."""
        if numbers.size < 2 or np.all(np.diff(numbers) > 0):
            return self._read(numbers)
        distinct, where = np.unique(numbers, return_inverse=True)
        return self._read(distinct)[where]

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Frames by their numbers in the sources, cut but otherwise as stored; runs of numbers are read at once.

        Frames that the store decompresses together form a run too, even if some of them are not needed.
        """
        rows, columns = self.sources[0].shape[-2:] if self.window is None else self._window_shape()
        out = np.empty((len(numbers), rows, columns), self._stored_dtype)
        start = 0
        for stop in (*_ends(numbers, self.frames_per_chunk), len(numbers)):
            if stop > start:
                wanted = numbers[start:stop] - numbers[start]
                count = int(wanted[-1]) + 1
                whole = out[start:stop] if count == stop - start else np.empty((count, rows, columns), out.dtype)
                self._read_run(int(numbers[start]), int(numbers[start]) + count, whole)
                if count != stop - start:
                    out[start:stop] = whole[wanted]
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
        size = source.shape[-2] * source.shape[-1] * source.dtype.itemsize
        for some in _pieces(range(low, high), size, getattr(source, "frames_per_chunk", 1)):
            out[some.start - low : some.stop - low] = source.read((some, *cut))
        return
    width, done = lines[-1], 0
    while low < high:
        line = np.unravel_index(low // width, lines[:-1])
        end = min(high, (low // width + 1) * width)
        part = slice(low % width, low % width + end - low)
        out[done : done + end - low] = source.read((*(int(i) for i in line), part, *cut))
        done, low = done + end - low, end


def _pieces(numbers: range, size: int, frames_per_chunk: int) -> Iterator[slice]:
    """Slices of a run of frames of so many bytes, which end where a store's pieces of so many frames end."""
    step = max(1, _PIECE_BYTES // size // frames_per_chunk) * frames_per_chunk
    start = numbers.start
    while start < numbers.stop:
        stop = min(numbers.stop, (start // step + 1) * step)
        yield slice(start, stop)
        start = stop


def _ends(numbers: NDArray[np.int64], frames_per_chunk: int) -> NDArray[np.int64]:
    """Where runs of rising numbers end: at gaps, unless a store unpacks both sides of the gap together."""
    piece = numbers // frames_per_chunk
    gap, next_piece = np.diff(numbers) != 1, np.diff(piece) != 0
    gapped = np.unique(piece[1:][gap & ~next_piece])  # read alone, whatever lies beside them
    alone = np.isin(piece, gapped)
    return np.flatnonzero(next_piece & (gap | alone[1:] | alone[:-1])) + 1


def _count(source: Source) -> int:
    return int(np.prod(source.shape[:-2], dtype=np.int64))


def _is_slice(value: Any) -> bool:
    return isinstance(value, slice)


def _within(chosen: range) -> slice:
    """The slice of a rising range."""
    return slice(chosen.start, chosen.stop, chosen.step)
