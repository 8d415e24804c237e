"""Phase ramps: planes in the phase of a complex image, found from its spectrum and by least squares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.areas import best_covered_box

__all__ = ["flattening", "normal_equations", "parabolic_peak", "plane", "ramp_factors", "remove_ramp", "spectral_peak"]

_WORTH_TAKING = 1.1
_PLANE_FIT_PIXELS = 2**20
"""Largest number of pixels that a plane is fitted to; above it the image is subsampled."""


def remove_ramp(image: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The image without its global phase and its linear phase ramp, fitted where it is covered; for display.

    Parameters
    ----------
    image : (H, W) complex.
    weight : (H, W) real >= 0 or bool; default 1 everywhere.

    Returns
    -------
    (H, W) complex of the same dtype.

    Raises
    ------
    DataError
        See :func:`flattening`.
    """
    image = np.asarray(image)
    rows, cols = ramp_factors(image, weight)
    kind = np.result_type(image.dtype, np.complex64)
    flat = image * rows.astype(kind)[:, None]
    flat *= cols.astype(kind)
    return flat


def flattening(image: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The factor of modulus 1 that removes an image's global phase and linear phase ramp, (H, W) complex128.

    Parameters
    ----------
    image, weight : as for :func:`ramp_factors`, which needs less memory for the same factor.

    Raises
    ------
    DataError
        See :func:`ramp_factors`.
    """
    rows, cols = ramp_factors(image, weight)
    return rows[:, None] * cols


def ramp_factors(image: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The factors of rows and columns that remove an image's global phase and linear phase ramp.

    The ramp is the plane ``p`` that makes ``|sum w A exp(-i p)|`` large; it is removed only if that sum grows
    by more than a tenth; then a weighted plane is fitted to the remaining phase and removed too. In an image of more
    than 2**20 pixels it is fitted at the centre, and then on every second, third, ... pixel of the whole.

    Parameters
    ----------
    image : (H, W) complex.
    weight : (H, W) real >= 0 or bool; default 1 everywhere.

    Returns
    -------
    (H,) and (W,) complex128 of modulus 1.

    Raises
    ------
    DataError
        The shapes differ, or the image is zero or not finite where it is covered.
    """
    image = np.asarray(image)
    w = np.broadcast_to(True, image.shape) if weight is None else np.asarray(weight)
    if image.ndim != 2 or w.shape != image.shape:
        raise DataError(f"image: got shape {image.shape}, weight {w.shape}; expected (H, W) for both.")
    samples = _Samples(image, w)
    if not np.all(np.isfinite(image) | ~(w > 0)) or not np.any(samples.values):
        raise DataError(
            "image: got NaN, infinity or nothing but zeros where it is covered; expected finite values with a phase."
        )
    steep = samples.steepest(image, w)
    lined_up = [abs(samples.sum_without(0.0, slope)) for slope in (np.zeros(2), steep)]
    slope = steep if lined_up[1] > _WORTH_TAKING * lined_up[0] else np.zeros(2)
    height = float(np.angle(samples.sum_without(0.0, slope)))
    for _ in range(3):
        more = samples.fitted_plane(height, slope)
        height, slope = height + more[0], slope + more[1:]
    rows, cols = (np.arange(n) - n // 2 for n in image.shape)
    return np.exp(-1j * (height + slope[0] * rows)), np.exp(-1j * slope[1] * cols)


class _Samples:
    """Pixels of an image on a grid that contains the central one: all of them, or a subset of a large image.

    Attributes
    ----------
    step : pixels from one to the next.
    rows, cols : their positions, pixels from the centre.
    values, weight : image (complex128, 0 where nothing is covered) and weight (float64) at these pixels.
    """

    def __init__(self, image: np.ndarray, weight: np.ndarray) -> None:
        self.step = max(1, math.ceil(math.sqrt(image.size / _PLANE_FIT_PIXELS)))
        places = [np.arange(n // 2 % self.step, n, self.step) for n in image.shape]
        grid = tuple(slice(n // 2 % self.step, None, self.step) for n in image.shape)
        self.rows, self.cols = (place - n // 2 for place, n in zip(places, image.shape, strict=True))
        self.weight = weight[grid].astype(np.float64)
        self.values = np.where(self.weight > 0, image[grid], 0).astype(np.complex128)

    def without(self, height: float, slope: np.ndarray) -> np.ndarray:
        """The values with a plane subtracted from their phase."""
        return self.values * np.exp(-1j * (height + slope[0] * self.rows))[:, None] * np.exp(-1j * slope[1] * self.cols)

    def sum_without(self, height: float, slope: np.ndarray) -> complex:
        """Their weighted sum."""
        return complex(np.sum(self.weight * self.without(height, slope)))

    def steepest(self, image: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Slope (rows, cols) at which the spectrum is largest, rad per pixel."""
        if self.step == 1:
            return spectral_peak(self.values * self.weight)
        middle = best_covered_box(weight, math.isqrt(_PLANE_FIT_PIXELS))
        covered = weight[middle].astype(np.float64)
        slope = spectral_peak(np.where(covered > 0, image[middle], 0) * covered)
        return slope + spectral_peak(self.without(0.0, slope) * self.weight) / self.step

    def fitted_plane(self, height: float, slope: np.ndarray) -> np.ndarray:
        """Weighted least-squares plane (height, down, right) through the phase that remains after another plane."""
        shape = self.values.shape
        columns = [np.ones(shape), np.broadcast_to(self.rows[:, None], shape), np.broadcast_to(self.cols, shape)]
        phase = np.angle(self.without(height, slope))
        return np.linalg.solve(*normal_equations(columns, phase, self.weight * np.abs(self.values)))


def plane(shape: tuple[int, ...], ramp: Any) -> np.ndarray:
    """A plane of slope ``ramp`` (rows, cols) per pixel that is 0 at the pixel (H//2, W//2)."""
    rows = np.arange(shape[0]) - shape[0] // 2
    cols = np.arange(shape[1]) - shape[1] // 2
    return ramp[0] * rows[:, None] + ramp[1] * cols[None, :]


def spectral_peak(product: np.ndarray) -> np.ndarray:
    """Frequency (rad per pixel) at which the Fourier transform of ``product`` is largest, to a fraction of a bin."""
    shape = tuple(2 * n for n in product.shape)
    spectrum = np.abs(np.fft.fft2(product, s=shape))
    return np.asarray([2 * np.pi * k / n for k, n in zip(parabolic_peak(spectrum), shape, strict=True)])


def parabolic_peak(surface: np.ndarray) -> np.ndarray:
    """Signed index of the largest value of a periodic surface, refined by a parabola along each axis."""
    index = np.unravel_index(int(np.argmax(surface)), surface.shape)
    found = []
    for axis, n in enumerate(surface.shape):
        line = np.take(surface, index[1 - axis], axis=1 - axis)
        below, here, above = (float(line[(index[axis] + step) % n]) for step in (-1, 0, 1))
        curvature = below - 2 * here + above
        offset = 0.5 * (below - above) / curvature if curvature < 0 else 0.0
        k = int(index[axis])
        found.append((k - n if k > n // 2 else k) + offset)
    return np.asarray(found)


def normal_equations(
    columns: list[np.ndarray], residual: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normal matrix (K, K) and right-hand side (K,) of a least-squares fit.

    ``residual`` is fitted by real multiples of the complex ``columns``.
    """
    root = np.sqrt(weight)
    design = [(root * column).ravel() for column in columns]
    target = (root * residual).ravel()
    normal = np.asarray([[np.vdot(a, b).real for b in design] for a in design])
    # columns differ by orders of magnitude (a ramp is per pixel), so the floor is relative to each
    floor = np.maximum(1e-12 * np.diag(normal), np.finfo(float).tiny)
    return normal + np.diag(floor), np.asarray([np.vdot(a, target).real for a in design])
