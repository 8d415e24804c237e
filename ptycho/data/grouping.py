"""Groups of neighbouring scan points, whose patches overlap and so constrain each other."""

from __future__ import annotations

import logging
import math
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError

logger = logging.getLogger(__name__)

_LARGEST_TABLE = 100_000  # most combinations that are enumerated; of more, random draws hardly ever repeat


def group_positions(
    positions: ArrayLike,
    gridsize: int,
    neighbor_count: int = 4,
    n_groups: int | None = None,
    seed: int = 0,
    oversample: bool = False,
    sequential: bool = False,
) -> NDArray[np.int64]:
    """Groups of C = gridsize^2 neighbouring scan points: a seed point and C - 1 of its nearest neighbours.

    Every point seeds at most one group, unless `oversample` asks for more groups than there are points: then each seeds
    several, with different choices among its neighbours as long as there are any. The same seed gives the same groups.

    Parameters
    ----------
    positions
        (M, 2) pixels.
    gridsize
        The side g of a group, which has C = g*g points.
    neighbor_count
        K, how many nearest neighbours of a point its companions are drawn from; at least C - 1.
    n_groups
        How many groups; None for one from every point, in the order of the points.
    seed
        Seed of the draws.
    oversample
        Allow more groups than points.
    sequential
        Take the first `n_groups` points as seeds instead of a random choice.

    Returns
    -------
    (G, C) int64 numbers of points, the seed point first, its companions by rising distance. G is `n_groups`, or
    less where the points allow no more (a warning is logged).

    Raises
    ------
    DataError
        If there are fewer points than a group needs, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.group_positions(scan.positions, gridsize=2).shape
    (40, 4)
    """
    points, size = _checked(positions, gridsize, neighbor_count, n_groups)
    count = points.shape[0]
    nearest = min(neighbor_count, count - 1)
    choices = math.comb(nearest, size - 1)
    wanted = count if n_groups is None else n_groups
    possible = count * choices if oversample else count
    if wanted > possible:
        reason = "no more are possible" if oversample else "more would need oversampling"
        logger.warning("%d groups asked for, %d made: %d points, and %s.", wanted, possible, count, reason)
        wanted = possible
    rng = np.random.default_rng(seed)
    seeds, rounds = _draw_seeds(count, wanted, n_groups is None or sequential, rng)
    if size == 1:
        return seeds[:, None]
    distinct, where = np.unique(seeds, return_inverse=True)
    neighbours = _nearest_neighbours(points, distinct, nearest)[where]
    picked = _draw_companions(seeds, rounds, nearest, size - 1, count, rng)
    return np.concatenate([seeds[:, None], np.take_along_axis(neighbours, picked, axis=1)], axis=1)


def _checked(
    positions: ArrayLike, gridsize: int, neighbor_count: int, n_groups: int | None
) -> tuple[NDArray[np.float64], int]:
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f"positions: finite (M, 2) numbers expected for grouping, shape {points.shape} given.")
    if gridsize < 1:
        raise DataError(f"gridsize: {gridsize} given, at least 1 expected.")
    if n_groups is not None and n_groups < 1:
        raise DataError(f"n_groups: {n_groups} given, at least 1 expected.")
    size = gridsize * gridsize
    if points.shape[0] < size:
        raise DataError(
            f"gridsize {gridsize} groups {size} scan points, but the scan has only {points.shape[0]}; "
            "use a smaller gridsize or more points."
        )
    if neighbor_count < size - 1:
        raise DataError(
            f"neighbor_count: {neighbor_count} given, but gridsize {gridsize} draws {size - 1} neighbours of each "
            f"point; use at least {size - 1}."
        )
    return points, size


def _draw_seeds(
    count: int, wanted: int, in_order: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Seed points, each as often as any other to within one, and for each how often it was a seed before."""
    number = np.arange(wanted, dtype=np.int64)
    order = np.arange(count, dtype=np.int64) if in_order else rng.permutation(count).astype(np.int64)
    return order[number % count], number // count


def _nearest_neighbours(points: NDArray[np.float64], seeds: NDArray[np.int64], nearest: int) -> NDArray[np.int64]:
    """(S, K) numbers of the K points nearest to each seed, by rising distance, without the seed itself."""
    from scipy.spatial import cKDTree

    _, index = cKDTree(points).query(points[seeds], k=nearest + 1, workers=-1)
    found: Any = np.asarray(index, dtype=np.int64).reshape(seeds.size, nearest + 1)
    # Where points coincide, the seed need not come first, nor at all: move it to the end and drop the last.
    order = np.argsort(found == seeds[:, None], axis=1, kind="stable")
    result: NDArray[np.int64] = np.take_along_axis(found, order, axis=1)[:, :nearest]
    return result


def _draw_companions(
    seeds: NDArray[np.int64],
    rounds: NDArray[np.int64],
    nearest: int,
    companions: int,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """(G, C-1) columns, rising, into the K neighbours; choices of one seed differ from round to round."""
    choices = math.comb(nearest, companions)
    if choices > _LARGEST_TABLE:
        keys = rng.random((seeds.size, nearest))
        return np.sort(np.argpartition(keys, companions - 1, axis=1)[:, :companions], axis=1)
    table = np.array(list(combinations(range(nearest), companions)), dtype=np.int64)
    # Each seed starts at its own place in a shuffled list of all choices and walks on by one each round.
    shuffled = rng.permutation(choices)
    start = rng.integers(choices, size=count)
    return table[shuffled[(start[seeds] + rounds) % choices]]
