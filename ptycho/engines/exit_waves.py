r"""From what a pattern shows to what its exit waves should change by.

With the predicted amplitude :math:`A = (\sum_p |D\psi_p|^2)^{1/2}` and the measured one m every mode's far field is
multiplied by :math:`1 + c`, where c is a step down the noise model's negative log-likelihood, of the length that
reaches the measurement:

* amplitude: :math:`c = m/A - 1`, the projection on the measured amplitudes;
* Poisson: :math:`c = (m^2/A^2 - 1)/2`, linear beyond m = 3 A;
* Anscombe: :math:`c = \sqrt{m^2 + 3/8} / \sqrt{A^2 + 3/8} - 1` in photons.

In an object of several slices the change goes back the way the light came: in front of a slice it is
:math:`O_s^*\,\Delta\psi_s / [(1-\alpha) |O_s|^2 + \alpha \max |O_s|^2]`, as of a probe, and over the gap that of the
wave behind the slice before.

Sources: Maiden, Rodenburg, Ultramicroscopy 109, 1256 (2009); Thibault, Guizar-Sicairos, New J. Phys. 14, 063004 (2012);
Odstrcil, Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018); of slices Maiden, Humphry, Rodenburg, J. Opt. Soc. Am.
A 29, 1606 (2012).

Where the amplitude model moves the object, positions follow :math:`c = (m/A - 1)\,[1 + w\,(m/A - 1) / 2]`,
linear beyond m = 3 A. Amplitudes of dim pixels are too low on average, since the root of a count is, which looks like a
compressed pattern: like a larger scale. With w = 1 this is the Poisson model's c, which has the right mean, but meets
an object that followed those amplitudes, which looks like a smaller scale. :math:`w = 0.7` was found on simulated scans
of 1e5 to 1e7 photons (``benchmarks/corrections.py``); it has no unit, so that no photon needs to be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ptycho.backends import Array, array_namespace
from ptycho.engines.object_canvas import slices_of
from ptycho.engines.propagator import FAR, Propagator
from ptycho.physics.propagation import illuminate, intensity
from ptycho.physics.slices import incoming_waves

__all__ = [
    "ExitWaveChange",
    "SliceUpdate",
    "amplitude_factor",
    "exit_wave_change",
    "pattern_misfits",
    "propagate_slice_changes",
    "slice_illuminations",
]

_TINY = 1e-30
_DAMPING = 0.3
_TOWARDS_POISSON = 0.7
"""The module's w."""


class SliceUpdate(NamedTuple):
    """A slice of the object, the waves that light it, and the change that a few patterns require."""

    patches: Array
    """(k, N, N) complex."""
    illumination: Array
    """What lights it: (k, P, N, N) complex, or (P, N, N) where it is one probe for all."""
    exit_change: Array
    """(k, P, N, N) complex, change of the waves behind it."""


class ExitWaveChange(NamedTuple):
    """What a few patterns require."""

    slices: tuple[SliceUpdate, ...]
    """Slice by slice, the first one first."""
    residual: Array
    """0-d real, sum of |A - m| over good pixels."""
    position_slices: tuple[SliceUpdate, ...] = ()
    """The same slices with what their positions follow; empty where that was not wanted."""

    @property
    def exit_change(self) -> Array:
        """(k, P, N, N) complex, change of the exit waves."""
        return self.slices[-1].exit_change


def exit_wave_change(
    patches: Array,
    probe: Array,
    measured: Array,
    good: Array | None,
    noise: str,
    photon: float,
    propagator: Propagator = FAR,
    for_positions: bool = False,
) -> ExitWaveChange:
    """Change of the exit waves that brings the prediction to the measurement.

    Parameters
    ----------
    patches : (k, N, N) complex, or (S, k, N, N) of several slices.
    probe : (P, N, N) complex, or (k, P, N, N) where each pattern has its own.
    measured : (k, N, N) real amplitudes, zero frequency at [0, 0]; finite everywhere.
    good : (N, N) bool, or None; elsewhere nothing changes.
    noise : ``"amplitude"``, ``"poisson"`` or ``"anscombe"``.
    photon : intensity of one photon in the unit of ``measured`` squared.
    propagator : from behind the object to the detector and back.
    for_positions : whether to find ``position_slices`` too.
    """
    xp = array_namespace(patches, probe, measured)
    slices = slices_of(patches, 3)
    waves = slice_illuminations(slices, probe, propagator)
    field = propagator.forward(_behind(slices[-1], waves[-1]))
    power = intensity(field)
    predicted = xp.sqrt(power[:, 0, :, :] if power.shape[1] == 1 else xp.sum(power, axis=1))
    away = measured - predicted
    if good is not None:
        away = xp.where(good, away, xp.zeros_like(away))

    def required(factor: Array) -> tuple[SliceUpdate, ...]:
        change = propagator.backward(field * xp.astype(factor[:, None, :, :], field.dtype))
        return _back_propagated(slices, waves, change, propagator)

    found = position_slices = required(amplitude_factor(away, predicted, noise, photon))
    if for_positions and noise == "amplitude":
        position_slices = required(_steepened(away / (predicted + _TINY), _TOWARDS_POISSON))
    return ExitWaveChange(found, xp.sum(xp.abs(away)), position_slices if for_positions else ())


