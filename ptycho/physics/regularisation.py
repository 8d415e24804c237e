"""Losses in the sample plane: smoothness of an object, and its distance from a known one."""

from __future__ import annotations

from typing import Any

from ptycho.backends import Array, array_namespace
from ptycho.physics.checks import require_together, widest
from ptycho.physics.propagation import intensity

__all__ = ["complex_mae", "squared_gradient"]


def squared_gradient(object: Array) -> Array:
    r"""Sum of squared first differences of the real and the imaginary part.

    .. math:: \sum_{r,c} |O_{r+1,c} - O_{r,c}|^2 + |O_{r,c+1} - O_{r,c}|^2

    Parameters
    ----------
    object : (..., H, W) complex or real, one object or a stack of patches; the sum runs over the stack too.

    Returns
    -------
    0-d real array, of the object's precision.
    """
    xp = array_namespace(object)
    down = object[..., 1:, :] - object[..., :-1, :]
    right = object[..., :, 1:] - object[..., :, :-1]
    return xp.sum(intensity(down)) + xp.sum(intensity(right))


def complex_mae(a: Array, b: Array) -> Array:
    r"""Mean absolute error of the amplitudes plus that of the phases (radians).

    .. math:: \langle\, ||a| - |b||\, \rangle + \langle\, |\arg(a\, b^*)|\, \rangle

    The phase difference is the shorter way round, so values beside +pi and -pi are close. Where either is zero there
    is no phase, and the pixel counts with difference 0; gradients are finite everywhere.

    Parameters
    ----------
    a, b : complex, the same shape, for example estimated and true patches (..., N, N).

    Returns
    -------
    0-d real array, of the wider precision of the two.
    """
    xp = require_together(a=a, b=b)
    a, b = widest(xp, a, b)
    amplitude = xp.abs(_modulus(xp, a) - _modulus(xp, b))
    cross = a * xp.conj(b)
    real, imag = xp.real(cross), xp.imag(cross)
    has_phase = real * real + imag * imag > xp.finfo(real.dtype).smallest_normal
    one, zero = xp.ones_like(real), xp.zeros_like(real)
    difference = xp.atan2(xp.where(has_phase, imag, zero), xp.where(has_phase, real, one))
    return xp.mean(amplitude) + xp.mean(xp.abs(difference))


def _modulus(xp: Any, values: Array) -> Array:
    """``|values|`` with gradient 0 at 0."""
    squared = intensity(values)
    lit = squared > 0
    return xp.where(lit, xp.sqrt(xp.where(lit, squared, xp.ones_like(squared))), xp.zeros_like(squared))
