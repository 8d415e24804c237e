"""The eight orientations of a scan's positions: axes swapped or not, and each reversed or not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError

ORIENTATIONS: dict[str, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "flip-rows": (False, True, False),
    "flip-columns": (False, False, True),
    "flip-both": (False, True, True),
    "transpose": (True, False, False),
    "transpose-flip-rows": (True, True, False),
    "transpose-flip-columns": (True, False, True),
    "transpose-flip-both": (True, True, True),
}
"""By name: whether rows and columns are swapped, then whether rows and whether columns are reversed."""


def reorient(positions: NDArray[np.float64], orientation: str) -> NDArray[np.float64]:
    """Positions with their axes swapped, then reversed within the range that they cover.

    Parameters
    ----------
    positions
        (M, 2) pixels, (row, col).
    orientation
        One of `ORIENTATIONS`.

    Returns
    -------
    (M, 2) pixels, (row, col); exactly the positions themselves for "none".

    Raises
    ------
    DataError
        If the orientation is unknown.
    """
    if orientation not in ORIENTATIONS:
        raise DataError(f"orientation: {orientation!r} given, one of {', '.join(ORIENTATIONS)} expected.")
    transposed, *reversed_axes = ORIENTATIONS[orientation]
    turned = positions[:, ::-1].copy() if transposed else positions.copy()
    for axis, wanted in enumerate(reversed_axes):
        if wanted and len(turned):
            turned[:, axis] = turned[:, axis].min() + turned[:, axis].max() - turned[:, axis]
    return turned