def pattern_misfits(
    patches: Array, probe: Array, measured: Array, good: Array | None, propagator: Propagator = FAR
) -> Array:
    """Sum of |A - m| over good pixels of every pattern, (k,); arguments as of :func:`exit_wave_change`."""
    xp = array_namespace(patches, probe, measured)
    slices = slices_of(patches, 3)
    waves = _behind(slices[-1], slice_illuminations(slices, probe, propagator)[-1])
    away = xp.abs(xp.sqrt(xp.sum(intensity(propagator.forward(waves)), axis=1)) - measured)
    return xp.sum(away if good is None else xp.where(good, away, xp.zeros_like(away)), axis=(-2, -1))


def slice_illuminations(slices: Sequence[Array], probe: Array, propagator: Propagator) -> list[Array]:
    """The waves that light each of some slices; see :func:`~ptycho.physics.slices.incoming_waves`."""
    return [probe] if propagator.gap is None else incoming_waves(slices, probe, propagator.gap[0])


def propagate_slice_changes(slices: Sequence[SliceUpdate], moved: Sequence[Array], propagator: Propagator) -> Array:
    """What small changes (k, N, N) of the slices change of the exit waves, (k, P, N, N)."""
    change = moved[0][:, None, :, :] * slices[0].illumination
    for each, more in zip(slices[1:], moved[1:], strict=True):
        arriving = change if propagator.gap is None else propagator.gap[0](change)
        change = each.patches[:, None, :, :] * arriving + more[:, None, :, :] * each.illumination
    return change


def _behind(patches: Array, wave: Array) -> Array:
    return illuminate(patches, wave) if wave.ndim == 3 else patches[:, None, :, :] * wave


def _back_propagated(
    slices: Sequence[Array], waves: Sequence[Array], change: Array, propagator: Propagator
) -> tuple[SliceUpdate, ...]:
    """Every slice with the change that it must make, from the change (k, P, N, N) of the exit waves."""
    found = [SliceUpdate(slices[-1], waves[-1], change)]
    if propagator.gap is not None:
        for patches, wave in zip(reversed(slices[:-1]), reversed(waves[:-1]), strict=True):
            change = propagator.gap[1](_undone(found[-1].patches)[:, None, :, :] * change)
            found.append(SliceUpdate(patches, wave, change))
    return tuple(reversed(found))


def _undone(patches: Array) -> Array:
    """What a change behind a slice is multiplied by to be one in front of it."""
    xp = array_namespace(patches)
    passed = intensity(patches)
    share = (1.0 - _DAMPING) * passed + _DAMPING * xp.max(passed, axis=(-2, -1), keepdims=True)
    return xp.conj(patches) / xp.astype(share + _TINY, patches.dtype)


def amplitude_factor(away: Array, predicted: Array, noise: str, photon: float) -> Array:
    """The module's c, finite where nothing is predicted.

    Parameters
    ----------
    away : measured minus predicted amplitude.
    predicted : A >= 0.
    noise, photon : see :func:`exit_wave_change`.
    """
    relative = away / (predicted + _TINY)
    if noise == "amplitude":
        return relative
    if noise == "poisson":
        return _steepened(relative, 1.0)
    xp = array_namespace(away)
    ground = 0.375 * photon
    measured = predicted + away
    return xp.sqrt(measured * measured + ground) / xp.sqrt(predicted * predicted + ground) - 1.0


def _steepened(relative: Array, weight: float) -> Array:
    """The module's c of positions, from m/A - 1, with w = ``weight``."""
    xp = array_namespace(relative)
    below = xp.clip(relative, None, 2.0)
    return relative * (0.5 * weight * below + 1.0)
