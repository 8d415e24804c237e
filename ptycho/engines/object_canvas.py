"""The object while it is updated: windows are read from it and changes are gathered up, then applied at once.

Two kinds of slices do the same arithmetic. On the host all work is done in place, in the windows of the patterns, so
that its cost does not depend on the size of the object; elsewhere arrays are not written to, and a batch costs one pass
over the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import array_api_compat
import numpy as np

from ptycho.backends import Array, array_namespace, device, get_backend
from ptycho.physics.patches import accumulate_patches, extract_patches
from ptycho.physics.shifts import fourier_shift

__all__ = ["ObjectCanvas", "Slice", "make_canvas", "read_patches", "slices_of"]


class Slice(Protocol):
    """A slice (H, W) of an object with sums of what a batch of patterns asks of it; positions (k, 2) are its pixels."""

    object: Array

    def patches(self, positions: np.ndarray, size: int) -> Array:
        """Patches (k, N, N) centred at the positions, bilinear."""

    def gather(self, updates: Array, power: Array, positions: np.ndarray) -> None:
        """Add up updates (k, N, N), numerators, and the light (N, N) or (k, N, N) behind them."""

    def apply(self, damping: float, step: float, brightest: float) -> None:
        """Change the object by the sums over (1 - damping) light + damping max(light, brightest), and forget them."""


class ObjectCanvas:
    """All slices of an object, in the order in which the beam meets them.

    Attributes
    ----------
    slices : each by itself.
    """

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = slices

    @property
    def object(self) -> Array:
        """(H, W), or (S, H, W) of more than one slice."""
        return _stacked([each.object for each in self.slices])

    @object.setter
    def object(self, image: Array) -> None:
        for each, part in zip(self.slices, slices_of(image), strict=True):
            each.object = part

    def patches(self, positions: np.ndarray, size: int) -> Array:
        """Patches (k, N, N), or (S, k, N, N) of more than one slice, at positions (k, 2) of the host."""
        return _stacked([each.patches(positions, size) for each in self.slices])


def slices_of(stack: Array, axes: int = 2) -> list[Array]:
    """The slices of an object (H, W) or (S, H, W); with ``axes`` 3 those of patches (k, N, N) or (S, k, N, N)."""
    return [stack] if stack.ndim == axes else [stack[number, ...] for number in range(stack.shape[0])]


def _stacked(slices: Sequence[Array]) -> Array:
    return slices[0] if len(slices) == 1 else array_namespace(slices[0]).stack(slices)


def make_canvas(image: Array, size: int, real: str, shift: str = "bilinear") -> ObjectCanvas:
    """The canvas of an object of any framework.

    Parameters
    ----------
    image : (H, W), or (S, H, W) of more than one slice.
    size : N.
    real : the name of its real dtype.
    shift : ``"bilinear"`` or ``"fourier"``, how it is read between its pixels.
    """
    made: list[Slice] = []
    for one in slices_of(image):
        on_host = array_api_compat.is_numpy_array(one)
        plain: Slice = _HostSlice(one, size) if on_host else _DeviceSlice(one, size, real)
        made.append(_FourierSlice(plain, real) if shift == "fourier" else plain)
    return ObjectCanvas(made)


def read_patches(image: Array, positions: Array, size: int, shift: str) -> list[Array]:
    """Patches (k, N, N) of every slice of an object at positions (k, 2) of its framework, as its canvas reads them."""
    if shift == "bilinear":
        return [extract_patches(one, positions, size) for one in slices_of(image)]
    nearest = array_namespace(positions).floor(positions + 0.5)
    return [fourier_shift(extract_patches(one, nearest, size), positions - nearest) for one in slices_of(image)]


def _corners(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pixels and fractions of bilinear windows, and first pixels of the nearest whole-pixel ones."""
    first = positions - size // 2
    whole = np.floor(first)
    return whole.astype(np.int64), first - whole, np.floor(first + 0.5).astype(np.int64)


