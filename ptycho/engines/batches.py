"""Which patterns share an update."""

from __future__ import annotations

import numpy as np

__all__ = ["make_batches"]


def make_batches(kind: str, positions: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide the patterns into batches of ``size`` (the last may be smaller), in random order.

    Parameters
    ----------
    kind : ``"random"``; ``"compact"``, batches of neighbours, which an update moves together; ``"sparse"``, patterns
        that lie far apart, so that an update touches the whole object.
    positions : (M, 2) pixels.
    size : patterns per batch.
    rng : decides everything.

    Returns
    -------
    list of (k,) int64
        Every pattern once; each batch in rising order.
    """
    count = positions.shape[0]
    if kind == "random" or size >= count:
        order = rng.permutation(count)
        return [np.sort(order[first : first + size]) for first in range(0, count, size)]
    groups = _neighbourhoods(positions, size if kind == "compact" else -(-count // size), rng)
    if kind == "sparse":  # one of each neighbourhood
        shuffled = [rng.permutation(group) for group in groups]
        longest = max(group.size for group in shuffled)
        groups = [np.array([g[k] for g in shuffled if k < g.size], dtype=np.int64) for k in range(longest)]
    return [np.sort(groups[k]) for k in rng.permutation(len(groups))]


def _neighbourhoods(positions: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Groups of ``size`` neighbours: the field is halved across its longer side until a part is small enough.

    The turn of the axes is random, so that the borders of the groups do not stand still from epoch to epoch.
    """
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = positions @ turn
    done: list[np.ndarray] = []
    waiting = [np.arange(positions.shape[0])]
    while waiting:
        part = waiting.pop()
        if part.size <= size:
            done.append(part)
            continue
        axis = int(np.argmax(np.ptp(turned[part], axis=0)))
        order = part[np.argsort(turned[part, axis], kind="stable")]
        half = max(size, part.size // 2 // size * size)
        waiting += [order[half:], order[:half]]
    return done
