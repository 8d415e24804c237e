"""Outliers: a pattern that fits far worse than the others is tried at places all around its position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptycho.engines.position_correction.affine import fit_affine

__all__ = ["find_outliers", "search_outliers"]

_OUTLIER_RATIO = 1.8
"""Misfit, in parts of the median one, above which a position counts as an outlier."""
_CLEARLY_BETTER = 0.8
"""Misfit at another place, in parts of the present one, that moves the position there: noise must not."""
_PATTERNS_PER_SEARCH = 50
"""One pattern of so many is searched for in an epoch, the worst ones: a search costs 121 patterns."""
_STEPS = 5
"""Places on either side of the present one, along each axis."""


def find_outliers(misfits: np.ndarray) -> np.ndarray:
    """Indices of the patterns whose relative misfits (M,) stand out, the worst first; NaN is left out."""
    worst = np.argsort(-np.where(np.isfinite(misfits), misfits, 0.0))
    worst = worst[: max(1, misfits.size // _PATTERNS_PER_SEARCH)]
    return worst[misfits[worst] > _OUTLIER_RATIO * np.nanmedian(misfits)]


def search_outliers(
    outliers: np.ndarray,
    positions: np.ndarray,
    nominal: np.ndarray,
    farthest: float,
    misfit_at: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Positions (M, 2), those of some patterns moved to where they fit best, if they fit clearly better there.

    Parameters
    ----------
    outliers : indices.
    positions, nominal : (M, 2) pixels.
    farthest : radius of the search, pixels, around the nominal position after the map that fits the other positions.
    misfit_at : the misfits (k,) of one pattern at places (k, 2).
    """
    offsets = np.arange(-_STEPS, _STEPS + 1) * (farthest / _STEPS)
    grid = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    others = np.setdiff1d(np.arange(positions.shape[0]), outliers)
    fit, centre = fit_affine(nominal[others], positions[others]), nominal[others].mean(axis=0)
    found = positions.copy()
    for index in outliers.tolist():
        places = np.concat([positions[index : index + 1], fit(nominal[index], centre) + grid])
        misfits = misfit_at(index, places)
        best = int(np.argmin(misfits))
        if misfits[best] < _CLEARLY_BETTER * misfits[0]:
            found[index] = places[best]
    return found
