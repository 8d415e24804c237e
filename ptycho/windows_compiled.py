"""The two window loops of :mod:`ptycho.windows`, compiled; imported only where numba is installed.

A window is visited once for all its places, row by row, so that it is read from memory once. Every array is real (a
complex one as pairs) and flat in memory, so that the innermost loops run on vectors. The caller sees to it that every
window lies inside its image: nothing is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["add", "gather"]


def _compiled(function: Callable[..., Any]) -> Any:
    """The function compiled at its first call, for each precision, and kept on disk for the next process."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # there is no folder that can be written to
        return numba.njit(nogil=True)(function)


@_compiled
def _set_row(into: Any, row: Any, share: Any) -> None:
    for x in range(into.shape[0]):
        into[x] = share * row[x]


@_compiled
def _add_row(into: Any, row: Any, share: Any) -> None:
    for x in range(into.shape[0]):
        into[x] += share * row[x]


@_compiled
def gather(windows: Any, image: Any, stride: int, first: Any, shares: Any) -> None:
    """Set windows (K, n, m) to their weighted sums of the flat ``image``, whose rows are ``stride`` numbers apart.

    ``first`` (K, J) is where each window begins at each of its places, ``shares`` (K, J) the weight of the place.
    """
    for k in range(windows.shape[0]):
        for i in range(windows.shape[1]):
            row = windows[k, i]
            for j in range(first.shape[1]):
                begin = first[k, j] + i * stride
                source = image[begin : begin + row.shape[0]]
                if j == 0:
                    _set_row(row, source, shares[k, j])
                else:
                    _add_row(row, source, shares[k, j])


@_compiled
def add(image: Any, stride: int, windows: Any, first: Any, shares: Any) -> None:
    """Add to the flat ``image`` the weighted windows (K, n, m), or the one window (1, n, m), at all their places."""
    one = windows.shape[0] == 1
    for k in range(first.shape[0]):
        for i in range(windows.shape[1]):
            row = windows[0 if one else k, i]
            for j in range(first.shape[1]):
                begin = first[k, j] + i * stride
                _add_row(image[begin : begin + row.shape[0]], row, shares[k, j])
