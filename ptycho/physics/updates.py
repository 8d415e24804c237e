r"""What a pattern requires of exit waves and object, by the rule of the ptychographical iterative engine.

.. math:: \Delta O = \frac{\sum_p P_p^* (\psi'_p - \psi_p)}{\sum_p |P_p|^2 + \alpha \max_r \sum_p |P_p|^2},
          \qquad \psi'_p = D^{-1}\left[\frac{\sqrt{I}}{\sqrt{\sum_q |D\psi_q|^2}}\, D\psi_p\right].

A network sees :math:`\Delta O` beside the object: one pattern cannot tell an object from its twin image, and
a network that sees only detector pixels has to learn the Fourier transform before it learns anything else. Sources:
Maiden, Rodenburg, Ultramicroscopy 109, 1256 (2009); Maiden, Johnson, Li, Optica 4, 736 (2017) for the regularised
denominator; Thibault, Menzel, Nature 494, 68 (2013) for the modes.
"""

from __future__ import annotations

from ptycho.backends import Array
from ptycho.physics.checks import require_together, widest
from ptycho.physics.fourier import fft2, ifft2, ifftshift2
from ptycho.physics.propagation import illuminate, intensity
from ptycho.physics.scaling import largest_value, multiplied

__all__ = ["exit_wave_update", "pie_object_update"]


def pie_object_update(
    patches: Array, probe: Array, amplitude: Array, mask: Array | None = None, damping: float = 0.05
) -> Array:
    r"""Change of the object patches that would bring the predicted amplitude to the measured one.

    Parameters
    ----------
    patches : (..., N, N) complex, the current object patches.
    probe : (P, N, N) complex, sqrt(photons).
    amplitude : (..., N, N) real, measured, sqrt(counts), zero frequency at the centre.
    mask : (N, N) real or bool, 1 on good detector pixels; elsewhere the prediction is kept.
    damping : :math:`\alpha`; where the probe is weaker than this part of its peak the change fades out.

    Returns
    -------
    (..., N, N) complex, dimensionless. No gradient is meant to pass through it, though one would.
    """
    xp = require_together(patches=patches, probe=probe, amplitude=amplitude, mask=mask)
    patches, probe, amplitude = widest(xp, patches, probe, amplitude)
    unit = 1.0 / largest_value(probe)
    probe, amplitude = multiplied(probe, unit), multiplied(amplitude, unit)
    power = xp.sum(intensity(probe), axis=0)
    difference = exit_wave_update(patches, probe, amplitude, mask)
    numerator = xp.sum(xp.conj(probe) * difference, axis=-3)
    return numerator / xp.astype(power + damping * xp.max(power), numerator.dtype)


def exit_wave_update(patches: Array, probe: Array, amplitude: Array, mask: Array | None = None) -> Array:
    """Change of the exit waves, (..., P, N, N), that brings the predicted amplitude to the measured one.

    Parameters
    ----------
    patches, probe, amplitude, mask : as for :func:`pie_object_update`.
    """
    xp = require_together(patches=patches, probe=probe, amplitude=amplitude, mask=mask)
    patches, probe, amplitude = widest(xp, patches, probe, amplitude)
    scale = largest_value(probe)
    unit = 1.0 / scale
    field = fft2(illuminate(patches, multiplied(probe, unit)))
    predicted = xp.sqrt(xp.sum(intensity(field), axis=-3))
    measured = ifftshift2(multiplied(amplitude, unit))
    if mask is not None:  # what a bad pixel shows must not count, not even as NaN
        good = xp.astype(ifftshift2(xp.astype(mask, measured.dtype)), xp.bool)
        measured = xp.where(good, measured, xp.zeros_like(measured))
    # of each pattern on its own, so that the result does not depend on what else is in the batch
    tiny = 1e-6 * xp.max(measured, axis=(-2, -1), keepdims=True) + 1e-30
    # times (ratio - 1): the difference of the waves in one inverse transform
    change = scale * (measured / (predicted + tiny) - 1.0)
    if mask is not None:
        change = xp.where(good, change, xp.zeros_like(change))
    return ifft2(field * xp.astype(change[..., None, :, :], field.dtype))
