r"""Simulated scans: object, probe and positions in, photon counts out; and the positions to do it at.

The forward model is the one that reconstruction uses: :math:`I_j = \sum_p |F[s\,P_p\; O(\cdot - r_j)]|^2` with the
unitary Fourier transform, then Poisson sampling. Memory beyond the result is bounded by the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ptycho.backend import get_backend
from ptycho.data.scan import Scan
from ptycho.errors import DataError
from ptycho.physics.patches import extract_patches
from ptycho.physics.photons import poisson_sample
from ptycho.physics.propagation import diffraction_intensity, far_field

__all__ = ["fermat_positions", "random_positions", "raster_positions", "simulate"]

Region = tuple[tuple[float, float], tuple[float, float]]

_CHUNK_BYTES = 32 * 2**20
_GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))


def simulate(
    object: ArrayLike,
    probe: ArrayLike,
    positions: ArrayLike,
    nphotons: float | None = 1e6,
    seed: int | np.random.Generator | None = 0,
    *,
    measurement: str = "counts",
    noise: bool = True,
    dtype: DTypeLike | None = None,
    mask: ArrayLike | None = None,
    object_origin: ArrayLike = (0.0, 0.0),
    propagate: Callable[[Any], Any] = far_field,
    backend: str = "numpy",
    device: Any = None,
    chunk_size: int | None = None,
    out: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    **scan_fields: Any,
) -> Scan:
    r"""Scan of ``object`` by ``probe`` at ``positions``, with photon noise.

    The probe is scaled by :math:`s = \sqrt{n / \langle \sum |O|^2 |P|^2 \rangle}`, the mean taken over the patches, so
    that a pattern holds ``nphotons`` expected photons on average. The scan carries the scaled probe, in
    sqrt(photons): it predicts the counts of that scan.

    Parameters
    ----------
    object : (H, W) complex, dimensionless. 64-bit objects are computed in double precision, others in single.
    probe : (N, N) or (P, N, N) complex, incoherent modes; any unit if ``nphotons`` is given, else sqrt(photons).
    positions : (M, 2) real, (row, col) of the patch centres in pixels.
    nphotons : mean expected photons per pattern over the whole detector; ``None`` takes the probe as it is.
    seed : of the photon noise. The same seed gives the same counts whatever ``chunk_size`` is.
    measurement : ``"counts"`` (photons per pixel) or ``"amplitude"`` (their square root).
    noise : draw Poisson counts; otherwise the expected counts are returned.
    dtype : of the patterns; by default uint32 for noisy counts and the precision of the computation for the rest.
    mask : (N, N) bool, True where the detector works; other pixels record 0, and the scan carries the mask.
    object_origin : (row, col) position coordinate of ``object[0, 0]``.
    propagate : from exit wave to detector wave.
    backend, device : where to compute; the random numbers are drawn on the host.
    chunk_size : patterns per chunk; by default what fits into about 32 MB.
    out : (M, N, N) array to fill, for example a memory map; its dtype replaces ``dtype``.
    progress : called with (patterns done, all patterns) after every chunk.
    scan_fields : further fields of the scan: ``wavelength``, ``distance``, ``pixel_size``, ``name``, ``metadata``, ...

    Returns
    -------
    Scan with patterns, positions, the scaled probe, the object and its origin.

    Raises
    ------
    DataError
        A shape or number is not usable, a patch reaches beyond the object, no light reaches the detector, or the
        counts exceed ``dtype``.
    """
    wave, modes, where, origin = _check_inputs(object, probe, positions, object_origin)
    n = modes.shape[-1]
    good = _check_mask(mask, n)
    target = _check_target(out, dtype, measurement, noise, (len(where), n, n), wave.real.dtype)
    if chunk_size is None:
        chunk_size = max(1, _CHUNK_BYTES // (modes.size * wave.itemsize))
    if chunk_size < 1:
        raise DataError(f"chunk_size: got {chunk_size}; expected at least one pattern per chunk.")

    lender = get_backend(backend)
    image = lender.asarray(wave, device=device)

    def patches() -> Iterator[tuple[slice, Any]]:
        for start in range(0, len(where), chunk_size):
            part = slice(start, min(start + chunk_size, len(where)))
            yield part, extract_patches(image, lender.asarray(where[part] - origin, device=device), n)

    if nphotons is not None:
        modes = _scaled_to(nphotons, modes, (lender.to_numpy(chunk) for _, chunk in patches()))
    light = lender.asarray(modes, device=device)
    rng = np.random.default_rng(seed)
    for part, chunk in patches():
        expected = lender.to_numpy(diffraction_intensity(chunk, light, propagate))
        counts = poisson_sample(expected, rng) if noise else expected
        target[part] = _recorded(counts, good, measurement, target.dtype)
        if progress is not None:
            progress(part.stop, len(where))
    return Scan(
        patterns=target,
        measurement=measurement,
        positions=where,
        probe=modes,
        object=wave,
        object_origin=origin,
        mask=good,
        **scan_fields,
    )


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
    low, high = _room(shape, size, region)
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
    low, high = _room(shape, size, region)
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
    low, high = _room(shape, size, region)
    if n < 1:
        raise DataError(f"n: got {n}; expected at least one position.")
    return np.random.default_rng(rng).uniform(low, high, (int(n), 2))


def _room(shape: tuple[int, int], size: int, region: Region | None) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (row, col) at which a patch lies inside the region."""
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


