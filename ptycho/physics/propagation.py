r"""Illumination, free-space propagation and the intensity on the detector.

Far field: unitary FFT, then fftshift; so :math:`\sum |\psi|^2 = \sum I` (Parseval), and a probe in
:math:`\sqrt{\mathrm{photons}}` with a dimensionless object predicts counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ptycho.backends import Array, array_namespace, device, get_backend
from ptycho.errors import DataError
from ptycho.physics.checks import array_of, require_together, widest
from ptycho.physics.fourier import fft2, fftshift2, ifft2

__all__ = ["diffraction_amplitude", "diffraction_intensity", "far_field", "illuminate", "intensity", "near_field"]


def illuminate(patches: Array, probe: Array) -> Array:
    r"""Exit waves :math:`\psi_p(r) = P_p(r)\, O(r)` of every probe mode.

    Parameters
    ----------
    patches : (..., N, N) complex, object patches, dimensionless.
    probe : (P, N, N) complex, incoherent probe modes, sqrt(photons); (N, N) is one mode.

    Returns
    -------
    (..., P, N, N) complex, in double precision if either of them is; P is 1 for a probe (N, N).

    Raises
    ------
    DataError
        The probe is of another shape or framework, or on another device, than the patches.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> waves = ptycho.illuminate(np.ones((3, 8, 8), complex), np.ones((2, 8, 8), complex))
    >>> ptycho.far_field(waves).shape
    (3, 2, 8, 8)
    """
    patches, probe = array_of(patches, "patches"), _modes(probe)
    xp = require_together(patches=patches, probe=probe)
    if probe.ndim != 3 or tuple(probe.shape[-2:]) != tuple(patches.shape[-2:]):
        raise DataError(
            f"probe: got shape {tuple(probe.shape)} for patches of shape {tuple(patches.shape)}; "
            "expected (modes, N, N), or (N, N) for one mode, with the patches' N."
        )
    patches, probe = widest(xp, patches, probe)
    return patches[..., None, :, :] * probe


def far_field(exit_wave: Array) -> Array:
    """Fraunhofer field on the detector: unitary FFT, zero frequency moved to the centre pixel ``[H//2, W//2]``.

    Parameters
    ----------
    exit_wave : (..., H, W) complex, for example (8, 6); a detector need not be square. Real values are taken as
        complex ones without an imaginary part.

    Returns
    -------
    (..., H, W) complex, in the precision of ``exit_wave``.

    Raises
    ------
    DataError
        ``exit_wave`` has fewer than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> abs(ptycho.far_field(np.ones((2, 4), complex))).round(6)
    array([[0.      , 0.      , 0.      , 0.      ],
           [0.      , 0.      , 2.828427, 0.      ]])
    """
    return fftshift2(fft2(_wave(exit_wave, "exit_wave")))


def near_field(wave: Array, distance: float, wavelength: float, pixel_size: float) -> Array:
    r"""Free-space propagation over a short distance by the angular spectrum method.

    .. math:: \psi_z = F^{-1}\left[F[\psi]\, e^{i k z \sqrt{1 - \lambda^2 (f_r^2 + f_c^2)}}\right]

    without the constant phase :math:`kz`. Evanescent waves are dropped. The map is unitary on propagating waves, and
    propagating by ``-distance`` inverts it. Source: Goodman, Introduction to Fourier Optics, 3rd ed., section 3.10.

    Parameters
    ----------
    wave : (..., H, W) complex.
    distance, wavelength, pixel_size : metres.

    Raises
    ------
    DataError
        ``wavelength`` or ``pixel_size`` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> wave = np.ones((8, 8), complex)
    >>> there = ptycho.near_field(wave, 1e-3, wavelength=1e-10, pixel_size=1e-7)
    >>> back = ptycho.near_field(there, -1e-3, wavelength=1e-10, pixel_size=1e-7)
    >>> bool(np.allclose(back, wave))
    True
    """
    for name, value in (("wavelength", wavelength), ("pixel_size", pixel_size)):
        if not value > 0:
            raise DataError(f"{name}: got {value}; expected a positive length in metres.")
    wave = _wave(wave, "wave")
    xp = array_namespace(wave)
    real = xp.real(wave).dtype
    rows, cols = (
        xp.fft.fftfreq(n, d=pixel_size, dtype=real, device=device(wave)) * wavelength for n in wave.shape[-2:]
    )
    sine_squared = rows[:, None] ** 2 + cols[None, :] ** 2
    propagating = sine_squared < 1.0
    cosine = xp.sqrt(xp.where(propagating, 1.0 - sine_squared, xp.zeros_like(sine_squared)))
    # cos - 1 written without cancellation: single precision must survive k z of 1e6 and more
    phase = (2.0 * math.pi * distance / wavelength) * (-sine_squared / (1.0 + cosine))
    zero = xp.zeros_like(phase)
    kernel_re = xp.where(propagating, xp.cos(phase), zero)
    kernel_im = xp.where(propagating, xp.sin(phase), zero)
    kernel = xp.astype(kernel_re, wave.dtype) + xp.astype(kernel_im, wave.dtype) * 1j
    return ifft2(fft2(wave) * kernel)


def intensity(wave: Array) -> Array:
    """``|wave|^2`` as re*re + im*im: exact gradient at zero, and faster than the complex absolute value.

    Parameters
    ----------
    wave : any shape, complex or real floating.
    """
    xp = array_namespace(wave)
    if not xp.isdtype(wave.dtype, "complex floating"):
        return wave * wave
    real, imag = xp.real(wave), xp.imag(wave)
    squared = real * real
    squared += imag * imag
    return squared


def diffraction_intensity(patches: Array, probe: Array, propagate: Callable[[Array], Array] = far_field) -> Array:
    r"""Expected counts :math:`I = \sum_p |D[P_p\, O]|^2` on the detector, summed over incoherent modes.

    Parameters
    ----------
    patches : (..., N, N) complex, object patches.
    probe : (P, N, N) complex, probe modes in sqrt(photons); (N, N) is one mode.
    propagate : from exit wave to detector wave; :func:`far_field`, or :func:`near_field` with its distances bound.

    Returns
    -------
    (..., N, N) real, photons per pixel; the zero frequency at ``[N//2, N//2]``.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> patches = ptycho.extract_patches(truth, scan.positions, scan.N)
    >>> expected = ptycho.diffraction_intensity(patches, scan.probe)
    >>> round(float(expected.sum(axis=(1, 2)).mean()))
    10000
    """
    patches, probe = array_of(patches, "patches"), _modes(probe)
    require_together(patches=patches, probe=probe)
    if propagate is far_field and probe.ndim == 3 and all(n % 2 == 0 for n in probe.shape[-2:]):
        probe, propagate = _alternating(probe), fft2

    def detected(stack: Array) -> Array:
        waves = illuminate(stack, probe)
        if probe.shape[0] == 1:  # no reduction over a single mode
            return intensity(propagate(waves[..., 0, :, :]))
        xp = array_namespace(waves)
        return xp.sum(intensity(propagate(waves)), axis=-3)

    return get_backend(patches).in_parts(detected, patches) if patches.ndim > 2 else detected(patches)


def _modes(probe: Array) -> Array:
    """The probe as a stack of modes: (N, N) becomes (1, N, N)."""
    probe = array_of(probe, "probe")
    return probe[None, :, :] if probe.ndim == 2 else probe


def _wave(values: Array, name: str) -> Array:
    """A complex array of at least two axes; real values become complex in their precision, whole numbers complex64."""
    values = array_of(values, name)
    if values.ndim < 2:
        raise DataError(f"{name}: got shape {tuple(values.shape)}; expected (..., H, W).")
    xp = array_namespace(values)
    if xp.isdtype(values.dtype, "complex floating"):
        return values
    return xp.astype(values, xp.complex128 if values.dtype == xp.float64 else xp.complex64)


def _alternating(probe: Array) -> Array:
    """The probe times +1 and -1 in a chequerboard, which moves the zero frequency of the far field to the centre."""
    xp = array_namespace(probe)
    rows, cols = (xp.arange(n, dtype=xp.int32, device=device(probe)) % 2 for n in probe.shape[-2:])
    signs = xp.astype(1 - 2 * ((rows[:, None] + cols[None, :]) % 2), xp.real(probe).dtype)
    return probe * xp.astype(signs, probe.dtype)


def diffraction_amplitude(patches: Array, probe: Array, propagate: Callable[[Array], Array] = far_field) -> Array:
    """Square root of :func:`diffraction_intensity`, with a finite gradient where the intensity is zero.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> patches = ptycho.extract_patches(truth, scan.positions, scan.N)
    >>> ptycho.diffraction_amplitude(patches, scan.probe).shape
    (40, 16, 16)
    """
    predicted = diffraction_intensity(patches, probe, propagate)
    xp = array_namespace(predicted)
    return xp.sqrt(predicted + xp.finfo(predicted.dtype).smallest_normal)
