"""A backend for array API libraries that have no shim, on their namespace alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho.backends.arrays import Array, device
from ptycho.backends.numpy_backend import NumpyBackend

__all__ = ["GenericBackend"]


class GenericBackend(NumpyBackend):
    """Window primitives from the standard alone, for namespaces without a shim; convolutions stay with the shims."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.name = xp.__name__.removeprefix("array_api_compat.").split(".")[0]

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> Array:
        """See :class:`~ptycho.backends.Backend`."""
        return self.xp.asarray(a, dtype=None if dtype is None else getattr(self.xp, dtype), device=device)

    def to_numpy(self, a: Array) -> np.ndarray:
        """See :class:`~ptycho.backends.Backend`."""
        return np.asarray(a.get() if hasattr(a, "get") else a)

    def gather_windows(self, image: Array, corners: Array, weights: Array, size: int) -> Array:
        """See :class:`~ptycho.backends.Backend`."""
        xp, count = self.xp, corners.shape[0]
        windows = xp.zeros((count, size, size), dtype=image.dtype, device=device(image))
        for j in range(corners.shape[1]):
            flat = xp.reshape(self._flat_index(corners[:, j, :], size, image.shape[1]), (-1,))
            pixels = xp.reshape(xp.take(xp.reshape(image, (-1,)), flat, axis=0), (count, size, size))
            windows = windows + pixels * weights[:, j][:, None, None]
        return windows

    def scatter_windows(self, windows: Array, corners: Array, weights: Array, shape: tuple[int, int]) -> Array:
        """See :class:`~ptycho.backends.Backend`."""
        size = windows.shape[-1]
        image = self.xp.zeros(shape, dtype=windows.dtype, device=device(windows))
        for k in range(windows.shape[0]):
            for j in range(corners.shape[1]):
                row, col = int(corners[k, j, 0]), int(corners[k, j, 1])
                image[row : row + size, col : col + size] += windows[k, ...] * weights[k, j]
        return image

    def in_parts(self, f: Callable[[Array], Array], stack: Array) -> Array:
        """See :class:`~ptycho.backends.Backend`."""
        return f(stack)

    def _flat_index(self, corners: Array, size: int, width: int) -> Array:
        xp = self.xp
        steps = xp.arange(size, dtype=corners.dtype, device=device(corners))
        first = corners[:, 0] * width + corners[:, 1]
        return first[:, None, None] + steps[None, :, None] * width + steps[None, None, :]
