"""The scale of an array, taken out before anything is squared.

In single precision the square of 1e-20 is below the smallest normal number: NumPy keeps a few of its digits, TensorFlow
and compiled code on several devices set it to 0. Formulas that do not depend on the unit of the wave are therefore
computed in a unit in which its largest value is about 1.
"""

from __future__ import annotations

from ptycho.backends import Array, array_namespace, get_backend

__all__ = ["largest_value", "multiplied"]


def largest_value(values: Array) -> Array:
    """A scale of ``values``, 0-d real: between their largest magnitude and twice that, 1 if all are 0; a constant.

    Parameters
    ----------
    values : any shape, real or complex floating.

    Returns
    -------
    0-d real array of the same precision, without gradient: only for formulas in which it cancels.
    """
    xp = array_namespace(values)
    if xp.isdtype(values.dtype, "complex floating"):
        peak = xp.max(xp.abs(xp.real(values))) + xp.max(xp.abs(xp.imag(values)))
    else:
        peak = xp.max(xp.abs(values))
    peak = xp.where(peak > 0, peak, xp.ones_like(peak))
    return get_backend(values).stop_gradient(peak)


def multiplied(values: Array, factor: Array) -> Array:
    """``values`` times a real 0-d factor, floating; a division of complex numbers would square the divisor."""
    xp = array_namespace(values)
    if not xp.isdtype(values.dtype, ("real floating", "complex floating")):
        values = xp.astype(values, factor.dtype)
    return values * xp.astype(factor, values.dtype)
