"""Parts of a scan in which neighbours stay together: what a network learns from where all of the scan is too much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REGION = 2048


def compact_regions(positions: NDArray[np.float64], at_most: int, seed: int = 0) -> NDArray[np.int64]:
    """Scan points in round regions spread at random over the field.

    Points drawn one by one would lie too far apart to overlap, and overlap is what ptychography lives from. Inside a
    region the scan is as dense as it was.

    Parameters
    ----------
    positions
        (M, 2) pixels.
    at_most
        Points in all, at most; regions that overlap leave fewer. A region has at least 2048 of them.
    seed
        Of where the regions lie.

    Returns
    -------
    (K,) rising numbers of points, K <= at_most.
    """
    from scipy.spatial import cKDTree

    if at_most >= len(positions):
        return np.arange(len(positions))
    regions = max(1, at_most // _REGION)
    centres = np.random.default_rng(seed).choice(len(positions), regions, replace=False)
    _, found = cKDTree(positions).query(positions[centres], k=at_most // regions)
    return np.unique(np.asarray(found, np.int64))
