"""Moving images by fractions of a pixel, without seams at the border or at the edge of what is covered."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["fill_uncovered", "shift_image", "shift_weight", "shifted_with_gradient"]

_MARGIN = 24


def shift_image(image: np.ndarray, shift: Any) -> np.ndarray:
    """The image with its content moved by ``shift`` pixels: whole pixels exactly, fractions by the shift theorem.

    Parameters
    ----------
    image : (H, W) real or complex. It is continued by mirroring and levelled off outside, so that opposite borders do
        not leak into each other. What moves in from outside is the border's value: see :func:`shift_weight`.
    shift : (rows, cols) pixels, of any size.

    Returns
    -------
    (H, W), real stays real; at least single precision.
    """
    image = np.asarray(image)
    dtype = np.result_type(image.dtype, np.float32)
    whole, fraction = _split(shift)
    moved = _shift_whole(image, whole)
    if not np.any(fraction):
        return moved.astype(dtype)
    spectrum, margins = _spectrum(moved)
    shifted = _cropped(spectrum * _kernel(spectrum.shape, fraction), margins, image.shape)
    return (shifted if np.iscomplexobj(image) else shifted.real).astype(dtype)


def shifted_with_gradient(image: np.ndarray, shift: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`shift_image` of a complex image (H, W), and its derivatives along rows and columns, per pixel."""
    whole, fraction = _split(shift)
    spectrum, margins = _spectrum(_shift_whole(np.asarray(image), whole))
    spectrum = spectrum * _kernel(spectrum.shape, fraction)
    rows, cols = (2j * np.pi * _odd_frequencies(n) for n in spectrum.shape)
    return (
        _cropped(spectrum, margins, image.shape),
        _cropped(spectrum * rows[:, None], margins, image.shape),
        _cropped(spectrum * cols[None, :], margins, image.shape),
    )


def shift_weight(weight: np.ndarray, shift: Any) -> np.ndarray:
    """A weight (H, W) moved by ``shift`` pixels, bilinear, 0 outside: never above its largest value, never negative."""
    from scipy import ndimage

    weight = np.asarray(weight, dtype=np.float64)
    if not np.any(np.asarray(shift)):
        return weight
    return ndimage.shift(weight, np.asarray(shift, dtype=np.float64), order=1, mode="constant", cval=0.0)


def fill_uncovered(image: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The image with every uncovered pixel given the value of the covered pixel nearest to it."""
    from scipy import ndimage

    if np.all(covered):
        return image
    rows, cols = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return image[rows, cols]


def _split(shift: Any) -> tuple[np.ndarray, np.ndarray]:
    shift = np.asarray(shift, dtype=np.float64)
    whole = np.round(shift)
    return whole.astype(np.int64), shift - whole


def _shift_whole(image: np.ndarray, whole: np.ndarray) -> np.ndarray:
    rows, cols = (np.clip(np.arange(n) - by, 0, n - 1) for n, by in zip(image.shape, whole, strict=True))
    return image[rows[:, None], cols[None, :]]


def _spectrum(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Fourier transform of the image continued by mirroring, levelled off to its mean at the far end."""
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


def _cropped(spectrum: np.ndarray, margins: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    from scipy import fft

    image = fft.ifft2(spectrum)
    return image[margins[0] : margins[0] + shape[0], margins[1] : margins[1] + shape[1]]


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
