"""The part of a large object that is evaluated, where a part is as informative as the whole."""

from __future__ import annotations

import numpy as np

__all__ = ["best_covered_box"]

_BLOCKS = 16  # blocks along the side of the box: the search places it to a sixteenth of its side
_CENTRE_BIAS = 0.01  # breaks ties between equally covered boxes in favour of the central one; 1 % of the coverage


def best_covered_box(weight: np.ndarray, side: int) -> tuple[slice, slice]:
    """The box of ``side`` x ``side`` pixels with the best coverage, near the centre of the covered area.

    Parameters
    ----------
    weight : (H, W) real >= 0 or bool, coverage of each pixel.
    side : pixels, an upper limit where the image is smaller.

    Returns
    -------
    Rows and columns.
    """
    block = max(1, side // _BLOCKS)
    starts = [np.arange(0, n, block) for n in weight.shape]
    sums = np.add.reduceat(weight, starts[0], axis=0, dtype=np.float64)
    sums = np.add.reduceat(sums, starts[1], axis=1)
    wide = [min(side // block, n) for n in sums.shape]
    table = np.pad(sums, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = table[wide[0] :] - table[: -wide[0]]
    inside = inside[:, wide[1] :] - inside[:, : -wide[1]]
    away = np.zeros(inside.shape)
    for axis, n in enumerate(sums.shape):
        line = sums.sum(axis=1 - axis)
        middle = float(line @ np.arange(n)) / max(float(line.sum()), np.finfo(np.float64).tiny) - (wide[axis] - 1) / 2
        away += np.expand_dims(((np.arange(inside.shape[axis]) - middle) / n) ** 2, 1 - axis)
    best = np.unravel_index(np.argmax(inside - _CENTRE_BIAS * inside.max() * away), inside.shape)
    firsts = [max(0, min(int(s[k]), n - side)) for s, k, n in zip(starts, best, weight.shape, strict=True)]
    rows, cols = (slice(first, min(first + side, n)) for first, n in zip(firsts, weight.shape, strict=True))
    return rows, cols