class _HostSlice:
    """Complex numbers are worked on as pairs of real ones: half the arithmetic of complex factors."""

    def __init__(self, image: np.ndarray, size: int) -> None:
        self._size, self._margin, self._shape = size, size + 1, image.shape
        padded = tuple(n + 2 * self._margin for n in image.shape)
        real = image.real.dtype
        self._object = np.zeros(padded, dtype=image.dtype)
        self._sum = np.zeros(padded, dtype=image.dtype)
        self._light = np.zeros(padded, dtype=real)
        self.object = image
        self._seen: list[tuple[slice, slice]] = []

    @property
    def object(self) -> np.ndarray:
        """(H, W) view of the object."""
        m = self._margin
        return self._object[m : m + self._shape[0], m : m + self._shape[1]]

    @object.setter
    def object(self, image: np.ndarray) -> None:
        m = self._margin
        self._object[m : m + self._shape[0], m : m + self._shape[1]] = image

    def _places(self, positions: np.ndarray) -> tuple[list, list, list]:
        whole, fraction, nearest = _corners(positions, self._size)
        limit = np.asarray(self._shape)
        whole = np.clip(whole, -self._margin, limit) + self._margin
        nearest = np.clip(nearest, -self._margin, limit) + self._margin
        return whole.tolist(), fraction.astype(self._light.dtype).tolist(), nearest.tolist()

    def patches(self, positions: np.ndarray, size: int) -> np.ndarray:
        """See :class:`Slice`."""
        whole, fractions, _ = self._places(positions)
        out = np.empty((len(whole), size, size), dtype=self._object.dtype)
        pairs, flat = out.view(self._light.dtype), self._object.view(self._light.dtype)
        for patch, (row, col), (down, right) in zip(pairs, whole, fractions, strict=True):
            window = flat[row : row + size + 1, 2 * col : 2 * col + 2 * size + 2]
            mixed = window[:-1] * (1.0 - down)
            mixed += window[1:] * down
            np.multiply(mixed[:, :-2], 1.0 - right, out=patch)
            patch += mixed[:, 2:] * right
        return out

    def gather(self, updates: np.ndarray, power: np.ndarray, positions: np.ndarray) -> None:
        """See :class:`Slice`."""
        n = self._size
        whole, fractions, nearest = self._places(positions)
        pairs, flat = updates.view(self._light.dtype), self._sum.view(self._light.dtype)
        lights = [power] * len(whole) if power.ndim == 2 else power
        for patch, light, (row, col), (down, right), (r, c) in zip(
            pairs, lights, whole, fractions, nearest, strict=True
        ):
            window = flat[row : row + n + 1, 2 * col : 2 * col + 2 * n + 2]
            mixed = np.zeros((n, 2 * n + 2), dtype=self._light.dtype)
            np.multiply(patch, 1.0 - right, out=mixed[:, :-2])
            mixed[:, 2:] += patch * right
            window[:-1] += mixed * (1.0 - down)
            mixed *= down
            window[1:] += mixed
            self._light[r : r + n, c : c + n] += light
            self._seen.append((slice(row, row + n + 1), slice(col, col + n + 1)))

    def apply(self, damping: float, step: float, brightest: float) -> None:
        """See :class:`Slice`."""
        whole = [(slice(None), slice(None))]
        few = len(self._seen) * (self._size + 1) ** 2 < math.prod(self._shape)
        for place in self._seen if few else whole:  # where windows overlap, the first one takes the whole change
            light = self._light[place]
            share = np.maximum(light, brightest)
            share *= damping / step
            share += light * ((1.0 - damping) / step)
            total = self._sum[place]
            self._object[place] += total * np.reciprocal(share)  # far faster than dividing complex numbers
            total[...] = 0.0
        for place in self._seen if few else whole:
            self._light[place] = 0.0
        self._seen = []


