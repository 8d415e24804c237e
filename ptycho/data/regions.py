"""Compact parts of a scan: for the training of a network, and for the workers of a cluster."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_REGION = 2048


def compact_regions(positions: NDArray[np.float64], at_most: int, seed: int = 0) -> NDArray[np.int64]:
    """Scan points in round regions spread at random over the field.

    Points drawn one by one would lie too far apart to overlap, and ptychography depends on overlap. Inside a region the
    scan keeps its density.

    Parameters
    ----------
    positions
        (M, 2) pixels.
    at_most
        Upper limit of the number of points; overlapping regions give fewer. A region has at least 2048 points.
    seed
        Of the positions of the regions.

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
    """All scan points in compact chunks, by repeated halving across the longer side.

    Parameters
    ----------
    positions
        (M, 2) pixels.
    count
        Number of chunks, of equal size to within a unit; at most the number of units.
    unit
        Every chunk but one holds a multiple of this number of points.

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
    """Chunks in runs: neighbouring chunks of a run form compact regions, pairwise, up to the whole run.

    Parameters
    ----------
    positions, unit
        As for :func:`compact_chunks`.
    count
        Number of runs, of equal size; at most the number of units.
    at_most
        Points in a chunk, rounded up to units.
    """
    runs = []
    for region in compact_chunks(positions, count, unit):
        halvings = max(0, math.ceil(math.log2(region.size / at_most)))
        runs.append([region[chunk] for chunk in compact_chunks(positions[region], 2**halvings, unit)])
    return runs
