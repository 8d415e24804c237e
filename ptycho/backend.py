"""The seam between the physics and the array frameworks.

The physics is written against the array API standard. What the standard lacks is a closed list of primitives, the
:class:`Backend` protocol. The numpy backend lives here and is the reference; every other backend is a shim that
registers itself through the entry-point group ``ptycho.backends`` and its training loop through ``ptycho.trainers``.
No framework is imported until a shim is asked for.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import array_api_compat
import numpy as np

from ptycho.errors import BackendError
from ptycho.windows import add_windows, gather_windows

__all__ = [
    "Array",
    "Backend",
    "NumpyBackend",
    "array_namespace",
    "available_backends",
    "backend_for_training",
    "cached_parts",
    "device",
    "get_backend",
    "get_trainer",
    "to_numpy",
]

Array = Any
"""An array of any supported framework."""

# Linux's C library hands memory back as soon as twice the largest piece freed so far (of at most 32 MiB) lies idle, and
# the next array is mapped anew, page by page: up to a quarter of a step in numpy and PyTorch. So one is freed now.
np.empty(2**25 - 2**16, dtype=np.uint8)

_ALIASES = {"torch": "pytorch", "tf": "tensorflow"}
_EXTRAS = {"pytorch": "torch", "tensorflow": "tensorflow", "jax": "jax"}
_CACHED = 2**18
"""Complex pixels that are worked on at once: two megabytes, and as much again for each intermediate result."""
_COLUMNS = 2**19
"""Values of the neighbourhoods of pixels that a convolution writes out at once: two megabytes."""
_OPTIONAL_DEPENDENCY = {"pytorch": "torch", "tensorflow": "tensorflow", "jax": "jax"}


def array_namespace(*arrays: Any) -> Any:
    """The namespace of the array API standard that ``arrays`` (and Python numbers beside them) belong to.

    Raises
    ------
    TypeError
        The arrays are of different frameworks, or none of them is an array.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not any(tensorflow.is_tensor(a) for a in arrays):
        return array_api_compat.array_namespace(*arrays)
    others = [a for a in arrays if not tensorflow.is_tensor(a) and array_api_compat.is_array_api_obj(a)]
    if others:
        raise TypeError(f"Multiple namespaces for array inputs: tensorflow and {type(others[0]).__module__}")
    return _backend_named("tensorflow").xp


