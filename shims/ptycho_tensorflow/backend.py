"""The primitives that the array API standard lacks, in TensorFlow; each works eager, in ``tf.function`` and in XLA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho.errors import BackendError
from ptycho_tensorflow import namespace

__all__ = ["TensorflowBackend", "find_devices"]


class TensorflowBackend:
    """See :class:`ptycho.backend.Backend`."""

    name = "tensorflow"
    xp: Any = namespace

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`; a tensor keeps its place in the graph."""
        if isinstance(device, str) and not device.startswith("/"):
            (device,) = find_devices(device)
        host = a if tf.is_tensor(a) else np.asarray(a)
        return namespace.asarray(host, dtype=None if dtype is None else tf.as_dtype(dtype), device=device)

    def to_numpy(self, a: tf.Tensor) -> np.ndarray:
        """See :class:`~ptycho.backend.Backend`."""
        return (tf.cast(a, tf.float32) if a.dtype == tf.bfloat16 else a).numpy()

    def best_device(self) -> Any:
        """The first GPU where there is one; else the CPU."""
        return find_devices()[0]

    def gather_windows(self, image: tf.Tensor, corners: tf.Tensor, size: int) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`; its gradient is the scatter."""
        shape = tuple(image.shape)

        @tf.custom_gradient
        def gathered(pixels: tf.Tensor) -> Any:
            windows = tf.gather(tf.reshape(pixels, [-1]), _flat_index(corners, size, shape[1]))
            return windows, lambda upstream: self.scatter_windows(upstream, corners, shape)

        return gathered(image)

    def scatter_windows(self, windows: tf.Tensor, corners: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`; one segment a pixel, and its gradient is the gather."""
        size = windows.shape[-1]

        @tf.custom_gradient
        def scattered(values: tf.Tensor) -> Any:
            index = _flat_index(corners, size, shape[1])
            image = tf.math.unsorted_segment_sum(values, index, shape[0] * shape[1])
            return tf.reshape(image, shape), lambda upstream: self.gather_windows(upstream, corners, size)

        return scattered(windows)

    def conv2d(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`; computed in the kernel's precision."""
        return tf.nn.bias_add(tf.nn.conv2d(tf.cast(x, kernel.dtype), kernel, strides=1, padding="SAME"), bias)

    def relu(self, x: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return tf.nn.relu(x)

    def max_pool2d(self, x: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`; the gradient goes to the first of equal values, and NaN loses."""
        return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")

    def upsample2d(self, x: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        batch, height, width, channels = x.shape
        pairs = tf.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
        return tf.reshape(pairs, (batch, 2 * height, 2 * width, channels))

    def stop_gradient(self, a: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return tf.stop_gradient(a)

    def value_and_grad(self, f: Callable[..., tf.Tensor]) -> Callable[..., tuple[tf.Tensor, Any]]:
        """See :class:`~ptycho.backend.Backend`."""

        def evaluated(first: Any, *rest: Any) -> tuple[tf.Tensor, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(first)
                value = f(first, *rest)
            return value, tape.gradient(value, first, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return evaluated

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """See :class:`~ptycho.backend.Backend`; a graph without XLA, whose convolutions are slower than TensorFlow's.

        A partial, since TensorFlow counts the tracings of a function by its code, and warns of many in one process.
        """
        return tf.function(functools.partial(f), autograph=False)


def find_devices(name: str = "auto", count: int = 1) -> list[str]:
    """TensorFlow's names of the devices that a user asks for.

    Parameters
    ----------
    name : ``cpu``, ``gpu`` or ``cuda``, with a number (``cuda:1``) that very device; ``auto`` is a GPU if there is one.
    count : how many, where ``name`` has no number.

    Raises
    ------
    BackendError
        There is no such device here, or there are not as many.
    """
    kind, _, number = name.partition(":")
    wanted = {"cuda": "GPU", "auto": "GPU" if tf.config.list_physical_devices("GPU") else "CPU"}.get(kind, kind.upper())
    there = [device.name for device in tf.config.list_logical_devices(wanted)]
    found = there[int(number) : int(number) + 1] if number.isdigit() else there[:count]
    if len(found) < (1 if number else count):
        raise BackendError(
            f"device: {name!r} asks for {f'number {number}' if number else count} and TensorFlow sees {len(there)} "
            f"{wanted} device(s) here; choose --device cpu, or another number of devices."
        )
    return found


def _flat_index(corners: tf.Tensor, size: int, width: int) -> tf.Tensor:
    """(K, n, n) number of each pixel of a window in the flat image."""
    steps = tf.range(size, dtype=corners.dtype)
    first = corners[:, 0] * width + corners[:, 1]
    return first[:, None, None] + steps[:, None] * width + steps
