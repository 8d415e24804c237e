"""Complex test images with structure at all scales, and images moved exactly (they are periodic)."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage


def textured(shape, seed=0, phase=0.4, sigma=1.5):
    """Amplitude around 0.7 and phase of standard deviation ``phase`` rad, both smooth random fields; complex128."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap") for _ in range(2)]
    amplitude, angle = (field / field.std() for field in fields)
    return (0.7 + 0.1 * amplitude) * np.exp(1j * phase * angle)


def rolled(image, shift):
    """The periodic image with its content moved by ``shift`` = (rows, cols) pixels."""
    rows, cols = (np.exp(-2j * np.pi * np.fft.fftfreq(n) * by) for n, by in zip(image.shape, shift, strict=True))
    return np.fft.ifft2(np.fft.fft2(image) * rows[:, None] * cols[None, :])


def ramped(image, ramp, phase=0.0, scale=1.0):
    """The image times ``scale * exp(i (phase + ramp . (r - centre)))``."""
    rows, cols = (np.arange(n) - n // 2 for n in image.shape)
    return image * scale * np.exp(1j * (phase + ramp[0] * rows[:, None] + ramp[1] * cols[None, :]))


def noise(shape, seed):
    """Complex white Gaussian noise of unit power."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


@pytest.fixture(scope="session")
def images():
    """The makers above, as attributes."""
    return SimpleNamespace(textured=textured, rolled=rolled, ramped=ramped, noise=noise)
