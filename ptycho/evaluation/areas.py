"""Which part of a large object is looked at, where a part tells as much as the whole."""

from __future__ import annotations

import numpy as np

__all__ = ["heart"]

_ENOUGH = 0.25


def heart(weight: np.ndarray, side: int) -> tuple[slice, slice]:
    """A box of at most ``side`` x ``side`` pixels around the centre of what is covered.

    Parameters
    ----------
    weight : (H, W) real >= 0 or bool, how well each pixel is known.
    side : pixels.

    Returns
    -------
    Rows and columns; all of them where less than a quarter of the box would be covered.
    """
    box = []
    for axis in (1, 0):
        line = np.sum(weight, axis=axis, dtype=np.float64)
        middle = int(np.sum(line * np.arange(line.size)) / max(float(np.sum(line)), np.finfo(np.float64).tiny))
        first = max(0, min(middle - side // 2, line.size - side))
        box.append(slice(first, min(first + side, line.size)))
    if np.mean(weight[box[0], box[1]] > 0) < _ENOUGH:
        return slice(0, weight.shape[0]), slice(0, weight.shape[1])
    return box[0], box[1]