class _DeviceSlice:
    """The same without writing into an array."""

    def __init__(self, image: Array, size: int, real: str) -> None:
        self.object, self._margin, self._real = image, size + 1, real
        self._sum: Any = None
        self._light: Any = None
        self._backend = get_backend(image)
        shape = (int(image.shape[0]), int(image.shape[1]))
        self._limit = np.asarray(shape)
        self._extract = self._backend.jit(lambda image, at: extract_patches(image, at, size))
        self._accumulate = self._backend.jit(lambda updates, at: accumulate_patches(updates, at, shape))
        self._spread = self._backend.jit(self._spread_light)
        self._changed = self._backend.jit(_changed)

    def patches(self, positions: np.ndarray, size: int) -> Array:
        """See :class:`Slice`."""
        return self._extract(self.object, self._to_device(positions))

    def gather(self, updates: Array, power: Array, positions: np.ndarray) -> None:
        """See :class:`Slice`."""
        nearest = np.clip(_corners(positions, self._margin - 1)[2], -self._margin, self._limit) + self._margin
        total, light = (
            self._accumulate(updates, self._to_device(positions)),
            self._spread(power, self._to_device(nearest)),
        )
        self._sum = total if self._sum is None else self._sum + total
        self._light = light if self._light is None else self._light + light

    def apply(self, damping: float, step: float, brightest: float) -> None:
        """See :class:`Slice`."""
        if self._sum is not None:
            shares = (
                self._to_device(damping / step),
                self._to_device((1.0 - damping) / step),
                self._to_device(brightest),
            )
            self.object = self._changed(self.object, self._sum, self._light, *shares)
            self._sum = self._light = None

    def _to_device(self, values: Any) -> Array:
        host = np.asarray(values)
        dtype = "int32" if host.dtype.kind == "i" else self._real
        return self._backend.asarray(host, dtype=dtype, device=device(self.object))

    def _spread_light(self, power: Array, corners: Array) -> Array:
        xp, margin = array_namespace(power), self._margin
        height, width = self._limit.tolist()
        stack = xp.broadcast_to(power, (corners.shape[0], *power.shape[-2:]))
        once = xp.ones((corners.shape[0], 1), dtype=power.dtype, device=device(power))
        shape = (height + 2 * margin, width + 2 * margin)
        light = self._backend.scatter_windows(stack, corners[:, None, :], once, shape)
        return light[margin : margin + height, margin : margin + width]


def _changed(image: Array, total: Array, light: Array, damped: Array, kept: Array, brightest: Array) -> Array:
    xp = array_namespace(image)
    share = xp.maximum(light, brightest) * damped + light * kept
    return image + total / xp.astype(share, total.dtype)


class _FourierSlice:
    """Windows on whole pixels of a plain canvas, shifted by what is left."""

    def __init__(self, plain: Slice, real: str) -> None:
        self._plain, self._real = plain, real
        self._backend = get_backend(plain.object)
        self._shifted = self._backend.jit(fourier_shift)

    @property
    def object(self) -> Array:
        """(H, W)."""
        return self._plain.object

    @object.setter
    def object(self, image: Array) -> None:
        self._plain.object = image

    def patches(self, positions: np.ndarray, size: int) -> Array:
        """See :class:`Slice`."""
        nearest, rest = self._split(positions)
        return self._shifted(self._plain.patches(nearest, size), self._to_device(rest))

    def gather(self, updates: Array, power: Array, positions: np.ndarray) -> None:
        """See :class:`Slice`."""
        nearest, rest = self._split(positions)
        self._plain.gather(self._shifted(updates, self._to_device(-rest)), power, nearest)

    def apply(self, damping: float, step: float, brightest: float) -> None:
        """See :class:`Slice`."""
        self._plain.apply(damping, step, brightest)

    def _split(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nearest = np.floor(positions + 0.5)
        return nearest, positions - nearest

    def _to_device(self, values: np.ndarray) -> Array:
        return self._backend.asarray(values, dtype=self._real, device=device(self._plain.object))
