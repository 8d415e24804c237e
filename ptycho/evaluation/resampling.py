"""Moving images by fractions of a pixel, without seams at the border or at the edge of what is covered."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Shifter", "fill_uncovered", "shift_image", "shift_weight"]

_MARGIN = 24


class Shifter:
    """An image ready to be moved by many shifts near one: its spectrum is computed once.

    Parameters
    ----------
    image : (H, W) complex or real. Outside it is continued by reflection and tapered to its mean, so that opposite
        borders do not leak into each other.
    around : (rows, cols) pixels. Rounded to whole pixels, this part of every shift is exact; the rest uses the Fourier
        shift theorem. Pixels that move in from outside get the value of the border: see :func:`shift_weight`.
    """

    def __init__(self, image: np.ndarray, around: Any = (0.0, 0.0)) -> None:
        self._whole = np.round(np.asarray(around, dtype=np.float64)).astype(np.int64)
        self._still = _shift_whole(image, self._whole)
        self._spectrum: np.ndarray | None = None
        self._margins = (0, 0)

    def moved(self, shift: Any) -> np.ndarray:
        """The image (H, W) moved by ``shift`` (rows, cols) pixels; complex unless the shift is whole pixels."""
        fraction = self._fraction(shift)
        return self._back(self._turned(fraction)) if np.any(fraction) else self._still

    def gradient(self, shift: Any) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the moved image along rows and columns, per pixel, (H, W) complex each."""
        spectrum = self._turned(self._fraction(shift))
        rows, cols = (2j * np.pi * _odd_frequencies(n) for n in spectrum.shape)
        return self._back(spectrum * rows[:, None]), self._back(spectrum * cols[None, :])

    def _fraction(self, shift: Any) -> np.ndarray:
        return np.asarray(shift, dtype=np.float64) - self._whole

    def _turned(self, fraction: np.ndarray) -> np.ndarray:
        if self._spectrum is None:
            self._spectrum, self._margins = _spectrum(self._still)
        return self._spectrum * _kernel(self._spectrum.shape, fraction)

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        from scipy import fft

        (top, left), (height, width) = self._margins, self._still.shape
        return fft.ifft2(spectrum)[top : top + height, left : left + width]


def shift_image(image: np.ndarray, shift: Any) -> np.ndarray:
    """The image with its content moved by ``shift`` pixels: whole pixels exactly, fractions by the shift theorem.

    Parameters
    ----------
    image : (H, W) real or complex; see :class:`Shifter` for what happens at the border.
    shift : (rows, cols) pixels, of any size.

    Returns
    -------
    (H, W), real stays real; at least single precision.
    """
    image = np.asarray(image)
    moved = Shifter(image, shift).moved(shift)
    return (moved if np.iscomplexobj(image) else moved.real).astype(np.result_type(image.dtype, np.float32))


def shift_weight(weight: np.ndarray, shift: Any) -> np.ndarray:
    """A weight (H, W) moved by ``shift`` pixels, bilinear, 0 outside: never above its largest value, never negative."""
    from scipy import ndimage

    weight = np.asarray(weight, dtype=np.float64)
    if not np.any(np.asarray(shift)):
        return weight
    return ndimage.shift(weight, np.asarray(shift, dtype=np.float64), order=1, mode="constant", cval=0.0)


def fill_uncovered(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The image with every uncovered pixel set to the value of the nearest covered pixel."""
    from scipy import ndimage

    if np.all(covered):
        return image
    rows, cols = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return image[rows, cols]


def _shift_whole(image: np.ndarray, whole: np.ndarray) -> np.ndarray:
    rows, cols = (np.clip(np.arange(n) - by, 0, n - 1) for n, by in zip(image.shape, whole, strict=True))
    return image[rows[:, None], cols[None, :]]


def _spectrum(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Fourier transform of the image continued by reflection and tapered to its mean at the far end."""
    from scipy import fft

    sides = [fft.next_fast_len(n + 2 * _MARGIN) for n in image.shape]
    before = ((sides[0] - image.shape[0]) // 2, (sides[1] - image.shape[1]) // 2)
    pads = [(b, side - n - b) for b, side, n in zip(before, sides, image.shape, strict=True)]
    mean = image.mean()
    padded = np.pad(image - mean, pads, mode="symmetric")
    tapers = [
        np.concatenate([_rise(first), np.ones(n), _rise(last)[::-1]])
        for (first, last), n in zip(pads, image.shape, strict=True)
    ]
    padded = padded * tapers[0][:, None] * tapers[1][None, :] + mean
    return fft.fft2(padded.astype(np.complex128)), before


def _rise(n: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def _kernel(shape: tuple[int, ...], fraction: np.ndarray) -> np.ndarray:
    """Transfer function of a fractional shift; real at the Nyquist frequency, so that real images stay real."""
    factors = []
    for n, by in zip(shape, fraction, strict=True):
        factor = np.exp(-2j * np.pi * np.fft.fftfreq(n) * by)
        if n % 2 == 0:
            factor[n // 2] = np.cos(np.pi * by)
        factors.append(factor)
    return factors[0][:, None] * factors[1][None, :]


def _odd_frequencies(n: int) -> np.ndarray:
    """Frequencies in cycles per pixel for a derivative: the Nyquist frequency of an even length has none."""
    frequencies = np.fft.fftfreq(n)
    if n % 2 == 0:
        frequencies[n // 2] = 0.0
    return frequencies
