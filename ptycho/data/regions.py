"""Parts of a scan in which neighbours stay together: what a network learns from, and what is worked on elsewhere."""

from __future__ import annotations

import math

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


def compact_chunks(positions: NDArray[np.float64], count: int, unit: int = 1) -> list[NDArray[np.int64]]:
    """All scan points in chunks that cover little of the field each: halves of halves across the longer side.

    Parameters
    ----------
    positions
        (M, 2) pixels.
    count
        How many chunks, alike to a unit; where there are fewer units, so many.
    unit
        Every chunk but one holds a multiple of so many points.

    Returns
    -------
    list of (K,) rising numbers of points, each point in one of them; those that follow one another are neighbours.
    """
    found: list[NDArray[np.int64]] = []

    def divide(numbers: NDArray[np.int64], units: int, chunks: int) -> None:
        if chunks == 1:
            found.append(np.sort(numbers))
            return
        each, more = divmod(units, chunks)
        first = chunks // 2
        kept = first * each + min(first, more)
        here = positions[numbers]
        order = numbers[np.argsort(here[:, np.argmax(np.ptp(here, axis=0))], kind="stable")]
        divide(order[: kept * unit], kept, first)
        divide(order[kept * unit :], units - kept, chunks - first)

    units = -(-len(positions) // unit)
    if units:
        divide(np.arange(len(positions)), units, min(count, units))
    return found


def compact_runs(
    positions: NDArray[np.float64], count: int, at_most: int, unit: int = 1
) -> list[list[NDArray[np.int64]]]:
    """Chunks in runs whose neighbours make compact regions again, two by two, until the run is one.

    Parameters
    ----------
    positions, unit
        As for :func:`compact_chunks`.
    count
        How many runs, alike; where there are fewer units, so many.
    at_most
        Points in a chunk, rounded up to units.
    """
    runs = []
    for region in compact_chunks(positions, count, unit):
        halvings = max(0, math.ceil(math.log2(region.size / at_most)))
        runs.append([region[chunk] for chunk in compact_chunks(positions[region], 2**halvings, unit)])
    return runs
