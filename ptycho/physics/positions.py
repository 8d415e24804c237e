"""Scan positions such that every patch lies inside the object."""

from __future__ import annotations

import numpy as np

from ptycho.errors import DataError

__all__ = ["fermat_positions", "patch_limits", "random_positions", "raster_positions"]

Region = tuple[tuple[float, float], tuple[float, float]]

_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))


def patch_limits(shape: tuple[int, ...], size: int, region: Region | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (row, col) at which a patch of ``size`` lies wholly inside the region.

    Parameters
    ----------
    shape, size, region : as in :func:`raster_positions`.

    Returns
    -------
    Two float64 arrays (2,), pixels of the object, both ends allowed.

    Raises
    ------
    DataError
        The object (or region) is too small for one patch, or the region leaves the object.
    """
    if size < 1:
        raise DataError(f"size: got {size}; expected the side of a patch, at least 1 pixel.")
    whole = np.array([[0, shape[0]], [0, shape[1]]], dtype=np.float64)
    bounds = whole if region is None else np.asarray(region, dtype=np.float64).reshape(2, 2)
    if (bounds[:, 0] < whole[:, 0]).any() or (bounds[:, 1] > whole[:, 1]).any():
        raise DataError(f"region: got {region} for an object of {tuple(shape)} pixels; expected a part of the object.")
    low = bounds[:, 0] + size // 2
    high = bounds[:, 1] - size + size // 2
    if (high < low).any():
        rows, cols = (bounds[:, 1] - bounds[:, 0]).astype(int)
        raise DataError(
            f"object: its {rows} x {cols} pixels are too small for a patch of {size} x {size}; "
            "enlarge the object or choose a smaller N."
        )
    return low, high


def raster_positions(
    shape: tuple[int, int],
    size: int,
    step: float | tuple[float, float],
    *,
    jitter: float = 0.0,
    rng: int | np.random.Generator | None = 0,
    region: Region | None = None,
) -> np.ndarray:
    """Positions on a rectangular grid, row by row, centred in the region.

    Parameters
    ----------
    shape : (H, W) of the object, pixels.
    size : N, side of the patches, pixels.
    step : distance between neighbours, pixels; one number or (row, col).
    jitter : standard deviation of a Gaussian displacement that breaks the grid's periodicity, pixels; displaced
        positions are kept inside.
    rng : seed or generator of the jitter.
    region : ((first row, last row), (first col, last col)) of object pixels, ends excluded like slices, in which all
        patches must lie; by default the whole object.

    Returns
    -------
    (M, 2) float64, (row, col) of the patch centres in pixels of the object.

    Raises
    ------
    DataError
        The object (or region) is too small for one patch, or a number is not usable.
    """
    low, high = patch_limits(shape, size, region)
    steps = np.broadcast_to(np.asarray(step, dtype=np.float64), (2,))
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise DataError(f"step: got {step}; expected a positive distance in pixels.")
    axes = []
    for lowest, highest, pace in zip(low, high, steps, strict=True):
        count = int(np.floor((highest - lowest) / pace + 1e-9)) + 1
        start = lowest + (highest - lowest - (count - 1) * pace) / 2
        axes.append(np.clip(start + pace * np.arange(count), lowest, highest))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return _jittered(grid, jitter, rng, low, high)


def fermat_positions(
    shape: tuple[int, int],
    size: int,
    step: float,
    *,
    jitter: float = 0.0,
    rng: int | np.random.Generator | None = 0,
    region: Region | None = None,
) -> np.ndarray:
    r"""Positions on a Fermat spiral, from the centre outward, cut to the region's rectangle.

    The k-th point has radius :math:`c\sqrt{k}` and angle :math:`k` golden angles; every point owns the same area,
    ``step**2``. Source: Huang et al., Opt. Express 22 (2014) 12634.

    Parameters
    ----------
    shape, size, jitter, rng, region : as in :func:`raster_positions`.
    step : square root of the area per point, pixels.

    Returns
    -------
    (M, 2) float64, (row, col) of the patch centres in pixels of the object.

    Raises
    ------
    DataError
        The object (or region) is too small for one patch, or a number is not usable.
    """
    low, high = patch_limits(shape, size, region)
    if not 0 < step < np.inf:
        raise DataError(f"step: got {step}; expected a positive distance in pixels.")
    centre, reach = (low + high) / 2, float(np.hypot(*(high - low))) / 2
    scale = step / np.sqrt(np.pi)
    k = np.arange(int((reach / scale) ** 2) + 1)
    radius, angle = scale * np.sqrt(k), _GOLDEN_ANGLE * k
    spiral = centre + np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1)
    inside = ((spiral >= low) & (spiral <= high)).all(axis=-1)
    return _jittered(spiral[inside], jitter, rng, low, high)


def random_positions(
    shape: tuple[int, int],
    size: int,
    n: int,
    rng: int | np.random.Generator | None = 0,
    *,
    region: Region | None = None,
) -> np.ndarray:
    """``n`` independent positions, uniformly random where the whole patch fits.

    Parameters
    ----------
    shape, size, region : as in :func:`raster_positions`.
    n : number of positions.
    rng : seed or generator.

    Returns
    -------
    (n, 2) float64, (row, col) of the patch centres in pixels of the object.

    Raises
    ------
    DataError
        The object (or region) is too small for one patch, or ``n`` < 1.
    """
    low, high = patch_limits(shape, size, region)
    if n < 1:
        raise DataError(f"n: got {n}; expected at least one position.")
    return np.random.default_rng(rng).uniform(low, high, (int(n), 2))


def _jittered(
    positions: np.ndarray, jitter: float, rng: int | np.random.Generator | None, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    if not 0 <= jitter < np.inf:
        raise DataError(f"jitter: got {jitter}; expected a standard deviation in pixels, 0 or more.")
    if jitter == 0:
        return positions
    moved = positions + jitter * np.random.default_rng(rng).standard_normal(positions.shape)
    return np.clip(moved, low, high)
