"""Phase ramps: planes in the phase of a complex image, found from its spectrum and by least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho.errors import DataError

__all__ = ["flattening", "normal_equations", "parabolic_peak", "plane", "remove_ramp", "spectral_peak"]

_WORTH_TAKING = 1.1


def remove_ramp(image: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The image without its global phase and linear phase ramp, judged where it is covered; for looking at the phase.

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
    return (image * flattening(image, weight)).astype(image.dtype, copy=False)


def flattening(image: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The factor of modulus 1 that takes the global phase and the linear phase ramp off an image.

    The ramp is the plane ``p`` that makes ``|sum w A exp(-i p)|`` large; it is taken only if that sum grows by more
    than a tenth, and a weighted plane fitted to the remaining phase is taken after it.

    Parameters
    ----------
    image : (H, W) complex.
    weight : (H, W) real >= 0 or bool; default 1 everywhere.

    Returns
    -------
    (H, W) complex128.

    Raises
    ------
    DataError
        The shapes differ, or the image is zero or not finite where it is covered.
    """
    image = np.asarray(image)
    w = np.ones(image.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if image.ndim != 2 or w.shape != image.shape:
        raise DataError(f"image: got shape {image.shape}, weight {w.shape}; expected (H, W) for both.")
    e = np.where(w > 0, image, 0).astype(np.complex128)
    if not np.all(np.isfinite(e)) or not np.any(e):
        raise DataError(
            "image: got NaN, infinity or nothing but zeros where it is covered; expected a phase to flatten."
        )
    steep = spectral_peak(e * w)
    lined_up = [abs(np.sum(w * e * np.exp(-1j * plane(e.shape, ramp)))) for ramp in (np.zeros(2), steep)]
    height = plane(e.shape, steep if lined_up[1] > _WORTH_TAKING * lined_up[0] else np.zeros(2))
    height = height + np.angle(np.sum(w * e * np.exp(-1j * height)))
    for _ in range(3):
        height = height + _fitted_plane(np.angle(e * np.exp(-1j * height)), w * np.abs(e))
    return np.exp(-1j * height)


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
    """Normal matrix (K, K) and right side (K,) of fitting ``residual`` by real multiples of complex ``columns``."""
    root = np.sqrt(weight)
    design = [(root * column).ravel() for column in columns]
    target = (root * residual).ravel()
    normal = np.asarray([[np.vdot(a, b).real for b in design] for a in design])
    # columns differ by orders of magnitude (a ramp is per pixel), so the floor is relative to each
    floor = np.maximum(1e-12 * np.diag(normal), np.finfo(float).tiny)
    return normal + np.diag(floor), np.asarray([np.vdot(a, target).real for a in design])


def _fitted_plane(phase: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted least-squares plane through a phase image."""
    columns = [np.ones(phase.shape), plane(phase.shape, (1.0, 0.0)), plane(phase.shape, (0.0, 1.0))]
    height, down, right = np.linalg.solve(*normal_equations(columns, phase, weight))
    return height + down * columns[1] + right * columns[2]
