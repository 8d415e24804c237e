"""Sub-pixel shifts by the Fourier transform."""

from __future__ import annotations

import math

from ptycho.backends import Array, device
from ptycho.physics.checks import require_together
from ptycho.physics.fourier import fft2, ifft2

__all__ = ["fourier_shift"]


def fourier_shift(stack: Array, by: Array) -> Array:
    r"""Images sampled at positions moved by ``by``: the trigonometric interpolation of :math:`x(r + \delta)`.

    Exact for periodic images without power at the Nyquist frequency. Unitary, so the shift back is its inverse and its
    adjoint. The images are periodic: content that leaves at one edge enters at the opposite one.

    Parameters
    ----------
    stack : (K, H, W) complex.
    by : (K, 2) real, (row, col) in pixels, of the same framework.

    Returns
    -------
    (K, H, W) of the stack's dtype. Differentiable by both.

    Raises
    ------
    DataError
        The two are of different frameworks or on different devices.
    """
    xp = require_together(stack=stack, by=by)
    real = xp.real(stack).dtype
    ramps = []
    for axis, size in enumerate(stack.shape[-2:]):
        turns = xp.fft.fftfreq(size, dtype=real, device=device(stack)) * (2.0 * math.pi)
        phase = xp.astype(by[:, axis], real)[:, None] * turns[None, :]
        cosine, sine = xp.astype(xp.cos(phase), stack.dtype), xp.astype(xp.sin(phase), stack.dtype)
        ramps.append(cosine + sine * 1j)
    return ifft2(fft2(stack) * ramps[0][:, :, None] * ramps[1][:, None, :])
