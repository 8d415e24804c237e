"""Positions that went astray: patterns met far worse than the others are looked for all around their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptycho.backends import NumpyBackend
from ptycho.engines.position_correction.steps import fit_affine

__all__ = ["find_outliers", "search_outliers"]

_host = NumpyBackend.xp
_OUTLIER_RATIO = 1.8
"""Misfit, in parts of the median one, above which a position is in doubt."""
_BETTER = 0.8
_MOST = 50
"""One of so many patterns is searched for at once, the worst ones."""
_STEPS = 5


def find_outliers(misfits: np.ndarray) -> np.ndarray:
    """Indices of the patterns whose relative misfits (M,) stand out, the worst first; NaN is left out."""
    worst = _host.argsort(-_host.where(_host.isfinite(misfits), misfits, 0.0))
    worst = worst[: max(1, misfits.size // _MOST)]
    return worst[misfits[worst] > _OUTLIER_RATIO * np.nanmedian(misfits)]


def search_outliers(
    outliers: np.ndarray,
    positions: np.ndarray,
    nominal: np.ndarray,
    farthest: float,
    misfit_at: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Positions (M, 2) with those of some patterns where they are met best, if that is clearly better.

    Parameters
    ----------
    outliers : indices.
    positions, nominal : (M, 2) pixels.
    farthest : how far from the nominal position, moved as all are, is searched, pixels.
    misfit_at : the misfits (k,) of one pattern at places (k, 2).
    """
    offsets = _host.arange(-_STEPS, _STEPS + 1) * (farthest / _STEPS)
    grid = _host.stack(_host.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    others = np.setdiff1d(_host.arange(positions.shape[0]), outliers)
    fit, centre = fit_affine(nominal[others], positions[others]), nominal[others].mean(axis=0)
    found = positions.copy()
    for index in outliers.tolist():
        places = _host.concat([positions[index : index + 1], fit(nominal[index], centre) + grid])
        misfits = misfit_at(index, places)
        best = int(np.argmin(misfits))
        if misfits[best] < _BETTER * misfits[0]:
            found[index] = places[best]
    return found