def device(a: Array) -> Any:
    """Where ``a`` lies, in the words of its framework; what creation functions take as ``device=``."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(a):
        return None if tensorflow.is_symbolic_tensor(a) else a.device  # inside a compiled function it has none yet
    return array_api_compat.device(a)


@runtime_checkable
class Backend(Protocol):
    """What a framework lends to the physics beyond the array API standard.

    Images are ``(H, W)`` and windows ``(K, n, n)``, floating or complex. Each window lies at J places: corners
    ``(K, J, 2)`` are the integer (row, col) of its first pixel there, weights ``(K, J)`` real, in the image's
    precision. Every window lies inside the image: the caller pads. Feature maps are channel-last ``(B, H, W, C)``,
    kernels HWIO.
    """

    name: str
    xp: Any

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> Array:
        """Array of this framework from anything numpy understands; ``dtype`` by its standard name."""

    def to_numpy(self, a: Array) -> np.ndarray:
        """Host copy (or view) of ``a``, without its gradient."""

    def best_device(self) -> Any:
        """Where to compute when nobody says where; None leaves it to the framework."""

    def gather_windows(self, image: Array, corners: Array, weights: Array, size: int) -> Array:
        """Weighted sums over j of ``image[r : r + size, c : c + size]`` at the J places, ``(K, size, size)``.

        Differentiable by image and weights.
        """

    def scatter_windows(self, windows: Array, corners: Array, weights: Array, shape: tuple[int, int]) -> Array:
        """Weighted sum of the windows at their places on an image of zeros: the adjoint of :meth:`gather_windows`.

        Differentiable by windows and weights.
        """

    def conv2d(self, x: Array, kernel: Array, bias: Array) -> Array:
        """'Same' cross-correlation of ``x`` (B, H, W, I) with ``kernel`` (h, w, I, O), h and w odd."""

    def relu(self, x: Array) -> Array:
        """``x`` where it is positive, else 0, with slope 0 there; NaN stays NaN."""

    def max_pool2d(self, x: Array) -> Array:
        """Maximum over non-overlapping 2 x 2 blocks."""

    def in_parts(self, f: Callable[[Array], Array], stack: Array) -> Array:
        """``f(stack)`` of an ``f`` that treats every entry of the first axis by itself and gives an array of as many.

        In parts that stay in the processor's cache, where that is faster.
        """

    def stop_gradient(self, a: Array) -> Array:
        """``a`` as a constant of the differentiation: what the measurement alone decides has no gradient."""

    def value_and_grad(self, f: Callable[..., Array]) -> Callable[..., tuple[Array, Any]]:
        """Function that returns ``f``'s real value and its gradient by the first argument: an array or a dict.

        The gradient by a complex array is ``dL/dx + i dL/dy``.
        """

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """``f`` compiled where the framework gains by it; otherwise ``f``."""


class NumpyBackend:
    """The reference backend: everything but gradients, on the host."""

    name = "numpy"
    xp = array_api_compat.array_namespace(np.empty(0))

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> np.ndarray:
        """See :class:`Backend`."""
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


def available_backends() -> list[str]:
    """Names of the backends that are registered, whether or not their framework is installed."""
    return ["numpy", *sorted(point.name for point in entry_points(group="ptycho.backends"))]


def get_backend(name_or_array: str | Array) -> Backend:
    """The backend of that name, or the one that an array belongs to.

    Parameters
    ----------
    name_or_array
        ``"numpy"``, ``"pytorch"`` (alias ``"torch"``), any other registered name, or an array of such a framework.
        Arrays of array API libraries without a shim (array-api-strict, CuPy) get a generic backend on their namespace.

    Raises
    ------
    BackendError
        The name is not registered, or its framework is not installed; the message says what to install.
    """
    if isinstance(name_or_array, str):
        return _backend_named(_ALIASES.get(name_or_array, name_or_array))
    if isinstance(name_or_array, np.ndarray | np.generic):
        return _NUMPY
    if array_api_compat.is_torch_array(name_or_array):
        return _backend_named("pytorch")
    if array_api_compat.is_jax_array(name_or_array):
        return _backend_named("jax")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(name_or_array):
        return _backend_named("tensorflow")
    return _generic_backend(array_namespace(name_or_array))


def get_trainer(name: str) -> type:
    """The training loop of a backend: a class ``Trainer(config, callbacks)`` with ``fit(container, validation)``.

    Raises
    ------
    BackendError
        The backend cannot train, is not registered, or its framework is not installed.
    """
    name = _ALIASES.get(name, name)
    if name == "numpy":
        raise BackendError("The numpy backend cannot train; choose backend='pytorch' (pip install ptychopinn[torch]).")
    return _load("ptycho.trainers", name)


def backend_for_training(name: str) -> Backend:
    """The backend of that name, refused before any work is done if it cannot train."""
    get_trainer(name)
    return get_backend(name)


def to_numpy(a: Array) -> np.ndarray:
    """Host array of ``a``, whichever framework it belongs to."""
    if isinstance(a, np.ndarray):
        return a
    return get_backend(a).to_numpy(a)


@functools.cache
def _backend_named(name: str) -> Backend:
    if name == "numpy":
        return _NUMPY
    return _load("ptycho.backends", name)()


def _load(group: str, name: str) -> Any:
    points = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        known = ", ".join(["numpy", *sorted(points)])
        raise BackendError(f"backend: {name!r} is not available; choose one of: {known}.")
    try:
        return points[name].load()
    except ImportError as error:
        wanted = _OPTIONAL_DEPENDENCY.get(name, name)
        raise BackendError(
            f"The {name} backend needs {wanted}, which could not be imported ({error}); "
            f"install it with: pip install ptychopinn[{_EXTRAS.get(name, name)}]"
        ) from error


class _GenericBackend(NumpyBackend):
    """Window primitives from the standard alone, for namespaces without a shim; convolutions stay with the shims."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.name = xp.__name__.removeprefix("array_api_compat.").split(".")[0]

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> Array:
        return self.xp.asarray(a, dtype=None if dtype is None else getattr(self.xp, dtype), device=device)

    def to_numpy(self, a: Array) -> np.ndarray:
        return np.asarray(a.get() if hasattr(a, "get") else a)

    def gather_windows(self, image: Array, corners: Array, weights: Array, size: int) -> Array:
        xp, count = self.xp, corners.shape[0]
        windows = xp.zeros((count, size, size), dtype=image.dtype, device=device(image))
        for j in range(corners.shape[1]):
            flat = xp.reshape(self._flat_index(corners[:, j, :], size, image.shape[1]), (-1,))
            pixels = xp.reshape(xp.take(xp.reshape(image, (-1,)), flat, axis=0), (count, size, size))
            windows = windows + pixels * weights[:, j][:, None, None]
        return windows

    def scatter_windows(self, windows: Array, corners: Array, weights: Array, shape: tuple[int, int]) -> Array:
        size = windows.shape[-1]
        image = self.xp.zeros(shape, dtype=windows.dtype, device=device(windows))
        for k in range(windows.shape[0]):
            for j in range(corners.shape[1]):
                row, col = int(corners[k, j, 0]), int(corners[k, j, 1])
                image[row : row + size, col : col + size] += windows[k, ...] * weights[k, j]
        return image

    def in_parts(self, f: Callable[[Array], Array], stack: Array) -> Array:
        return f(stack)

    def _flat_index(self, corners: Array, size: int, width: int) -> Array:
        xp = self.xp
        steps = xp.arange(size, dtype=corners.dtype, device=device(corners))
        first = corners[:, 0] * width + corners[:, 1]
        return first[:, None, None] + steps[None, :, None] * width + steps[None, None, :]


def cached_parts(shape: tuple[int, ...], most: int | None = None) -> list[slice]:
    """Parts of the first axis of a stack, at most so many, that stay in a processor's cache with what comes of them."""
    step = max(1, _CACHED // max(1, math.prod(shape[1:])), 0 if most is None else -(-shape[0] // most))
    return [slice(first, first + step) for first in range(0, shape[0], step)]


@functools.cache
def _generic_backend(xp: Any) -> Backend:
    return _GenericBackend(xp)


_NUMPY = NumpyBackend()
