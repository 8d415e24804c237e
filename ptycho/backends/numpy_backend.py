"""NumPy's backend: the reference that every other backend is compared with."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import array_api_compat
import numpy as np

from ptycho.backends.arrays import Array, cached_parts
from ptycho.backends.windows import add_windows, gather_windows
from ptycho.errors import BackendError

__all__ = ["NumpyBackend"]

# Linux's C library hands memory back as soon as twice the largest piece freed so far (of at most 32 MiB) lies idle, and
# the next array is mapped anew, page by page: up to a quarter of a step in numpy and PyTorch. So one is freed now.
np.empty(2**25 - 2**16, dtype=np.uint8)

_COLUMNS = 2**19
"""Values of the neighbourhoods of pixels that a convolution writes out at once: two megabytes."""


class NumpyBackend:
    """The reference backend: everything but gradients, on the host."""

    name = "numpy"
    xp = array_api_compat.array_namespace(np.empty(0))

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> np.ndarray:
        """See :class:`Backend`.

        Raises
        ------
        BackendError
            Another device than the CPU is asked for.
        """
        if device not in (None, "cpu"):
            raise BackendError(
                f"device: {device!r} is not possible with numpy, which computes on the cpu; leave --device out, or "
                "choose --backend pytorch, jax or tensorflow."
            )
        return np.asarray(a, dtype=dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        """See :class:`Backend`."""
        return np.asarray(a)

    def best_device(self) -> Any:
        """See :class:`Backend`."""
        return None

    def gather_windows(self, image: Array, corners: Array, weights: Array, size: int) -> Array:
        """See :class:`Backend`."""
        return gather_windows(image, corners, weights, size)

    def scatter_windows(self, windows: Array, corners: Array, weights: Array, shape: tuple[int, int]) -> Array:
        """See :class:`Backend`."""
        image = np.zeros(shape, dtype=windows.dtype)
        add_windows(image, windows, corners, weights)
        return image

    def conv2d(self, x: Array, kernel: Array, bias: Array) -> Array:
        """See :class:`Backend`."""
        height, width, n_in, n_out = kernel.shape
        rows, cols = (height - 1) // 2, (width - 1) // 2
        padded = np.pad(x, ((0, 0), (rows, height - 1 - rows), (cols, width - 1 - cols), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        around, matrix = np.moveaxis(views, 3, 5), kernel.reshape(-1, n_out)
        step = max(1, min(x.shape[1], _COLUMNS // max(1, x.shape[2] * len(matrix))))
        columns = np.empty((step, x.shape[2], height, width, n_in), dtype=x.dtype)
        found = np.empty((*x.shape[:3], n_out), dtype=np.result_type(x, kernel, bias))
        for each in range(x.shape[0]):
            for first in range(0, x.shape[1], step):
                into = found[each, first : first + step]
                read = columns[: len(into)]
                read[...] = around[each, first : first + step]
                np.matmul(read.reshape(-1, len(matrix)), matrix, out=into.reshape(-1, n_out))
                into += bias
        return found

    def relu(self, x: Array) -> Array:
        """See :class:`Backend`."""
        return np.maximum(x, 0)

    def max_pool2d(self, x: Array) -> Array:
        """See :class:`Backend`."""
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))

    def in_parts(self, f: Callable[[Array], Array], stack: Array) -> Array:
        """See :class:`Backend`; the parts are shared between the processor's cores."""
        parts = cached_parts(stack.shape)
        if len(parts) < 2:
            return f(stack)
        first = f(stack[parts[0]])
        found = np.empty((stack.shape[0], *first.shape[1:]), dtype=first.dtype)
        found[parts[0]] = first

        def fill(part: slice) -> None:
            found[part] = f(stack[part])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fill, parts[1:]))
        return found

    def stop_gradient(self, a: Array) -> Array:
        """See :class:`Backend`."""
        return a

    def value_and_grad(self, f: Callable[..., Array]) -> Callable[..., tuple[Array, Any]]:
        """Numpy has no gradients: raises :class:`~ptycho.errors.BackendError`."""
        raise BackendError(
            "The numpy backend computes no gradients; choose a training backend, for example backend='pytorch' "
            "(pip install ptychopinn[torch])."
        )

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """See :class:`Backend`."""
        return f
