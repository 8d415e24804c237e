"""Parts of a memory-mapped file read by system calls: a file that is truncated meanwhile is an error, not SIGBUS."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from ptycho.errors import DataError

__all__ = ["MappedFile", "is_mapped", "read_mapped"]

_AT_ONCE_BYTES = 2**20
"""Of a part with gaps; a page is read from the disk anyway, and a call takes longer than to copy some of them."""

_SCRATCH_BYTES = 2**18
"""Fits into a core's own cache, from which it is copied to where it belongs."""
_GAP_BYTES = 4096
"""A gap between two items that is worth a call of its own: a page."""


def is_mapped(array: Any) -> bool:
    """Whether an array is a memory map of a file."""
    return isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None


def read_mapped(array: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory of an array, which may be a view of a memory map in any order of its axes.

    Raises
    ------
    DataError
        The file ends before the array does.
    """
    file = MappedFile.of(array)
    return np.array(array) if file is None else file.read(array)


class MappedFile:
    """The file behind a memory map.

    Parameters
    ----------
    array : memory map of a named file.
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.path = str(array.filename)
        self._fd = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)
        first_byte = np.frombuffer(array._mmap, np.uint8).__array_interface__["data"][0]  # type: ignore[attr-defined]
        # numpy maps from the last boundary of pages before the array
        self._shift = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY - first_byte

    @classmethod
    def of(cls, array: Any) -> MappedFile | None:
        """The file of an array; None where it lies in memory, may differ from its file, or the file has no name."""
        named = is_mapped(array) and array.filename is not None and array.mode != "c"
        return cls(array) if named and hasattr(os, "preadv") else None

    def read(self, view: NDArray[Any]) -> NDArray[Any]:
        """The values of a view of the memory map, in memory of their own.

        Raises
        ------
        DataError
            The file ends before the view does.
        """
        view = view.view(np.ndarray)
        if view.size == 0:
            return view.copy()
        low, high = byte_bounds(view)
        if high - low > max(view.nbytes, _AT_ONCE_BYTES):  # there are gaps
            out = np.empty(view.shape, view.dtype)
            axis = max((i for i in range(view.ndim) if view.shape[i] > 1), key=lambda i: abs(view.strides[i]))
            parts, whole = np.moveaxis(out, axis, 0), np.moveaxis(view, axis, 0)
            first, last = byte_bounds(whole[0])
            stride, span = abs(whole.strides[0]), last - first
            if stride - span >= _GAP_BYTES and span <= max(whole[0].nbytes, _AT_ONCE_BYTES):
                self._read_apart(whole, parts, span)
                return out
            step = max(1, min(_AT_ONCE_BYTES // stride, len(whole) // 2))
            for start in range(0, len(whole), step):
                parts[start : start + step] = self.read(whole[start : start + step])
            return out
        content = np.empty(high - low, np.uint8)
        self._fill(content, low + self._shift)
        first = view.__array_interface__["data"][0] - low
        return np.ndarray(view.shape, view.dtype, content, first, view.strides)

    def _read_apart(self, whole: NDArray[Any], parts: NDArray[Any], span: int) -> None:
        """Read each item of a view by a call of its own, from its first byte to its last, as for a part of frames."""
        step = max(1, _SCRATCH_BYTES // span)
        content = np.empty((min(step, len(whole)), span), np.uint8)
        low, first = byte_bounds(whole[0])[0], whole[0].__array_interface__["data"][0]
        strides, buffers = (span, *whole.strides[1:]), [(memoryview(row.data),) for row in content]
        offset, stride, fd, preadv = low + self._shift, whole.strides[0], self._fd, os.preadv
        for start in range(0, len(whole), step):
            count = min(step, len(whole) - start)
            for row in range(count):
                place = offset + (start + row) * stride
                if preadv(fd, buffers[row], place) != span:
                    self._fill(content[row], place)  # says why
            parts[start : start + count] = np.ndarray(
                (count, *whole.shape[1:]), whole.dtype, content, first - low, strides
            )

    def _fill(self, content: NDArray[np.uint8], offset: int) -> None:
        left = memoryview(content.data)
        while left:
            try:
                count = os.preadv(self._fd, [left], offset)
            except OSError as error:
                raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error
            if count == 0:
                raise DataError(f"{self.path} was truncated while it was read: copy or convert it again.")
            left, offset = left[count:], offset + count
