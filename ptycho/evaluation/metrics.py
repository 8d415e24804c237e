r"""Metrics of the difference between two images, and between predicted and measured patterns.

Numpy arrays only. Images are real (an amplitude, a phase) and already registered
(:mod:`ptycho.evaluation.registration`); each metric that depends on a data range documents which one it uses.
"""

from __future__ import annotations

import numpy as np

from ptycho.errors import DataError

__all__ = ["fourier_r_factor", "mae", "mse", "optimal_scale", "psnr", "ssim"]

_SSIM_WINDOW = 7


def mae(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute difference of two real images (H, W) where ``mask`` is true; in the images' unit."""
    e, t, m = _pair(estimate, truth, mask)
    return float(np.mean(np.abs(e[m] - t[m])))


def mse(estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared difference of two real images (H, W) where ``mask`` is true; in the images' unit squared."""
    e, t, m = _pair(estimate, truth, mask)
    return float(np.mean((e[m] - t[m]) ** 2))


def psnr(
    estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, *, data_range: float | None = None
) -> float:
    """Peak signal-to-noise ratio ``10 log10(data_range^2 / mse)`` in dB; infinite for identical images.

    Parameters
    ----------
    estimate, truth : (H, W) real.
    mask : (H, W) bool, where to look; default everywhere.
    data_range : default the truth's maximum minus its minimum inside the mask.

    Raises
    ------
    DataError
        Shapes differ, the mask is empty, values are not finite, or the truth is constant and no range is given.
    """
    from skimage.metrics import peak_signal_noise_ratio

    e, t, m = _pair(estimate, truth, mask)
    span = _range_of(t[m], data_range)
    if np.array_equal(e[m], t[m]):
        return float("inf")
    return float(peak_signal_noise_ratio(t[m], e[m], data_range=span))


def ssim(
    estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None, *, data_range: float | None = None
) -> float:
    """Structural similarity (Wang et al., IEEE Trans. Image Process. 13, 600 (2004)) with scikit-image's 7 x 7 window.

    Only windows that lie inside the mask (and the image) count, so nothing outside changes the value.

    Parameters
    ----------
    estimate, truth : (H, W) real, 7 pixels or more on a side.
    mask : (H, W) bool, where to look; default everywhere.
    data_range : default the truth's maximum minus its minimum inside the mask.

    Raises
    ------
    DataError
        As in :func:`psnr`, or no 7 x 7 window fits inside the mask.
    """
    from scipy import ndimage
    from skimage.metrics import structural_similarity

    e, t, m = _pair(estimate, truth, mask)
    span = _range_of(t[m], data_range)
    whole = ndimage.binary_erosion(m, np.ones((_SSIM_WINDOW, _SSIM_WINDOW)), border_value=0)
    if not whole.any():
        raise DataError(f"mask: no window of {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels fits; expected a larger area.")
    neutral = float(np.mean(t[m]))
    e, t = np.where(m, e, neutral), np.where(m, t, neutral)
    _, similarity = structural_similarity(e, t, win_size=_SSIM_WINDOW, data_range=span, full=True)
    return float(np.mean(similarity[whole]))


def optimal_scale(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The factor s that makes ``sum (s * predicted - measured)^2`` smallest; 0 where nothing is predicted.

    Parameters
    ----------
    predicted, measured : (..., N, N) real amplitudes.
    mask : (N, N) or (..., N, N) bool, True where a pixel is good.
    """
    a, m = _amplitudes(predicted, measured, mask)
    power = float(np.sum(a * a))
    return float(np.sum(a * m)) / power if power > 0 else 0.0


def fourier_r_factor(
    predicted_amplitude: np.ndarray,
    measured_amplitude: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    scale: float | None = None,
) -> float:
    r"""Fourier R-factor :math:`R = \sum |s A - \sqrt I| \,/ \sum \sqrt I` over good pixels of all patterns.

    ``s`` is one global scale, the least-squares :func:`optimal_scale`: the usual choice. It does not
    minimise R itself, so this value is an upper bound of the smallest possible R.

    Parameters
    ----------
    predicted_amplitude, measured_amplitude : (..., N, N) real, A and sqrt(I).
    mask : (N, N) or (..., N, N) bool, True where a pixel is good.
    scale : the value of s; default the least-squares one.

    Returns
    -------
    float
        0 for a perfect prediction; 1 is the value of predicting no light at all.

    Raises
    ------
    DataError
        Shapes differ, values are not finite, or nothing was measured on the good pixels.
    """
    a, m = _amplitudes(predicted_amplitude, measured_amplitude, mask)
    total = float(np.sum(m))
    if total <= 0:
        raise DataError("measured_amplitude: got no light on the good pixels; expected a positive sum.")
    s = optimal_scale(predicted_amplitude, measured_amplitude, mask) if scale is None else scale
    return float(np.sum(np.abs(s * a - m))) / total


def _amplitudes(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Good pixels of both, flat, in double precision (counts summed over millions of pixels need it)."""
    a, m = np.asarray(predicted), np.asarray(measured)
    if a.shape != m.shape or a.ndim < 2:
        raise DataError(f"predicted: got shape {a.shape}; expected (..., N, N) like the measured, {m.shape}.")
    if mask is not None:
        good = np.asarray(mask, dtype=bool)
        if good.shape not in (a.shape, a.shape[-2:]):
            raise DataError(f"mask: got shape {good.shape}; expected {a.shape[-2:]} or {a.shape}.")
        good = np.broadcast_to(good, a.shape)
        a, m = a[good], m[good]
    a, m = a.astype(np.float64), m.astype(np.float64)
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(m))):
        raise DataError("amplitudes: got NaN or infinity on good pixels; mask them or repair the data.")
    return a, m


def _pair(
    estimate: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    e, t = np.asarray(estimate), np.asarray(truth)
    if e.shape != t.shape or e.ndim != 2 or np.iscomplexobj(e) or np.iscomplexobj(t):
        raise DataError(f"images: got {e.dtype} {e.shape} and {t.dtype} {t.shape}; expected two real (H, W) alike.")
    m = np.ones(e.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if m.shape != e.shape or not m.any():
        raise DataError(f"mask: got shape {m.shape} with {int(m.sum())} pixels; expected {e.shape} and some true.")
    e, t = e.astype(np.float64), t.astype(np.float64)
    if not (np.all(np.isfinite(e[m])) and np.all(np.isfinite(t[m]))):
        raise DataError("images: got NaN or infinity inside the mask; expected finite values.")
    return e, t, m


def _range_of(values: np.ndarray, data_range: float | None) -> float:
    span = float(values.max() - values.min()) if data_range is None else float(data_range)
    if not span > 0:
        raise DataError(f"data_range: got {span}; expected a positive range (the truth is constant: state one).")
    return span
