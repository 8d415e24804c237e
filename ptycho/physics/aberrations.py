r"""Wavefront aberrations as Zernike polynomials in the pupil, that is in the probe's far field.

Polynomials carry Noll's single index j = 1, 2, 3, ... and his normalisation: the root mean square of each over the
unit disc is 1, so a coefficient is the RMS wavefront error it adds, in radians.
Source: R. J. Noll, J. Opt. Soc. Am. 66 (1976) 207, table I.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ptycho.errors import DataError
from ptycho.physics.fourier import fft2, fftshift2, ifft2, ifftshift2

__all__ = ["apply_aberrations", "noll_to_zernike", "zernike_polynomial"]

_PUPIL_POWER = 0.99
"""Fraction of the far field's power inside the default pupil radius."""


def noll_to_zernike(j: int) -> tuple[int, int]:
    """Radial order n and azimuthal frequency m of Noll's index; m < 0 stands for the sine.

    ``1`` piston, ``2`` and ``3`` tilts, ``4`` defocus, ``5`` and ``6`` astigmatism, ``7`` and ``8`` coma, ``9`` and
    ``10`` trefoil, ``11`` spherical.

    Raises
    ------
    DataError
        ``j`` is not a positive integer.
    """
    if j != int(j) or j < 1:
        raise DataError(f"zernike: got the Noll index {j}; expected an integer from 1.")
    n = (math.isqrt(8 * int(j) - 7) - 1) // 2
    place = int(j) - n * (n + 1) // 2 - 1  # 0 ... n within the radial order
    m = 2 * ((place + 1) // 2) if n % 2 == 0 else 2 * (place // 2) + 1
    return n, (m if j % 2 == 0 else -m)


def zernike_polynomial(j: int, rho: ArrayLike, theta: ArrayLike) -> np.ndarray:
    r"""Noll's polynomial :math:`Z_j`, RMS 1 over the unit disc.

    .. math:: Z_j = \sqrt{n+1}\,R_n^{|m|}(\rho)\cdot \{1,\ \sqrt2\cos m\theta,\ \sqrt2\sin |m|\theta\}

    Parameters
    ----------
    j : Noll's index, from 1.
    rho : radius in units of the pupil's; values beyond 1 extrapolate.
    theta : angle, radians.

    Returns
    -------
    float64 array of the broadcast shape.

    Raises
    ------
    DataError
        ``j`` is not a positive integer.
    """
    n, m = noll_to_zernike(j)
    rho, theta = np.asarray(rho, dtype=np.float64), np.asarray(theta, dtype=np.float64)
    order = abs(m)
    radial = np.zeros(rho.shape)
    for k in range((n - order) // 2 + 1):
        weight = math.factorial(n - k) // math.factorial(k)
        below = math.factorial((n + order) // 2 - k) * math.factorial((n - order) // 2 - k)
        radial = radial + (-1) ** k * (weight / below) * rho ** (n - 2 * k)
    if m == 0:
        return math.sqrt(n + 1) * radial * np.ones(theta.shape)
    angular = np.cos(order * theta) if m > 0 else np.sin(order * theta)
    return math.sqrt(2 * (n + 1)) * radial * angular


def apply_aberrations(probe: np.ndarray, zernike: Mapping[int, float], pupil_radius: float | None = None) -> np.ndarray:
    r"""Probe with the wavefront error :math:`\sum_j c_j Z_j` added in the pupil.

    .. math:: P' = F^{-1}\!\left[F[P]\; e^{i \sum_j c_j Z_j(\rho, \theta)}\right]

    The pupil is the far field of the probe; rho = 1 at ``pupil_radius`` and theta runs from the column axis towards
    the row axis. Beyond the disc the phase keeps the value at its edge. The power of the probe is unchanged.

    Parameters
    ----------
    probe : (..., N, N) complex, in the sample plane, centred on ``[N//2, N//2]``.
    zernike : coefficient by Noll index, radians RMS.
    pupil_radius : in pixels of the detector; by default the smallest disc that holds 99 % of the far field's power.

    Returns
    -------
    (..., N, N) complex of the same dtype.

    Raises
    ------
    DataError
        The probe's shape, an index, a coefficient or the radius is not usable.
    """
    wave = np.asarray(probe)
    if wave.ndim < 2 or wave.shape[-1] != wave.shape[-2]:
        raise DataError(f"probe: got shape {wave.shape}; expected (N, N) or (modes, N, N).")
    if not all(math.isfinite(coefficient) for coefficient in zernike.values()):
        raise DataError(f"zernike: got {dict(zernike)}; expected finite coefficients in radians.")
    n = wave.shape[-1]
    field = fftshift2(fft2(ifftshift2(wave.astype(np.complex128))))
    offset = np.arange(n) - n // 2
    radius, theta = np.hypot(offset[:, None], offset[None, :]), np.arctan2(offset[:, None], offset[None, :])
    if pupil_radius is None:
        pupil_radius = _radius_of_power((np.abs(field) ** 2).reshape(-1, n, n).sum(axis=0), radius)
    if not 0 < pupil_radius < math.inf:
        raise DataError(f"pupil_radius: got {pupil_radius}; expected a positive radius in detector pixels.")
    rho = np.minimum(radius / pupil_radius, 1.0)
    phase = np.zeros((n, n))
    for j, coefficient in zernike.items():
        phase = phase + coefficient * zernike_polynomial(j, rho, theta)
    return fftshift2(ifft2(ifftshift2(field * np.exp(1j * phase)))).astype(wave.dtype)


def _radius_of_power(power: np.ndarray, radius: np.ndarray) -> float:
    order = np.argsort(radius, axis=None)
    running = np.cumsum(power.ravel()[order])
    if not running[-1] > 0:
        raise DataError("probe: is zero everywhere; expected a wave that holds light.")
    where = int(np.searchsorted(running, _PUPIL_POWER * running[-1]))
    return max(1.0, float(radius.ravel()[order[min(where, running.size - 1)]]))
