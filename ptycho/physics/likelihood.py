r"""Losses in diffraction space: how well predicted patterns explain the measured ones.

Both are means over the good pixels of all patterns. Bad pixels are excluded before any arithmetic, so that their
values, NaN included, change neither the loss nor its gradient.

The gradient of these losses by a complex array, such as a probe, is :math:`\partial L/\partial x + i\,\partial
L/\partial y` from ``value_and_grad`` of every backend (:func:`ptycho.get_backend`), so that a step against it descends.
Plain ``jax.grad`` returns the complex conjugate of that: apply ``jax.numpy.conj`` to it first.
"""

from __future__ import annotations

import math
from typing import Any

from ptycho.backends import Array, device
from ptycho.config.deprecated import formerly_positional
from ptycho.errors import DataError
from ptycho.physics.checks import array_of, require_together

__all__ = ["mae", "poisson_nll"]


@formerly_positional
def poisson_nll(*, I_pred: Array, I_meas: Array, mask: Array | None = None, floor: float = 1e-3) -> Array:
    r"""Negative log-likelihood of photon counts.

    .. math:: \langle I_\mathrm{pred} - I_\mathrm{meas} \log I_\mathrm{pred} \rangle

    The constant :math:`\log I_\mathrm{meas}!` is left out. Below ``floor`` the logarithm is replaced by its tangent at
    ``floor``. So the loss has a continuous slope everywhere, and where photons were counted but none is predicted it is
    finite and its gradient raises the prediction.

    ``value_and_grad`` of every backend gives the gradient by a complex array as dL/dx + i dL/dy; plain ``jax.grad``
    returns its complex conjugate.

    Parameters
    ----------
    I_pred : (..., N, N) real floating, expected photons per pixel, >= 0.
    I_meas : broadcastable to ``I_pred``, real or integer (uint16 too), photons per pixel; widened to I_pred's dtype.
    mask : bool, broadcastable to ``I_pred``, True = good pixel.
    floor : photons per pixel.

    Returns
    -------
    0-d array of I_pred's dtype; 0 if no pixel is good.

    Raises
    ------
    DataError
        ``floor`` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> predicted, counted = np.asarray([[1.0, 2.0]]), np.asarray([[1, 0]])
    >>> float(ptycho.poisson_nll(I_pred=predicted, I_meas=counted))
    1.5
    """
    if not floor > 0:
        raise DataError(f"floor: got {floor}; expected a positive number of photons per pixel.")
    I_pred, I_meas, mask = array_of(I_pred), array_of(I_meas), None if mask is None else array_of(mask)
    xp = require_together(I_pred=I_pred, I_meas=I_meas, mask=mask)
    predicted, measured = _good_values(xp, I_pred, I_meas, mask)
    # a selection, not a sum: in a sum the slopes measured / floor and -measured / floor would cancel in single
    # precision
    tangent = (predicted - floor) / floor + math.log(floor)
    logarithm = xp.where(predicted > floor, xp.log(xp.maximum(predicted, xp.full_like(predicted, floor))), tangent)
    return _mean(xp, predicted - measured * logarithm, mask)


@formerly_positional
def mae(*, A_pred: Array, A_meas: Array, mask: Array | None = None) -> Array:
    r"""Mean absolute error of amplitudes, :math:`\langle |A_\mathrm{pred} - A_\mathrm{meas}| \rangle`.

    ``value_and_grad`` of every backend gives the gradient by a complex array as dL/dx + i dL/dy; plain ``jax.grad``
    returns its complex conjugate.

    By a complex array, ``jax.grad`` of this returns the complex conjugate of the gradient that ``value_and_grad`` of
    every backend gives; see :mod:`ptycho.physics.likelihood`.

    Parameters
    ----------
    A_pred : (..., N, N) real floating, sqrt(photons).
    A_meas : broadcastable to ``A_pred``, real or integer, sqrt(photons); widened to A_pred's dtype.
    mask : bool, broadcastable to ``A_pred``, True = good pixel.

    Returns
    -------
    0-d array of A_pred's dtype; 0 if no pixel is good.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> float(ptycho.mae(A_pred=np.asarray([[1.0, 2.0]]), A_meas=np.asarray([[1.0, 4.0]])))
    1.0
    """
    A_pred, A_meas, mask = array_of(A_pred), array_of(A_meas), None if mask is None else array_of(mask)
    xp = require_together(A_pred=A_pred, A_meas=A_meas, mask=mask)
    predicted, measured = _good_values(xp, A_pred, A_meas, mask)
    return _mean(xp, xp.abs(predicted - measured), mask)


def _good_values(xp: Any, predicted: Array, measured: Array, mask: Array | None) -> tuple[Array, Array]:
    """Prediction and widened measurement with 1 in the place of bad pixels."""
    measured = xp.astype(measured, predicted.dtype)
    if mask is None:
        return predicted, measured
    return xp.where(mask, predicted, xp.ones_like(predicted)), xp.where(mask, measured, xp.ones_like(measured))


def _mean(xp: Any, values: Array, mask: Array | None) -> Array:
    if mask is None:
        return xp.mean(values)
    good = xp.sum(xp.astype(mask, values.dtype)) * (math.prod(values.shape) / math.prod(mask.shape))
    total = xp.sum(xp.where(mask, values, xp.zeros_like(values)))
    return total / xp.maximum(good, xp.ones((), dtype=values.dtype, device=device(values)))
