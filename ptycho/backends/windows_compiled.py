"""The two window loops of :mod:`ptycho.backends.windows`, compiled; imported only where numba is installed.

A window is visited once for all its places, row by row, so that it is read from memory once, and so is each row of the
image where the places are those of a bilinear window. Every array is real (a complex one as pairs) and flat in memory,
so that the innermost loops run on vectors; they stand inside their functions, because a call for every row takes as
long as the row. The caller sees to it that every window lies inside its image: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["add", "gather"]


def _compiled(function: Callable[..., Any]) -> Any:
    """The function compiled at its first call, for each precision, and kept on disk for the next process."""
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}  # a product and a sum may be one instruction
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that can be written to
        return numba.njit(**options)(function)


@_compiled
def gather(windows: Any, image: Any, stride: int, first: Any, shares: Any) -> None:
    """Set windows (K, n, m) to their weighted sums of the flat ``image``, whose rows are ``stride`` numbers apart.

    ``first`` (K, J) is where each window begins at each of its places, ``shares`` (K, J) the weight of the place.
    """
    for k in range(windows.shape[0]):
        if first.shape[1] == 4:
            _gather_four(windows[k], image, stride, first[k], shares[k])
            continue
        for i in range(windows.shape[1]):
            row = windows[k, i]
            row[:] = 0
            for j in range(first.shape[1]):
                begin, share = first[k, j] + i * stride, shares[k, j]
                source = image[begin : begin + row.shape[0]]
                for x in range(row.shape[0]):
                    row[x] += share * source[x]


@_compiled
def _gather_four(window: Any, image: Any, stride: int, first: Any, shares: Any) -> None:
    """Each row of a window with four places, written once."""
    n, m = window.shape
    s, t, u, v = shares[0], shares[1], shares[2], shares[3]
    for i in range(n):
        row, at = window[i], i * stride
        a = image[first[0] + at : first[0] + at + m]
        b = image[first[1] + at : first[1] + at + m]
        c = image[first[2] + at : first[2] + at + m]
        d = image[first[3] + at : first[3] + at + m]
        for x in range(m):
            row[x] = (s * a[x] + t * b[x]) + (u * c[x] + v * d[x])


@_compiled
def add(image: Any, stride: int, windows: Any, first: Any, shares: Any, width: int) -> None:
    """Add to the flat ``image`` the weighted windows (K, n, m), or the one window (1, n, m), at all their places.

    ``width`` is how many numbers there are to a pixel.
    """
    one = windows.shape[0] == 1
    for k in range(first.shape[0]):
        window = windows[0 if one else k]
        if first.shape[1] == 4 and _is_square(first[k], stride, width):
            _add_square(image, stride, window, first[k, 0], shares[k], width)
            continue
        for i in range(window.shape[0]):
            row = window[i]
            for j in range(first.shape[1]):
                begin, share = first[k, j] + i * stride, shares[k, j]
                into = image[begin : begin + row.shape[0]]
                for x in range(row.shape[0]):
                    into[x] += share * row[x]


@_compiled
def _is_square(first: Any, stride: int, width: int) -> bool:
    """Whether four places are those of a bilinear window: a pixel, its right, its lower and its diagonal neighbour."""
    begin = first[0]
    return first[1] == begin + width and first[2] == begin + stride and first[3] == begin + stride + width


@_compiled
def _add_square(image: Any, stride: int, window: Any, begin: int, shares: Any, width: int) -> None:
    """Each row of the image once: on it fall two rows of the window, each at two columns."""
    n, m = window.shape
    s, t, u, v = shares[0], shares[1], shares[2], shares[3]
    top, bottom = window[0], window[n - 1]
    first, last = image[begin : begin + m + width], image[begin + n * stride : begin + n * stride + m + width]
    for x in range(m):
        first[x] += s * top[x]
        last[x] += u * bottom[x]
    for x in range(m):
        first[width + x] += t * top[x]
        last[width + x] += v * bottom[x]
    for i in range(1, n):
        at = begin + i * stride
        row, above = window[i], window[i - 1]
        left, inside, right = image[at : at + width], image[at + width : at + m], image[at + m : at + m + width]
        for x in range(width):
            left[x] += s * row[x] + u * above[x]
            right[x] += t * row[m - width + x] + v * above[m - width + x]
        a, b, c, d = row[width:], row[: m - width], above[width:], above[: m - width]
        for x in range(m - width):
            inside[x] += (s * a[x] + t * b[x]) + (u * c[x] + v * d[x])
