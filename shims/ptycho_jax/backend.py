"""The primitives that the array API standard lacks, in JAX; each works eager and under ``jax.jit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from ptycho.backends import cached_parts
from ptycho.errors import BackendError
from ptycho_jax.namespace import xp

__all__ = ["JaxBackend", "find_devices"]

_INSIDE = lax.GatherScatterMode.PROMISE_IN_BOUNDS  # the caller pads


class JaxBackend:
    """See :class:`ptycho.backends.Backend`."""

    name = "jax"
    xp = xp

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`; 64-bit values become 32-bit ones unless JAX's x64 mode is on."""
        if isinstance(device, str):
            (device,) = find_devices(device)
        if not isinstance(a, jax.Array):
            a = np.asarray(a)
        wanted = a.dtype if dtype is None else xp.dtype(dtype)
        return xp.asarray(a, dtype=jax.dtypes.canonicalize_dtype(wanted), device=device)

    def to_numpy(self, a: jax.Array) -> np.ndarray:
        """See :class:`~ptycho.backends.Backend`."""
        host = np.asarray(a)
        return host.astype(np.float32) if a.dtype == xp.bfloat16 else host

    def best_device(self) -> Any:
        """JAX's own default, an accelerator where there is one."""
        return None

    def gather_windows(self, image: jax.Array, corners: jax.Array, weights: jax.Array, size: int) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`."""
        return _gather(image, corners, weights, size)

    def scatter_windows(
        self, windows: jax.Array, corners: jax.Array, weights: jax.Array, shape: tuple[int, int]
    ) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`; reverse-mode gradients only, since the loop is none of its own."""
        return _scatter(windows, corners, weights, tuple(shape))

    def conv2d(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`; computed in the kernel's precision."""
        x = xp.astype(x, kernel.dtype)
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

    def relu(self, x: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`."""
        return jax.nn.relu(x)

    def max_pool2d(self, x: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`; the gradient goes to the first of equal values."""
        batch, height, width, channels = x.shape
        blocks = xp.reshape(x, (batch, height // 2, 2, width // 2, 2, channels))
        rows = _first_larger(blocks[:, :, :, :, 0, :], blocks[:, :, :, :, 1, :])
        return _first_larger(rows[:, :, 0, :, :], rows[:, :, 1, :, :])

    def in_parts(self, f: Callable[[jax.Array], jax.Array], stack: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`; a loop in XLA on a CPU, everything at once elsewhere."""
        parts = cached_parts(stack.shape)
        if len(parts) < 2 or not isinstance(stack, jax.core.Tracer):  # a loop would be compiled at every call
            return f(stack)
        size = parts[0].stop
        looped = functools.partial(lax.map, lambda entry: f(entry[None])[0], batch_size=size)
        return lax.platform_dependent(stack, cpu=looped, default=f)

    def stop_gradient(self, a: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backends.Backend`."""
        return lax.stop_gradient(a)

    def value_and_grad(self, f: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, Any]]:
        """See :class:`~ptycho.backends.Backend`; JAX's gradient is dL/dx - i dL/dy, hence the one conjugation."""

        def evaluated(*args: Any) -> tuple[jax.Array, Any]:
            value, gradient = jax.value_and_grad(f)(*args)
            return value, jax.tree.map(xp.conj, gradient)

        return evaluated

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """See :class:`~ptycho.backends.Backend`."""
        return jax.jit(f)


def find_devices(name: str = "auto", count: int = 1) -> list[jax.Device]:
    """JAX's devices by the name that a user gives.

    Parameters
    ----------
    name : a platform (``cpu``, ``gpu``, ``cuda``, ``tpu``), with a number (``cuda:1``) that very device; ``auto`` is
        JAX's default platform.
    count : how many, where ``name`` has no number.

    Raises
    ------
    BackendError
        There is no such device here, or there are not as many.
    """
    platform, _, number = name.partition(":")
    try:
        there = jax.devices(None if platform == "auto" else platform)
    except RuntimeError as error:
        raise BackendError(f"device: {name!r} cannot be used here ({error}); choose --device cpu.") from error
    wanted = there[int(number) : int(number) + 1] if number.isdigit() else there[:count]
    if len(wanted) < (1 if number else count):
        raise BackendError(
            f"device: {name!r} asks for {f'number {number}' if number else count} and JAX sees {len(there)} "
            f"{there[0].platform} device(s) here; choose another number of devices."
        )
    return wanted


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
@functools.partial(jax.jit, static_argnums=3, inline=True)  # once for each shape, where nothing around it is compiled
def _gather(image: jax.Array, corners: jax.Array, weights: jax.Array, size: int) -> jax.Array:
    axes = lax.GatherDimensionNumbers(offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0, 1))
    places = range(corners.shape[1])
    parts = [lax.gather(image, corners[:, j], axes, (size, size), mode=_INSIDE) for j in places]
    return sum((parts[j] * weights[:, j, None, None] for j in places), xp.zeros_like(parts[0]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
@functools.partial(jax.jit, static_argnums=3, inline=True)
def _scatter(windows: jax.Array, corners: jax.Array, weights: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return lax.platform_dependent(
        windows, corners, weights, cpu=functools.partial(_looped, shape), default=functools.partial(_at_once, shape)
    )


def _looped(shape: tuple[int, int], windows: jax.Array, corners: jax.Array, weights: jax.Array) -> jax.Array:
    """Window after window, each read once and multiplied on the way: what is fastest on a CPU."""
    size, (windows, corners, weights) = windows.shape[-1], map(xp.asarray, (windows, corners, weights))

    def add(k: jax.Array, image: jax.Array) -> jax.Array:
        for j in range(corners.shape[1]):
            here = (corners[k, j, 0], corners[k, j, 1])
            there = lax.dynamic_slice(image, here, (size, size))
            image = lax.dynamic_update_slice(image, there + windows[k] * weights[k, j], here)
        return image

    nothing = xp.zeros(shape, dtype=windows.dtype)
    return lax.fori_loop(0, windows.shape[0], add, nothing) if windows.shape[0] else nothing


def _at_once(shape: tuple[int, int], windows: jax.Array, corners: jax.Array, weights: jax.Array) -> jax.Array:
    """All windows in one scatter for each of the places."""
    axes = lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
    )
    image = xp.zeros(shape, dtype=windows.dtype)
    for j in range(corners.shape[1]):
        image = lax.scatter_add(image, corners[:, j], windows * weights[:, j, None, None], axes, mode=_INSIDE)
    return image


def _overlaps(image: jax.Array, windows: jax.Array, corners: jax.Array) -> jax.Array:
    """(K, J) real part of the sums of each window times the image at each of its places: the gradient by weights."""
    whole = xp.ones((corners.shape[0], 1), dtype=xp.real(windows).dtype)
    places = [corners[:, j : j + 1] for j in range(corners.shape[1])]
    parts = [xp.real(xp.sum(_gather(image, at, whole, windows.shape[-1]) * windows, axis=(1, 2))) for at in places]
    return xp.stack(parts, axis=-1)


def _no_gradient(corners: jax.Array) -> np.ndarray:
    return np.zeros(corners.shape, dtype=jax.dtypes.float0)


_gather.defvjp(
    lambda image, corners, weights, size: (_gather(image, corners, weights, size), (image, corners, weights)),
    lambda size, kept, upstream: (
        _scatter(upstream, kept[1], kept[2], kept[0].shape),
        _no_gradient(kept[1]),
        _overlaps(kept[0], upstream, kept[1]),
    ),
)
_scatter.defvjp(
    lambda windows, corners, weights, shape: (_scatter(windows, corners, weights, shape), (windows, corners, weights)),
    lambda shape, kept, upstream: (
        _gather(upstream, kept[1], kept[2], kept[0].shape[-1]),
        _no_gradient(kept[1]),
        _overlaps(upstream, kept[0], kept[1]),
    ),
)


def _first_larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The larger value of each pair, the first where they are equal; NaN stays NaN."""
    return xp.where((b > a) | xp.isnan(b), b, a)
