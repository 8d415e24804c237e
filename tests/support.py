"""What many tests share: a comparison that checks namespace, dtype and values, and a scan simulated in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from ptycho.data import Scan


def tolerance(dtype: Any) -> float:
    """Rounding that a chain of sums and transforms may show, relative to the largest value: eps^(3/4)."""
    name = str(dtype).split(".")[-1].strip("'>")
    wide = name in ("float64", "complex128", "int64")
    return float(np.finfo(np.float64 if wide else np.float32).eps) ** 0.75


def as_numpy(array: Any) -> np.ndarray:
    """Host copy of an array of any framework."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().resolve_conj()
    return np.asarray(array)


def assert_close(actual: Any, desired: Any, *, rtol: float | None = None, atol: float = 0.0) -> None:
    """Assert the same namespace, shape, dtype and, to rounding, values.

    The largest error may be `rtol` times the largest desired value, plus `atol`; without `rtol` it is the tolerance of
    the dtype. A Python number is compared by value alone.
    """
    assert is_array_api_obj(actual), f"{type(actual)} is not an array"
    if is_array_api_obj(desired):
        assert array_namespace(actual) is array_namespace(desired), f"{type(actual)} instead of {type(desired)}"
        assert actual.dtype == desired.dtype, f"dtype {actual.dtype} instead of {desired.dtype}"
        assert tuple(actual.shape) == tuple(desired.shape), f"shape {actual.shape} instead of {desired.shape}"
    rtol = tolerance(actual.dtype) if rtol is None else rtol
    actual, desired = as_numpy(actual), as_numpy(desired)
    assert np.isfinite(actual).all() == np.isfinite(desired).all(), "not finite"
    if desired.size:
        error, allowed = float(np.abs(actual - desired).max()), rtol * float(np.abs(desired).max()) + atol
        assert error <= allowed, f"largest error {error:.3g}, allowed {allowed:.3g}"


def simulated_scan(M: int = 30, N: int = 16, *, photons: float = 1e4, modes: int = 1, seed: int = 0) -> Scan:
    """A small scan with Poisson counts, made without the library's physics at whole-pixel positions."""
    rng = np.random.default_rng(seed)
    side = 3 * N
    phase = np.cumsum(np.cumsum(rng.normal(size=(side, side)), 0), 1) / side
    image = (0.7 + 0.3 * np.cos(phase)) * np.exp(1j * np.sin(phase))
    x = np.arange(N) - N // 2
    envelope = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * (N / 6) ** 2))
    probe = np.stack([envelope * (x[:, None] / N) ** k * np.exp(1j * k) for k in range(modes)])
    corners = rng.integers(0, side - N + 1, size=(M, 2))
    patches = np.stack([image[r : r + N, c : c + N] for r, c in corners])
    waves = np.fft.fftshift(np.fft.fft2(patches[:, None] * probe, norm="ortho"), axes=(-2, -1))
    intensity = (np.abs(waves) ** 2).sum(axis=1)
    scale = photons / intensity.sum(axis=(1, 2)).mean()
    return Scan(
        patterns=rng.poisson(intensity * scale).astype(np.uint16),
        measurement="counts",
        positions=corners + N // 2,
        probe=(probe * np.sqrt(scale)).astype(np.complex64),
        object=image.astype(np.complex64),
        wavelength=1e-10,
        distance=1.0,
        detector_pixel_size=75e-6,
        name="simulated",
    )
