r"""From what a pattern shows to what its exit waves should change by.

With the predicted amplitude :math:`A = (\sum_p |D\psi_p|^2)^{1/2}` and the measured one m every mode's far field is
multiplied by :math:`1 + c`, where c is a step down the noise model's negative log-likelihood, of the length that
reaches the measurement:

* amplitude: :math:`c = m/A - 1`, the projection on the measured amplitudes;
* Poisson: :math:`c = (m^2/A^2 - 1)/2`, linear beyond m = 3 A;
* Anscombe: :math:`c = \sqrt{m^2 + 3/8} / \sqrt{A^2 + 3/8} - 1` in photons.

Sources: Maiden, Rodenburg, Ultramicroscopy 109, 1256 (2009); Thibault, Guizar-Sicairos, New J. Phys. 14, 063004 (2012);
Odstrcil, Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

from typing import NamedTuple

from ptycho.backend import Array, array_namespace
from ptycho.engines.detector import FAR, Propagator
from ptycho.physics.propagation import illuminate, intensity

__all__ = ["WaveChange", "amplitude_factor", "pattern_misfits", "wave_change"]

_TINY = 1e-30


class WaveChange(NamedTuple):
    """What a few patterns ask for."""

    difference: Array
    """(k, P, N, N) complex, change of the exit waves."""
    misfit: Array
    """0-d real, sum of |A - m| over good pixels."""


def wave_change(
    patches: Array,
    probe: Array,
    measured: Array,
    good: Array | None,
    noise: str,
    photon: float,
    detector: Propagator = FAR,
) -> WaveChange:
    """Change of the exit waves that brings the prediction to the measurement.

    Parameters
    ----------
    patches : (k, N, N) complex.
    probe : (P, N, N) complex, or (k, P, N, N) where each pattern has its own.
    measured : (k, N, N) real amplitudes, zero frequency at [0, 0]; finite everywhere.
    good : (N, N) bool, or None; elsewhere nothing changes.
    noise : ``"amplitude"``, ``"poisson"`` or ``"anscombe"``.
    photon : intensity of one photon in the unit of ``measured`` squared.
    detector : the way of the exit waves to it.
    """
    xp = array_namespace(patches, probe, measured)
    waves = illuminate(patches, probe) if probe.ndim == 3 else patches[:, None, :, :] * probe
    field = detector.forward(waves)
    power = intensity(field)
    predicted = xp.sqrt(power[:, 0, :, :] if power.shape[1] == 1 else xp.sum(power, axis=1))
    away = measured - predicted
    if good is not None:
        away = xp.where(good, away, xp.zeros_like(away))
    factor = amplitude_factor(away, predicted, noise, photon)
    change = detector.backward(field * xp.astype(factor[:, None, :, :], field.dtype))
    return WaveChange(change, xp.sum(xp.abs(away)))


def pattern_misfits(
    patches: Array, probe: Array, measured: Array, good: Array | None, detector: Propagator = FAR
) -> Array:
    """Sum of |A - m| over good pixels of every pattern, (k,); arguments as of :func:`wave_change`."""
    xp = array_namespace(patches, probe, measured)
    waves = illuminate(patches, probe) if probe.ndim == 3 else patches[:, None, :, :] * probe
    away = xp.abs(xp.sqrt(xp.sum(intensity(detector.forward(waves)), axis=1)) - measured)
    return xp.sum(away if good is None else xp.where(good, away, xp.zeros_like(away)), axis=(-2, -1))


def amplitude_factor(away: Array, predicted: Array, noise: str, photon: float) -> Array:
    """The module's c, finite where nothing is predicted.

    Parameters
    ----------
    away : measured minus predicted amplitude.
    predicted : A >= 0.
    noise, photon : see :func:`wave_change`.
    """
    relative = away / (predicted + _TINY)
    if noise == "amplitude":
        return relative
    xp = array_namespace(away)
    if noise == "poisson":
        below = xp.clip(relative, None, 2.0)
        return xp.where(relative > 2.0, 2.0 * relative, below * (0.5 * below + 1.0))
    ground = 0.375 * photon
    measured = predicted + away
    return xp.sqrt(measured * measured + ground) / xp.sqrt(predicted * predicted + ground) - 1.0
