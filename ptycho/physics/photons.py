r"""Photon scales: conversion between dimensionless units and counts, and photon noise.

The normalised units are PtychoPINN's: a pattern's amplitudes are scaled so that their squares sum to
:math:`(N/2)^2` on average, and one number, the intensity scale, leads back to photons.
"""

from __future__ import annotations

import math

import numpy as np

from ptycho.backends import Array, array_namespace
from ptycho.errors import DataError
from ptycho.physics.checks import require_positive, require_size, require_together, widest
from ptycho.physics.propagation import intensity
from ptycho.physics.scaling import largest_value, multiplied

__all__ = [
    "intensity_scale",
    "normalise_amplitude",
    "photon_scale",
    "photons_per_pattern",
    "poisson_sample",
    "scale_to_photons",
]

_PHOTON_LIMIT = 9.0e18
"""Largest expected count whose Poisson variates fit into a 64-bit integer."""


def normalise_amplitude(amplitude: Array, mask: Array | None = None) -> tuple[Array, float]:
    r"""Amplitudes in the network's units, :math:`X = f A` with :math:`f = \sqrt{(N/2)^2 / \langle\sum A^2\rangle}`.

    The sum runs over the pixels of a pattern, the mean over all patterns given.

    Parameters
    ----------
    amplitude : (..., N, N) real or integer, square root of counts; widened before anything is squared.
    mask : (N, N) bool, True = good pixel; other pixels are left out of the sum and are 0 in the result.

    Returns
    -------
    X : (..., N, N) float32, or float64 if ``amplitude`` is.
    factor : f, a Python float.

    Raises
    ------
    DataError
        The patterns are empty, dark or not finite, so that no scale is defined.
    """
    xp = require_together(amplitude=amplitude, mask=mask)
    values = _floating(xp, amplitude)
    if mask is not None:
        values = xp.where(mask, values, xp.zeros_like(values))
    n = values.shape[-1]
    scale = float(largest_value(values)) if math.prod(values.shape) else 1.0
    scaled = values * (1.0 / scale)
    energy = float(xp.mean(xp.sum(scaled * scaled, axis=(-2, -1)))) if math.prod(values.shape) else 0.0
    if not 0 < energy < math.inf:
        raise DataError(
            f"amplitude: the mean of a pattern's summed squares is {energy * scale**2:g}; expected patterns that hold "
            "photons and no NaN (mask bad pixels)."
        )
    factor = (n / 2) / math.sqrt(energy)
    return scaled * factor, factor / scale


def intensity_scale(nphotons: float, N: int) -> float:
    r"""PtychoPINN's intensity scale :math:`s = \sqrt{n_\mathrm{photons}} / (N/2)`.

    It leads from normalised amplitudes to sqrt(photons).

    Parameters
    ----------
    nphotons : mean photons per pattern.
    N : pixels along a pattern's side.

    Raises
    ------
    DataError
        ``nphotons`` or ``n`` is not positive.
    """
    require_positive("nphotons", nphotons, "photons per pattern")
    require_size(N)
    return math.sqrt(nphotons) / (N / 2)


def photons_per_pattern(patches: Array, probe: Array) -> Array:
    r"""Expected photons of each pattern, :math:`\sum_{p, r} |O(r)|^2 |P_p(r)|^2`.

    By Parseval the sum over the exit wave is the sum over the whole detector.

    Parameters
    ----------
    patches : (..., N, N) complex, object patches.
    probe : (N, N) or (P, N, N) complex, incoherent modes, sqrt(photons).

    Returns
    -------
    (...) real.
    """
    xp = require_together(patches=patches, probe=probe)
    patches, probe = widest(xp, _floating(xp, patches), _floating(xp, probe))
    illumination = intensity(probe)
    if illumination.ndim == 3:
        illumination = xp.sum(illumination, axis=0)
    return xp.sum(intensity(patches) * illumination, axis=(-2, -1))


def photon_scale(patches: Array, probe: Array, nphotons: float) -> float:
    r"""Factor on the probe that makes a pattern hold ``nphotons`` expected photons on average.

    .. math:: s = \sqrt{n_\mathrm{photons} / \langle \textstyle\sum_{p, r} |O|^2 |P_p|^2 \rangle}

    the mean taken over patches.

    Parameters
    ----------
    patches : (..., N, N) complex, object patches.
    probe : (N, N) or (P, N, N) complex, incoherent modes.
    nphotons : mean expected photons per pattern.

    Raises
    ------
    DataError
        ``nphotons`` is not positive, or no light passes the object.
    """
    probe = _floating(array_namespace(probe), probe)
    require_together(patches=patches, probe=probe)
    scale = largest_value(probe)
    photons = photons_per_pattern(patches, multiplied(probe, 1.0 / scale))
    xp = array_namespace(photons)
    return scale_to_photons(float(xp.mean(photons)), nphotons) / float(scale)


def scale_to_photons(energy: float, nphotons: float) -> float:
    """Factor on amplitudes that turns a mean of ``energy`` photons per pattern into ``nphotons``.

    Raises
    ------
    DataError
        ``nphotons`` is not positive, or ``energy`` vanishes or is not finite.
    """
    require_positive("nphotons", nphotons, "photons per pattern")
    if not 0 < energy < math.inf:
        raise DataError(
            f"probe: the exit waves hold {energy:g} photons on average; expected a probe and an object that are finite "
            "and not zero."
        )
    return math.sqrt(nphotons / energy)


def poisson_sample(intensity: np.ndarray, rng: int | np.random.Generator | None = None) -> np.ndarray:
    """Photon counts drawn from the Poisson distribution of the expected counts, on the host.

    Values are drawn in memory order from one stream, so drawing piece by piece gives the same counts.

    Parameters
    ----------
    intensity : any shape, real, expected counts >= 0.
    rng : seed or numpy generator.

    Returns
    -------
    int64 array of the same shape.

    Raises
    ------
    DataError
        An expected count is negative, NaN or too large for 64-bit integers.
    """
    expected = np.asarray(intensity, dtype=np.float64)
    if not ((expected >= 0) & (expected <= _PHOTON_LIMIT)).all():
        raise DataError(
            "intensity: holds negative, NaN or too large expected counts; expected 0 to 9e18 photons per pixel."
        )
    return np.random.default_rng(rng).poisson(expected)


def _floating(xp: Array, values: Array) -> Array:
    """``values`` as floating point: integers and half precision become float32, complex values stay."""
    if values.dtype in (xp.float32, xp.float64) or xp.isdtype(values.dtype, "complex floating"):
        return values
    return xp.astype(values, xp.float32)