def _jittered(
    positions: np.ndarray, jitter: float, rng: int | np.random.Generator | None, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    if not 0 <= jitter < np.inf:
        raise DataError(f"jitter: got {jitter}; expected a standard deviation in pixels, 0 or more.")
    if jitter == 0:
        return positions
    moved = positions + jitter * np.random.default_rng(rng).standard_normal(positions.shape)
    return np.clip(moved, low, high)


def _check_inputs(
    object: ArrayLike, probe: ArrayLike, positions: ArrayLike, object_origin: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    wave, modes = np.asarray(object), np.asarray(probe)
    if wave.ndim != 2:
        raise DataError(f"object: got shape {wave.shape}; expected a two-dimensional complex image (H, W).")
    if modes.ndim == 2:
        modes = modes[None]
    if modes.ndim != 3 or modes.shape[-1] != modes.shape[-2]:
        raise DataError(f"probe: got shape {np.shape(probe)}; expected (N, N) or (modes, N, N).")
    double = wave.dtype in (np.complex128, np.float64)
    complex_type = np.complex128 if double else np.complex64
    wave, modes = np.asarray(wave, dtype=complex_type), np.asarray(modes, dtype=complex_type)
    for name, values in (("object", wave), ("probe", modes)):
        if not np.isfinite(values).all():
            raise DataError(f"{name}: holds NaN or infinite values; expected finite numbers.")
    where = np.asarray(positions, dtype=np.float64)
    if where.ndim != 2 or where.shape[-1] != 2 or len(where) < 1 or not np.isfinite(where).all():
        raise DataError(f"positions: got shape {where.shape}; expected finite (M, 2), (row, col) in pixels, M >= 1.")
    origin = np.asarray(object_origin, dtype=np.float64).reshape(-1)
    if origin.shape != (2,):
        raise DataError(f"object_origin: got {object_origin}; expected the (row, col) position of the first pixel.")
    low, high = _room(wave.shape, modes.shape[-1], None)
    inside = where - origin
    outside = np.count_nonzero(((inside < low) | (inside > high)).any(axis=-1))
    if outside:
        raise DataError(
            f"positions: at {outside} of {len(where)} the patch reaches beyond the object of {wave.shape} pixels; "
            f"expected rows {low[0]:g} to {high[0]:g} and columns {low[1]:g} to {high[1]:g} of the object."
        )
    return wave, modes, where, origin


def _check_mask(mask: ArrayLike | None, n: int) -> np.ndarray | None:
    if mask is None:
        return None
    good = np.asarray(mask)
    if good.shape != (n, n) or good.dtype != bool:
        raise DataError(f"mask: got {good.dtype} of shape {good.shape}; expected bool ({n}, {n}), True where good.")
    return good


def _check_target(
    out: np.ndarray | None,
    dtype: DTypeLike | None,
    measurement: str,
    noise: bool,
    shape: tuple[int, int, int],
    real: np.dtype,
) -> np.ndarray:
    if measurement not in ("counts", "amplitude"):
        raise DataError(f"measurement: got {measurement!r}; expected 'counts' or 'amplitude'.")
    whole = measurement == "counts" and noise
    if out is None:
        default = np.uint32 if whole else real
        out = np.empty(shape, dtype=default if dtype is None else dtype)
    if out.shape != shape:
        raise DataError(f"out: got shape {out.shape}; expected (patterns, N, N) = {shape}.")
    if out.dtype.kind not in ("uif" if whole else "f"):
        raise DataError(f"dtype: got {out.dtype}; expected a real floating type, since the values are not whole.")
    return out


def _scaled_to(nphotons: float, modes: np.ndarray, chunks: Iterator[np.ndarray]) -> np.ndarray:
    if not 0 < nphotons < np.inf:
        raise DataError(f"nphotons: got {nphotons}; expected a positive number of photons per pattern.")
    power = (modes.real.astype(np.float64) ** 2 + modes.imag.astype(np.float64) ** 2).sum(axis=0)
    energies = np.concatenate(
        [((chunk.real**2 + chunk.imag**2) * power).reshape(len(chunk), -1).sum(axis=-1) for chunk in chunks]
    )
    if not energies.mean() > 0:
        raise DataError("probe: no light reaches the detector; expected a probe and an object that are not zero.")
    return (modes * np.sqrt(nphotons / energies.mean())).astype(modes.dtype)


def _recorded(counts: np.ndarray, good: np.ndarray | None, measurement: str, dtype: np.dtype) -> np.ndarray:
    if good is not None:
        counts = np.where(good, counts, 0)
    if measurement == "amplitude":
        return np.sqrt(counts)
    if dtype.kind in "ui" and counts.max() > np.iinfo(dtype).max:
        raise DataError(
            f"dtype: {dtype} holds at most {np.iinfo(dtype).max} counts, and a pixel counted {int(counts.max())}; "
            "choose a wider type or fewer photons."
        )
    return counts
