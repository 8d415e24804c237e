r"""Registration of complex images: the ambiguities of ptychography are removed before two objects are compared.

A ptychographic object is known up to a shift, a global phase, a linear phase ramp and an amplitude scale (each of them
can be absorbed by the probe or the positions). The model of an aligned estimate is

.. math:: A(r) = s\, e^{i(\varphi + q \cdot (r - r_0))}\, E(r - d), \qquad r_0 = (H // 2, W // 2).

A start is found by phase and cross correlation with an upsampled peak (Guizar-Sicairos, Thurman and Fienup, Opt. Lett.
33, 156 (2008)) and from the peak of the Fourier transform of :math:`E T^*` for the ramp; Levenberg-Marquardt steps on
the weighted squared difference refine it. The result is never worse than leaving the estimate where it is.

Everything here is numpy on the host.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.areas import best_covered_box
from ptycho.evaluation.ramps import normal_equations, parabolic_peak, plane, spectral_peak
from ptycho.evaluation.resampling import Shifter, fill_uncovered, shift_image, shift_weight

__all__ = ["Transform", "coverage", "register"]

_UPSAMPLING = 20
_STEPS = 30
_CONVERGED = 1e-12
_SETTLED = 1e-8
_OUTLIER = 2.0
_LARGEST = 1024
_FARTHEST = 32
_MISFIT_MARGIN = 0.05
"""By how much a second minimum may fit worse before refinement and is still refined: a larger one costs time only."""


@dataclass(frozen=True)
class Transform:
    """The transform that registers an estimate to the truth.

    Attributes
    ----------
    shift : (rows, cols), pixels by which the content moved.
    phase : rad, added at the pixel (H//2, W//2).
    ramp : (rows, cols), rad per pixel, added around that pixel.
    scale : factor on the amplitude.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    phase: float = 0.0
    ramp: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image (H, W) after shift, ramp, phase and scale; complex of the same precision."""
        moved = shift_image(np.asarray(image), self.shift)
        turned = moved * (self.scale * np.exp(1j * (self.phase + plane(moved.shape, self.ramp))))
        return turned.astype(np.result_type(np.asarray(image).dtype, np.complex64), copy=False)

    def apply_to_weight(self, weight: np.ndarray) -> np.ndarray:
        """A coverage weight (H, W) moved by the shift; what comes in from outside has weight 0."""
        return shift_weight(weight, self.shift)


def coverage(weight: np.ndarray, fraction: float = 0.1) -> np.ndarray:
    """The pixels with enough coverage to be evaluated: more than a fraction of the typical weight.

    Parameters
    ----------
    weight : (H, W) real, the summed stitching window.
    fraction : of the 90 % quantile of the positive weights; 0 accepts every pixel of positive weight.

    Returns
    -------
    (H, W) bool.

    Raises
    ------
    DataError
        No pixel is covered.
    """
    weight = np.asarray(weight)
    positive = weight[weight > 0]
    if positive.size == 0:
        raise DataError("weight: got no positive value; expected the coverage of a reconstruction, above 0 somewhere.")
    return weight > fraction * float(np.quantile(positive, 0.9))


def register(
    estimate: np.ndarray,
    truth: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    shift: bool = True,
    phase: bool = True,
    ramp: bool = True,
    scale: bool = True,
    max_shift: float | None = None,
) -> tuple[np.ndarray, Transform]:
    """Register ``estimate`` to ``truth`` by a sub-pixel shift, a phase ramp, a global phase and an amplitude scale.

    Parameters
    ----------
    estimate, truth : (H, W) complex (or real), on the same grid.
    weight : (H, W) real >= 0 or bool, weight of each pixel in the fit; 0 where either image is unknown. Default 1
        everywhere.
    shift, phase, ramp, scale : which ambiguities to remove. ``ramp`` needs ``phase``.
    max_shift : pixels, largest shift considered along an axis; default a quarter of the shorter side.

    Returns
    -------
    aligned : (H, W) complex, the whole estimate transformed; pixels of weight 0 repeat their nearest neighbour.
    transform : the transform. ``transform.apply_to_weight(weight)`` is the coverage of ``aligned``.

    Raises
    ------
    DataError
        Shapes differ, values are not finite, nothing is covered, or an image is zero wherever it is covered.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> image = np.random.default_rng(0).normal(size=(32, 32)) + 2
    >>> aligned, transform = ptycho.register(image * np.exp(0.5j), image)
    >>> bool(np.allclose(aligned, image, atol=1e-3))
    True
    """
    e, t, w = _checked(estimate, truth, weight)
    pair = _Pair(_clipped(fill_uncovered(e, w > 0), w), _clipped(fill_uncovered(t, w > 0), w), w)
    part = _best_covered(pair)
    limit = min(part.truth.shape) / 4 if max_shift is None else float(max_shift)
    ramp = ramp and phase
    starts = _starts(part, limit, shift, ramp)
    fitted = min((_refine(part, start, shift, ramp, limit) for start in starts), key=lambda fit: fit.misfit)
    best = fitted if part is pair else _fit_at(pair, fitted.shift, fitted.ramp)
    transform = Transform(
        shift=(float(best.shift[0]), float(best.shift[1])),
        phase=float(np.angle(best.factor)) if phase else 0.0,
        ramp=(float(best.ramp[0]), float(best.ramp[1])),
        scale=_amplitude_scale(pair, best.shift) if scale else 1.0,
    )
    return transform.apply(fill_uncovered(np.asarray(estimate), w > 0)), transform


class _Pair(NamedTuple):
    """Estimate and truth prepared for the fit (filled, clipped), and the weight of each pixel."""

    estimate: np.ndarray
    truth: np.ndarray
    weight: np.ndarray


class _Fit(NamedTuple):
    """A shift and a ramp, the complex factor that fits best with them, and the remaining misfit (0: none, 1: all)."""

    shift: np.ndarray
    ramp: np.ndarray
    factor: complex
    misfit: float


def _checked(estimate: Any, truth: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    e, t = np.asarray(estimate), np.asarray(truth)
    if e.ndim != 2 or e.shape != t.shape:
        raise DataError(f"estimate: got shape {e.shape}; expected (H, W) like the truth, which has shape {t.shape}.")
    w = np.ones(e.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if w.shape != e.shape or not np.all(np.isfinite(w)) or w.min() < 0 or w.max() <= 0:
        raise DataError(f"weight: got shape {w.shape}; expected {e.shape}, finite, >= 0 and above 0 somewhere.")
    e, t = e.astype(np.complex128), t.astype(np.complex128)
    w = w / w.max()
    for name, image in (("estimate", e), ("truth", t)):
        covered = image[w > 0]
        if not np.all(np.isfinite(covered)):
            raise DataError(f"{name}: got NaN or infinity where it is covered; expected finite values.")
        if not np.any(covered):
            raise DataError(f"{name}: got zero everywhere it is covered; expected an image that can be registered.")
    return e, t, w


def _clipped(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Clip amplitudes far above the rest, so that a few outliers do not dominate the fit."""
    amplitude = np.abs(image)
    limit = _OUTLIER * float(np.quantile(amplitude[weight > 0], 0.98))
    if limit <= 0:
        return image
    return image * (limit / np.maximum(amplitude, limit))


def _best_covered(pair: _Pair) -> _Pair:
    """The part of a very large pair that shift and ramp are fitted to."""
    rows, cols = best_covered_box(pair.weight, _LARGEST)
    part = _Pair(*(image[rows, cols] for image in pair))
    return pair if part.weight.size == pair.weight.size else part


def _common_weight(pair: _Pair, shift: np.ndarray) -> np.ndarray:
    return pair.weight * shift_weight(pair.weight, shift)


def _judged(moved: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[complex, float]:
    """Best complex factor on ``moved``, and the fraction of the truth's power that it does not explain."""
    own, other = np.sum(weight * np.abs(moved) ** 2), np.sum(weight * np.abs(truth) ** 2)
    if own <= 0 or other <= 0:
        return 1.0 + 0.0j, 1.0
    overlap = np.sum(weight * np.conj(moved) * truth)
    return complex(overlap / own), float(max(0.0, 1.0 - abs(overlap) ** 2 / (own * other)))


def _fit_at(pair: _Pair, shift: np.ndarray, ramp: np.ndarray, shifter: Shifter | None = None) -> _Fit:
    moved = (shifter or Shifter(pair.estimate, shift)).moved(shift) * np.exp(1j * plane(pair.estimate.shape, ramp))
    factor, misfit = _judged(moved, pair.truth, _common_weight(pair, shift))
    return _Fit(shift, ramp, factor, misfit)


def _starts(pair: _Pair, limit: float, shift: bool, ramp: bool) -> list[_Fit]:
    """The two best starting points that are not neighbours of each other, the best first; or the identity."""
    nothing = np.zeros(2)
    fits = [_fit_at(pair, nothing, nothing)]
    if not (shift or ramp):
        return fits
    ramps = [nothing]
    if ramp:
        ramps += [spectral_peak(pair.weight * pair.truth * np.conj(pair.estimate)), _spectral_offset(pair)]
    shape = pair.estimate.shape
    for first, normalised in itertools.product(ramps, (True, False) if shift else (False,)):
        turned = pair.estimate * np.exp(1j * plane(shape, first))
        moved_by = _correlation_peak(turned, pair.truth, pair.weight, limit, normalised) if shift else nothing
        fits.append(_fit_at(pair, moved_by, first))
        if ramp:
            moved = shift_image(pair.estimate, moved_by)
            left = spectral_peak(_common_weight(pair, moved_by) * pair.truth * np.conj(moved))
            fits.append(_fit_at(pair, moved_by, left))
    fits.sort(key=lambda fit: fit.misfit)
    apart = [
        fit for fit in fits[1:] if not _near(fits[0], fit, shape) and fit.misfit < 2 * fits[0].misfit + _MISFIT_MARGIN
    ]
    return [fits[0], *apart[:1]]


def _near(one: _Fit, other: _Fit, shape: tuple[int, ...]) -> bool:
    """Whether two fits belong to one minimum: within half a pixel, and a quarter turn of phase across the image."""
    turn = np.abs(one.ramp - other.ramp) * np.asarray(shape)
    return bool(np.all(np.abs(one.shift - other.shift) < 0.5) and np.all(turn < np.pi / 2))


def _spectral_offset(pair: _Pair) -> np.ndarray:
    """Ramp from the shift between the magnitudes of the two spectra, which do not depend on the objects' positions."""
    window = _hann(pair.weight.shape) * pair.weight
    ours, theirs = (np.abs(np.fft.fft2(window * image)) for image in (pair.estimate, pair.truth))
    correlation = np.abs(np.fft.ifft2(np.fft.fft2(theirs) * np.conj(np.fft.fft2(ours))))
    peak = parabolic_peak(correlation)
    return np.asarray([2 * np.pi * k / n for k, n in zip(peak, correlation.shape, strict=True)])


def _hann(shape: tuple[int, ...]) -> np.ndarray:
    rows, cols = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape)
    return rows[:, None] * cols[None, :]


def _correlation_peak(
    estimate: np.ndarray, truth: np.ndarray, weight: np.ndarray, limit: float, normalised: bool
) -> np.ndarray:
    """Shift of the estimate that makes its correlation with the truth largest, to 1/20 pixel."""
    window = _hann(weight.shape) * weight
    total = np.sum(window)
    ours, theirs = (np.fft.fft2(window * (i - np.sum(window * i) / total)) for i in (estimate, truth))
    spectrum = theirs * np.conj(ours)
    if normalised:
        size = np.abs(spectrum)
        strong = size > max(1e-6 * float(size.max()), 1e-200)
        spectrum = np.divide(spectrum, size, out=np.zeros_like(spectrum), where=strong)
    surface = np.abs(np.fft.ifft2(spectrum))
    offsets = [np.fft.fftfreq(n, 1 / n) for n in surface.shape]
    allowed = (np.abs(offsets[0])[:, None] <= limit) & (np.abs(offsets[1])[None, :] <= limit)
    index = np.unravel_index(int(np.argmax(np.where(allowed, surface, -1.0))), surface.shape)
    coarse = np.asarray([offsets[axis][index[axis]] for axis in (0, 1)])
    return _upsampled_peak(spectrum, coarse)


def _upsampled_peak(spectrum: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Peak of the inverse transform near ``coarse``, evaluated on a grid of 1/20 pixel by matrix products."""
    steps = np.arange(-_UPSAMPLING, _UPSAMPLING + 1) / _UPSAMPLING
    rows, cols = (
        np.exp(2j * np.pi * np.outer(coarse[axis] + steps, np.fft.fftfreq(n))) for axis, n in enumerate(spectrum.shape)
    )
    surface = np.abs(rows @ spectrum @ cols.T)
    row, col = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return coarse + np.asarray([steps[row], steps[col]])


def _refine(pair: _Pair, start: _Fit, shift: bool, ramp: bool, limit: float) -> _Fit:
    """Levenberg-Marquardt on shift, ramp and complex factor; only steps that lower the misfit are taken."""
    if not (shift or ramp) or start.misfit < _CONVERGED:
        return start
    rows, cols = plane(pair.truth.shape, (1, 0)), plane(pair.truth.shape, (0, 1))
    # one shifter, so that the misfit stays smooth where a shift passes half a pixel
    best, damping, shifter = start, 1e-3, Shifter(pair.estimate, start.shift)
    for _ in range(_STEPS):
        weight = _common_weight(pair, best.shift)
        turn = best.factor * np.exp(1j * plane(weight.shape, best.ramp))
        model = shifter.moved(best.shift) * turn
        columns = [model, 1j * model]
        columns += [-slope * turn for slope in shifter.gradient(best.shift)] if shift else []
        columns += [1j * rows * model, 1j * cols * model] if ramp else []
        normal, gradient = normal_equations(columns, pair.truth - model, weight)
        trial = best
        while damping < 1e4 and trial is best:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)[2:]
            trial = _line_search(pair, best, step if shift else np.concatenate([np.zeros(2), step]), shifter, limit)
            damping = damping * 10 if trial is best else damping / 10
        gain, best = best.misfit - trial.misfit, trial
        if gain < _CONVERGED + _SETTLED * best.misfit:
            break
    return best


def _line_search(pair: _Pair, best: _Fit, step: np.ndarray, shifter: Shifter, limit: float) -> _Fit:
    """The best of ``best`` and of one, two, four times ... the step, doubled while the misfit falls.

    Noise in the estimate makes its gradients, and so the curvature, larger than the truth's; the steps are then too
    short by a constant factor, which the doubling finds.
    """
    ramp = step[2:] if step.size == 4 else np.zeros(2)
    found, times = best, 1.0
    while times <= _FARTHEST:
        trial = _fit_at(pair, best.shift + times * step[:2], best.ramp + times * ramp, shifter)
        if trial.misfit >= found.misfit or np.any(np.abs(trial.shift) > limit + 1):
            break
        found, times = trial, 2 * times
    return found


def _amplitude_scale(pair: _Pair, shift: np.ndarray) -> float:
    """Least-squares factor between the amplitudes; unlike the complex one it is not shrunk by wrong phases."""
    weight = _common_weight(pair, shift)
    ours, theirs = np.abs(shift_image(pair.estimate, shift)), np.abs(pair.truth)
    return float(np.sum(weight * ours * theirs) / np.sum(weight * ours**2))
