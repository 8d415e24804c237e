"""The closed list of what the array API standard lacks: the protocol that every backend implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ptycho.backends.arrays import Array

__all__ = ["Backend"]


@runtime_checkable
class Backend(Protocol):
    """What a framework lends to the physics beyond the array API standard.

    Images are ``(H, W)`` and windows ``(K, n, n)``, floating or complex. Each window lies at J places: corners
    ``(K, J, 2)`` are the integer (row, col) of its first pixel there, weights ``(K, J)`` real, in the image's
    precision. Every window lies inside the image: the caller pads. Feature maps are channel-last ``(B, H, W, C)``,
    kernels HWIO.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> isinstance(ptycho.get_backend("numpy"), ptycho.Backend)
    True
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
