r"""A first guess of the probe from the measured patterns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ptycho.errors import DataError
from ptycho.physics.checks import require_positive
from ptycho.physics.fourier import fftshift2, ifft2, ifftshift2

__all__ = ["probe_from_patterns"]

_CHUNK_PIXELS = 2**22
"""Pixels that are widened to double precision at a time."""


def probe_from_patterns(
    patterns: ArrayLike,
    *,
    measurement: str = "counts",
    mask: np.ndarray | None = None,
    curvature: float = 0.0,
    defocus: float | None = None,
    wavelength: float | None = None,
    pixel_size: float | None = None,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    r"""First guess of the probe: the amplitude of the mean pattern with a quadratic phase, in the sample plane.

    .. math:: P = F^{-1}\!\left[\sqrt{\langle I \rangle}\; e^{-i\varphi(q)}\right],\qquad \varphi = \pi\lambda z q^2

    On the optical axis the mean pattern is close to the beam's own far field; the phase, a
    defocus, is not in the mean pattern. The result is centred on ``[N//2, N//2]`` and its power equals the mean counts
    of a pattern.

    Parameters
    ----------
    patterns : (M, N, N) real, zero frequency at ``[N//2, N//2]``; read piecewise, so a memory map is fine.
    measurement : ``"counts"`` or ``"amplitude"``.
    mask : (N, N) bool, True = good pixel; other pixels take the value of the nearest good one.
    curvature : :math:`\varphi` at the middle of the detector's edge, radians; another form of the defocus.
    defocus, wavelength, pixel_size : z, :math:`\lambda` and the sample's pixel, metres; instead of ``curvature``.
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex, sqrt(photons).

    Raises
    ------
    DataError
        The patterns are not a stack of squares, dark or not finite where good, or the geometry is incomplete.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> probe = ptycho.probe_from_patterns(scan.patterns)
    >>> scan.replace(probe=probe).probe.shape
    (1, 16, 16)
    """
    mean = _mean_counts(patterns, measurement, mask)
    n = mean.shape[-1]
    if defocus is not None:
        if wavelength is None or pixel_size is None:
            raise DataError("defocus: needs the wavelength and the sample's pixel_size, both in metres, beside it.")
        require_positive("wavelength", wavelength, "metres")
        require_positive("pixel_size", pixel_size, "metres")
        curvature = math.pi * wavelength * defocus / (2.0 * pixel_size) ** 2
    if not math.isfinite(curvature):
        raise DataError(f"curvature: got {curvature}; expected a phase in radians.")
    offset = np.arange(n) - n // 2
    phase = curvature * (np.hypot(offset[:, None], offset[None, :]) / (n / 2)) ** 2
    return fftshift2(ifft2(ifftshift2(np.sqrt(mean) * np.exp(-1j * phase)))).astype(dtype)


def _mean_counts(patterns: ArrayLike, measurement: str, mask: np.ndarray | None) -> np.ndarray:
    """Mean pattern in counts, float64 (N, N), bad pixels filled."""
    if measurement not in ("counts", "amplitude"):
        raise DataError(f"measurement: got {measurement!r}; expected 'counts' or 'amplitude'.")
    stack: Any = patterns if hasattr(patterns, "shape") else np.asarray(patterns)
    if len(stack.shape) != 3 or stack.shape[-1] != stack.shape[-2] or 0 in stack.shape:
        raise DataError(f"patterns: got shape {tuple(stack.shape)}; expected (M, N, N).")
    shape = tuple(stack.shape[-2:])
    good = np.ones(shape, dtype=bool) if mask is None else np.asarray(mask)
    if good.shape != shape or good.dtype != bool or not good.any():
        raise DataError(f"mask: got {good.dtype} of shape {good.shape}; expected bool {shape}, True where good.")
    total = np.zeros(shape)
    step = max(1, _CHUNK_PIXELS // total.size)
    for start in range(0, stack.shape[0], step):
        values = np.where(good, np.asarray(stack[start : start + step], dtype=np.float64), 0.0)
        total += (values if measurement == "counts" else values**2).sum(axis=0)
    mean = total / stack.shape[0]
    if not (np.isfinite(mean).all() and (mean >= 0).all() and mean.any()):
        raise DataError("patterns: are dark, negative or not finite on average; expected counts (mask bad pixels).")
    return mean if good.all() else _filled(mean, good)


def _filled(mean: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Bad pixels replaced by the nearest good one."""
    from scipy.ndimage import distance_transform_edt

    rows, cols = distance_transform_edt(~good, return_distances=False, return_indices=True)
    return mean[rows, cols]
