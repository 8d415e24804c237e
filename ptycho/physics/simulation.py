r"""Simulated scans: object, probe and positions in, photon counts out.

The forward model is the one that reconstruction uses: :math:`I_j = \sum_p |F[s\,P_p\; O(\cdot - r_j)]|^2` with the
unitary Fourier transform, then Poisson sampling; an object of several slices as in :mod:`ptycho.physics.slices`. Memory
beyond the result is bounded by the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ptycho.backends import array_namespace, get_backend
from ptycho.data.scan import Measurement, Scan
from ptycho.errors import DataError
from ptycho.physics.patches import extract_patches
from ptycho.physics.photons import photons_per_pattern, poisson_sample, scale_to_photons
from ptycho.physics.positions import fermat_positions, patch_limits, random_positions, raster_positions
from ptycho.physics.propagation import diffraction_intensity, far_field, near_field
from ptycho.physics.slices import multislice_intensity

__all__ = ["fermat_positions", "random_positions", "raster_positions", "simulate"]

_CHUNK_BYTES = 32 * 2**20


def simulate(
    object: ArrayLike,
    probe: ArrayLike,
    positions: ArrayLike,
    nphotons: float | None = 1e6,
    seed: int | np.random.Generator | None = 0,
    *,
    measurement: Measurement = "counts",
    noise: bool = True,
    dtype: DTypeLike | None = None,
    mask: ArrayLike | None = None,
    object_origin: ArrayLike = (0.0, 0.0),
    spacing: float | None = None,
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
    object : (H, W) complex, dimensionless, or (S, H, W) of slices, in the order in which the beam meets them. 64-bit
        objects are computed in double precision, others in single.
    probe : (N, N) or (P, N, N) complex, incoherent modes; any unit if ``nphotons`` is given, else sqrt(photons).
    positions : (M, 2) real, (row, col) of the patch centres in pixels.
    nphotons : mean expected photons per pattern over the whole detector; ``None`` takes the probe as it is.
    seed : of the photon noise. The same seed gives the same counts whatever ``chunk_size`` is.
    measurement : ``"counts"`` (photons per pixel) or ``"amplitude"`` (their square root).
    noise : draw Poisson counts; otherwise the expected counts are returned.
    dtype : of the patterns; by default uint32 for noisy counts and the precision of the computation for the rest.
    mask : (N, N) bool, True where the detector works; other pixels record 0, and the scan carries the mask.
    object_origin : (row, col) position coordinate of the object's first pixel.
    spacing : metres from one slice to the next; ``scan_fields`` must give ``wavelength`` and ``pixel_size``.
    propagate : from exit wave to detector wave.
    backend, device : where to compute; the random numbers are drawn on the host.
    chunk_size : patterns per chunk; by default what fits into about 32 MB.
    out : (M, N, N) array to fill, for example a memory map; its dtype replaces ``dtype``.
    progress : called with (patterns done, all patterns) after every chunk.
    scan_fields : further fields of the scan: ``wavelength``, ``distance``, ``pixel_size``, ``name``, ``metadata``, ...

    Returns
    -------
    Scan with patterns, positions, the scaled probe, the object and its origin. Of slices the object is their product.

    Raises
    ------
    DataError
        A shape or number is not usable, a patch reaches beyond the object, no light reaches the detector, the counts
        exceed ``dtype``, or a length is missing that slices need.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> scan
    Scan('', 40 patterns of 16x16, counts, 1 probe mode(s))
    """
    slices, modes, where, origin = _check_inputs(object, probe, positions, object_origin)
    gap = _gap(len(slices), spacing, scan_fields)
    n = modes.shape[-1]
    good = _check_mask(mask, n)
    target = _check_target(out, dtype, measurement, noise, (len(where), n, n), slices.real.dtype)
    if chunk_size is None:
        chunk_size = max(1, _CHUNK_BYTES // (modes.size * slices.itemsize))
    if chunk_size < 1:
        raise DataError(f"chunk_size: got {chunk_size}; expected at least one pattern per chunk.")

    lender = get_backend(backend)
    images = [lender.asarray(one, device=device) for one in slices]

    def patches() -> Iterator[tuple[slice, list[Any]]]:
        for start in range(0, len(where), chunk_size):
            part = slice(start, min(start + chunk_size, len(where)))
            at = lender.asarray(where[part] - origin, device=device)
            yield part, [extract_patches(image, at, n) for image in images]

    if nphotons is not None:
        light = lender.asarray(modes, device=device)
        energies = np.concatenate([lender.to_numpy(_energies(chunk, light, gap)) for _, chunk in patches()])
        modes = modes * scale_to_photons(float(energies.mean(dtype=np.float64)), nphotons)
    light = lender.asarray(modes, device=device)
    rng = np.random.default_rng(seed)
    for part, chunk in patches():
        expected = lender.to_numpy(_expected(chunk, light, gap, propagate))
        counts = poisson_sample(expected, rng) if noise else expected
        target[part] = _recorded(counts, good, measurement, target.dtype)
        if progress is not None:
            progress(part.stop, len(where))
    return Scan(
        patterns=target,
        measurement=measurement,
        positions=where,
        probe=modes,
        object=np.prod(slices, axis=0),
        object_origin=(float(origin[0]), float(origin[1])),
        mask=good,
        **scan_fields,
    )


def _check_inputs(
    object: ArrayLike, probe: ArrayLike, positions: ArrayLike, object_origin: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    wave, modes = np.asarray(object), np.asarray(probe)
    if wave.ndim not in (2, 3) or not wave.size:
        raise DataError(
            f"object: got shape {wave.shape}; expected a two-dimensional complex image (H, W), or slices (S, H, W)."
        )
    wave = wave if wave.ndim == 3 else wave[None]
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
        raise DataError(f"object_origin: got {object_origin!r}; expected the (row, col) position of the first pixel.")
    low, high = patch_limits(wave.shape[1:], modes.shape[-1])
    inside = where - origin
    outside = np.count_nonzero(((inside < low) | (inside > high)).any(axis=-1))
    if outside:
        raise DataError(
            f"positions: at {outside} of {len(where)} the patch reaches beyond the object of {wave.shape[1:]} pixels; "
            f"expected rows {low[0]:g} to {high[0]:g} and columns {low[1]:g} to {high[1]:g} of the object."
        )
    return wave, modes, where, origin


def _gap(count: int, spacing: float | None, fields: dict[str, Any]) -> Callable[[Any], Any]:
    """Free space from one of ``count`` slices to the next."""
    if count == 1:
        if spacing is not None:
            raise DataError(f"spacing: got {spacing} for one slice; expected slices (S, H, W), or no spacing.")
        return lambda wave: wave
    lengths: list[Any] = [spacing, fields.get("wavelength"), fields.get("pixel_size")]
    for name, value in zip(("spacing", "wavelength", "pixel_size"), lengths, strict=True):
        if value is None or not value > 0:
            raise DataError(f"{name}: got {value}; expected a positive length in metres, which {count} slices need.")
    return lambda wave: near_field(wave, *lengths)


def _energies(slices: Sequence[Any], probe: Any, gap: Callable[[Any], Any]) -> Any:
    """Photons (k,) behind the last slice."""
    if len(slices) == 1:
        return photons_per_pattern(slices[0], probe)
    behind = multislice_intensity(slices, probe, gap, lambda wave: wave)
    xp = array_namespace(behind)
    return xp.sum(behind, axis=(-2, -1))


def _expected(slices: Sequence[Any], probe: Any, gap: Callable[[Any], Any], propagate: Callable[[Any], Any]) -> Any:
    """Counts (k, N, N)."""
    if len(slices) == 1:
        return diffraction_intensity(slices[0], probe, propagate)
    return multislice_intensity(slices, probe, gap, propagate)


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
