"""The primitives that the array API standard lacks, in JAX; each works eager and under ``jax.jit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from ptycho.errors import BackendError
from ptycho_jax.namespace import xp

__all__ = ["JaxBackend", "find_devices"]

_INSIDE = lax.GatherScatterMode.PROMISE_IN_BOUNDS  # the caller pads


class JaxBackend:
    """See :class:`ptycho.backend.Backend`."""

    name = "jax"
    xp = xp

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`; 64-bit values become 32-bit ones unless JAX's x64 mode is on."""
        if isinstance(device, str):
            (device,) = find_devices(device)
        if not isinstance(a, jax.Array):
            a = np.asarray(a)
        wanted = a.dtype if dtype is None else xp.dtype(dtype)
        return xp.asarray(a, dtype=jax.dtypes.canonicalize_dtype(wanted), device=device)

    def to_numpy(self, a: jax.Array) -> np.ndarray:
        """See :class:`~ptycho.backend.Backend`."""
        host = np.asarray(a)
        return host.astype(np.float32) if a.dtype == xp.bfloat16 else host

    def best_device(self) -> Any:
        """JAX's own default, an accelerator where there is one."""
        return None

    def gather_windows(self, image: jax.Array, corners: jax.Array, size: int) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`."""
        axes = lax.GatherDimensionNumbers(offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0, 1))
        return lax.gather(image, corners, axes, (size, size), mode=_INSIDE)

    def scatter_windows(self, windows: jax.Array, corners: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`; one scatter of whole windows, whose own gradient is the gather."""
        axes = lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
        )
        return lax.scatter_add(xp.zeros(shape, dtype=windows.dtype), corners, windows, axes, mode=_INSIDE)

    def conv2d(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`; computed in the kernel's precision."""
        x = xp.astype(x, kernel.dtype)
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

    def relu(self, x: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`."""
        return jax.nn.relu(x)

    def max_pool2d(self, x: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`; the gradient goes to the first of equal values."""
        batch, height, width, channels = x.shape
        blocks = xp.reshape(x, (batch, height // 2, 2, width // 2, 2, channels))
        rows = _first_larger(blocks[:, :, :, :, 0, :], blocks[:, :, :, :, 1, :])
        return _first_larger(rows[:, :, 0, :, :], rows[:, :, 1, :, :])

    def upsample2d(self, x: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`."""
        return xp.repeat(xp.repeat(x, 2, axis=1), 2, axis=2)

    def stop_gradient(self, a: jax.Array) -> jax.Array:
        """See :class:`~ptycho.backend.Backend`."""
        return lax.stop_gradient(a)

    def value_and_grad(self, f: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, Any]]:
        """See :class:`~ptycho.backend.Backend`; JAX's gradient is dL/dx - i dL/dy, hence the one conjugation."""

        def evaluated(*args: Any) -> tuple[jax.Array, Any]:
            value, gradient = jax.value_and_grad(f)(*args)
            return value, jax.tree.map(xp.conj, gradient)

        return evaluated

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """See :class:`~ptycho.backend.Backend`."""
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


def _first_larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The larger value of each pair, the first where they are equal; NaN stays NaN."""
    return xp.where((b > a) | xp.isnan(b), b, a)
