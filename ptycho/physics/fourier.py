"""Unitary two-dimensional Fourier transforms over the last two axes, in every namespace."""

from __future__ import annotations

import array_api_compat

from ptycho.backends import Array, array_namespace

__all__ = ["fft2", "fftshift2", "ifft2", "ifftshift2"]

_AXES = (-2, -1)


def fft2(x: Array) -> Array:
    """Unitary discrete Fourier transform over the last two axes; ``sum |fft2(x)|^2 = sum |x|^2``.

    Parameters
    ----------
    x : (..., H, W) complex array; its precision is kept.
    """
    if array_api_compat.is_numpy_array(x):  # numpy's own transform is several times slower than scipy's
        from scipy import fft

        return fft.fft2(x, norm="ortho", workers=-1 if x.size > _THREADS_PAY else None)
    return array_namespace(x).fft.fftn(x, axes=_AXES, norm="ortho")


def ifft2(x: Array) -> Array:
    """Inverse, and adjoint, of :func:`fft2`."""
    if array_api_compat.is_numpy_array(x):
        from scipy import fft

        return fft.ifft2(x, norm="ortho", workers=-1 if x.size > _THREADS_PAY else None)
    return array_namespace(x).fft.ifftn(x, axes=_AXES, norm="ortho")


def fftshift2(x: Array) -> Array:
    """Move the zero frequency from pixel [0, 0] to pixel [H//2, W//2]."""
    return array_namespace(x).fft.fftshift(x, axes=_AXES)


def ifftshift2(x: Array) -> Array:
    """Inverse of :func:`fftshift2`: the zero frequency goes back to pixel [0, 0]."""
    return array_namespace(x).fft.ifftshift(x, axes=_AXES)


_THREADS_PAY = 1 << 18
