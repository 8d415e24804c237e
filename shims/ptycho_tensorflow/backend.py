"""The primitives that the array API standard lacks, in TensorFlow; each works eager, in ``tf.function`` and in XLA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from ptycho.backends import cached_parts
from ptycho.errors import BackendError
from ptycho_tensorflow import namespace

__all__ = ["TensorflowBackend", "find_devices"]

_MANY = 2**20
"""Pixels of windows from which XLA's loops over them pay."""
_PART_LIMIT = 128
"""Into how many parts a graph divides a stack at most."""


class TensorflowBackend:
    """See :class:`ptycho.backends.Backend`."""

    name = "tensorflow"
    xp: Any = namespace

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; a tensor keeps its place in the graph."""
        if isinstance(device, str) and not device.startswith("/"):
            (device,) = find_devices(device)
        host = a if tf.is_tensor(a) else np.asarray(a)
        return namespace.asarray(host, dtype=None if dtype is None else tf.as_dtype(dtype), device=device)

    def to_numpy(self, a: tf.Tensor) -> np.ndarray:
        """See :class:`~ptycho.backends.Backend`."""
        return (tf.cast(a, tf.float32) if a.dtype == tf.bfloat16 else a).numpy()

    def best_device(self) -> Any:
        """The first GPU where there is one; else the CPU."""
        return find_devices()[0]

    def gather_windows(self, image: tf.Tensor, corners: tf.Tensor, weights: tf.Tensor, size: int) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; its gradient by the image is the scatter."""
        shape = tuple(image.shape)

        @tf.custom_gradient
        def gathered(pixels: tf.Tensor, shares: tf.Tensor) -> Any:
            def slopes(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                by_pixels = self.scatter_windows(upstream, corners, shares, shape)
                return by_pixels, self._overlaps(pixels, upstream, corners)

            work = _gather_looped if _loops_pay(corners, size) else _gather
            return work(tf.stop_gradient(pixels), corners, tf.stop_gradient(shares), size), slopes

        return gathered(image, weights)

    def scatter_windows(
        self, windows: tf.Tensor, corners: tf.Tensor, weights: tf.Tensor, shape: tuple[int, int]
    ) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; its gradient by the windows is the gather."""
        size = windows.shape[-1]

        @tf.custom_gradient
        def scattered(values: tf.Tensor, shares: tf.Tensor) -> Any:
            def slopes(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                by_values = self.gather_windows(upstream, corners, shares, size)
                return by_values, self._overlaps(upstream, values, corners)

            work = _scatter_looped if _loops_pay(corners, size) else _scatter
            return work(tf.stop_gradient(values), corners, tf.stop_gradient(shares), tuple(shape)), slopes

        return scattered(windows, weights)

    def _overlaps(self, image: tf.Tensor, windows: tf.Tensor, corners: tf.Tensor) -> tf.Tensor:
        """(K, J) real scalar product of each window with the image at each of its places: the gradient by weights."""
        one = tf.ones_like(corners[:, :1, 0], dtype=tf.math.real(windows).dtype)
        size = windows.shape[-1]
        there = [self.gather_windows(image, corners[:, j : j + 1], one, size) for j in range(corners.shape[1])]
        sums = [tf.reduce_sum(tf.math.real(tf.math.conj(part) * windows), axis=(1, 2)) for part in there]
        return tf.stack(sums, axis=-1)

    def conv2d(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; computed in the kernel's precision."""
        return tf.nn.bias_add(tf.nn.conv2d(tf.cast(x, kernel.dtype), kernel, strides=1, padding="SAME"), bias)

    def relu(self, x: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return tf.nn.relu(x)

    def max_pool2d(self, x: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; the gradient goes to the first of equal values, and NaN loses."""
        return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")

    def in_parts(self, f: Callable[[tf.Tensor], tf.Tensor], stack: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`; in a graph on a CPU, whose cache holds a part, else at once."""
        if not tf.is_symbolic_tensor(stack) or stack.shape[0] is None or tf.config.list_physical_devices("GPU"):
            return f(stack)
        parts = cached_parts(tuple(stack.shape), _PART_LIMIT)
        return f(stack) if len(parts) < 2 else tf.concat([f(stack[part]) for part in parts], 0)

    def stop_gradient(self, a: tf.Tensor) -> tf.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return tf.stop_gradient(a)

    def value_and_grad(self, f: Callable[..., tf.Tensor]) -> Callable[..., tuple[tf.Tensor, Any]]:
        """See :class:`~ptycho.backends.Backend`."""

        def evaluated(first: Any, *rest: Any) -> tuple[tf.Tensor, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(first)
                value = f(first, *rest)
            return value, tape.gradient(value, first, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return evaluated

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """See :class:`~ptycho.backends.Backend`; a graph without XLA, whose convolutions are slower than TensorFlow's.

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


def _loops_pay(corners: tf.Tensor, size: int) -> bool:
    """Whether the windows are many enough for XLA's loops, which take 0.3 s to compile and are a CPU's fastest."""
    count = corners.shape[0]
    return count is not None and count * size * size >= _MANY and not tf.config.list_physical_devices("GPU")


def _share(shares: tf.Tensor, j: int, dtype: tf.DType) -> tf.Tensor:
    """(K, 1, 1); in two steps, since TensorFlow's graph optimiser loses the new axes of one."""
    return tf.cast(tf.reshape(shares[:, j], (-1, 1, 1)), dtype)


def _gather(pixels: tf.Tensor, corners: tf.Tensor, shares: tf.Tensor, size: int) -> tf.Tensor:
    flat, width = tf.reshape(pixels, [-1]), pixels.shape[1]
    parts = [
        tf.gather(flat, _flat_index(corners[:, j], size, width)) * _share(shares, j, pixels.dtype)
        for j in range(corners.shape[1])
    ]
    return tf.add_n(parts)


def _scatter(values: tf.Tensor, corners: tf.Tensor, shares: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """One segment a pixel."""
    size = values.shape[-1]
    parts = [
        tf.math.unsorted_segment_sum(
            values * _share(shares, j, values.dtype),
            _flat_index(corners[:, j], size, shape[1]),
            shape[0] * shape[1],
        )
        for j in range(corners.shape[1])
    ]
    return tf.reshape(tf.add_n(parts), shape)


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _gather_looped(pixels: tf.Tensor, corners: tf.Tensor, shares: tf.Tensor, size: int) -> tf.Tensor:
    """Window after window, each written once."""
    count, places = corners.shape[:2]

    def take(k: tf.Tensor, windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = [
            tf.slice(pixels, corners[k, j], (size, size)) * tf.cast(shares[k, j], pixels.dtype) for j in range(places)
        ]
        first = tf.stack([tf.cast(k, corners.dtype), tf.constant(0, corners.dtype), tf.constant(0, corners.dtype)])
        return k + 1, xla.dynamic_update_slice(windows, tf.add_n(parts)[None], first)

    start = tf.zeros((count, size, size), pixels.dtype)
    return tf.while_loop(lambda k, _: k < count, take, (0, start), maximum_iterations=count)[1]


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _scatter_looped(values: tf.Tensor, corners: tf.Tensor, shares: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Window after window, each read once and multiplied on the way."""
    count, size, places = values.shape[0], values.shape[-1], corners.shape[1]

    def add(k: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for j in range(places):
            there = tf.slice(image, corners[k, j], (size, size)) + values[k] * tf.cast(shares[k, j], values.dtype)
            image = xla.dynamic_update_slice(image, there, corners[k, j])
        return k + 1, image

    start = tf.zeros(shape, values.dtype)
    return tf.while_loop(lambda k, _: k < count, add, (0, start), maximum_iterations=count)[1]


def _flat_index(corners: tf.Tensor, size: int, width: int) -> tf.Tensor:
    """(K, n, n) number of each pixel of a window in the flat image."""
    steps = tf.range(size, dtype=corners.dtype)
    first = corners[:, 0] * width + corners[:, 1]
    return first[:, None, None] + steps[:, None] * width + steps
