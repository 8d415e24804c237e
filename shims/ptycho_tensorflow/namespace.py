"""The array API standard's names for ``tf.Tensor``: plain functions, and of the standard what the physics asks for.

Each function has the standard's signature and meaning (https://data-apis.org/array-api). Tensors keep to TensorFlow's
own rules: no promotion between dtypes, so the callers cast with :func:`astype`.
"""

from __future__ import annotations

import builtins
import contextlib
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

Axis = int | tuple[int, ...] | None

bool = tf.bool
int8, int16, int32, int64 = tf.int8, tf.int16, tf.int32, tf.int64
uint8, uint16, uint32, uint64 = tf.uint8, tf.uint16, tf.uint32, tf.uint64
float32, float64 = tf.float32, tf.float64
complex64, complex128 = tf.complex64, tf.complex128


# Creation


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> tf.Tensor:
    """Tensor of ``obj``: numbers, nested sequences, numpy arrays or tensors."""
    with _on(device):
        if tf.is_tensor(obj) and dtype is not None:
            return tf.cast(obj, dtype)
        return tf.identity(tf.convert_to_tensor(obj, dtype=dtype))


def zeros(shape: int | tuple[int, ...], *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """Zeros, float32 by default."""
    with _on(device):
        return tf.zeros(shape, dtype=dtype or float32)


def ones(shape: int | tuple[int, ...], *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """Ones, float32 by default."""
    with _on(device):
        return tf.ones(shape, dtype=dtype or float32)


def full(shape: int | tuple[int, ...], fill_value: Any, *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """``fill_value`` everywhere, in its own dtype by default."""
    with _on(device):
        return tf.broadcast_to(tf.constant(fill_value, dtype=dtype), shape)


def zeros_like(x: tf.Tensor, /, *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """Zeros in the shape of ``x``."""
    with _on(device):
        return tf.zeros_like(x, dtype=dtype)


def ones_like(x: tf.Tensor, /, *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """Ones in the shape of ``x``."""
    with _on(device):
        return tf.ones_like(x, dtype=dtype)


def full_like(x: tf.Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """``fill_value`` in the shape of ``x``."""
    return full(tuple(x.shape), fill_value, dtype=dtype or x.dtype, device=device)


def arange(
    start: float, /, stop: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None
) -> tf.Tensor:
    """Evenly spaced numbers below ``stop``."""
    with _on(device):
        return tf.range(*((0, start) if stop is None else (start, stop)), step, dtype=dtype)


# Dtypes


class _FloatInfo(NamedTuple):
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: tf.DType


def finfo(type: Any, /) -> _FloatInfo:
    """Limits of a floating dtype, or of the one of an array."""
    kind = getattr(type, "dtype", type)
    limits = np.finfo(kind.as_numpy_dtype)
    eps, largest, least, tiny = map(float, (limits.eps, limits.max, limits.min, limits.smallest_normal))
    return _FloatInfo(limits.bits, eps, largest, least, tiny, tf.as_dtype(limits.dtype))


def isdtype(dtype: tf.DType, kind: Any) -> builtins.bool:
    """Whether ``dtype`` is of that kind: a name of the standard, a dtype, or any of a tuple of them."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if not isinstance(kind, str):
        return dtype == kind
    real_integer = {"signed integer": not dtype.is_unsigned, "unsigned integer": dtype.is_unsigned, "integral": True}
    kinds = {
        "bool": dtype.is_bool,
        "real floating": dtype.is_floating,
        "complex floating": dtype.is_complex,
        "numeric": dtype.is_integer or dtype.is_floating or dtype.is_complex,
        **{name: dtype.is_integer and fits for name, fits in real_integer.items()},
    }
    if kind not in kinds:
        raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(kinds)}.")
    return kinds[kind]


def astype(x: tf.Tensor, dtype: tf.DType, /, *, copy: builtins.bool = True, device: Any = None) -> tf.Tensor:
    """``x`` in another dtype."""
    with _on(device):
        if dtype.is_complex and not x.dtype.is_complex:  # tf.cast warns of its own gradient there
            part = tf.cast(x, dtype.real_dtype)
            return tf.complex(part, tf.zeros_like(part))
        return tf.cast(x, dtype)


# Elements


def abs(x: tf.Tensor, /) -> tf.Tensor:
    """Absolute value."""
    return tf.abs(x)


def atan2(x1: tf.Tensor, x2: tf.Tensor, /) -> tf.Tensor:
    """Angle of the point (x2, x1)."""
    return tf.atan2(x1, x2)


def clip(x: tf.Tensor, /, min: Any = None, max: Any = None) -> tf.Tensor:
    """``x`` held between two limits; on a limit the gradient passes, as in PyTorch."""
    if min is not None:
        x = tf.maximum(x, min)
    return x if max is None else tf.minimum(x, max)


def conj(x: tf.Tensor, /) -> tf.Tensor:
    """Complex conjugate."""
    return tf.math.conj(x)


def cos(x: tf.Tensor, /) -> tf.Tensor:
    """Cosine."""
    return tf.cos(x)


def exp(x: tf.Tensor, /) -> tf.Tensor:
    """Exponential."""
    return tf.exp(x)


def floor(x: tf.Tensor, /) -> tf.Tensor:
    """Largest whole number not above."""
    return tf.floor(x)


def imag(x: tf.Tensor, /) -> tf.Tensor:
    """Imaginary part."""
    return tf.math.imag(x)


def log(x: tf.Tensor, /) -> tf.Tensor:
    """Natural logarithm."""
    return tf.math.log(x)


def log1p(x: tf.Tensor, /) -> tf.Tensor:
    """Natural logarithm of 1 + x."""
    return tf.math.log1p(x)


def maximum(x1: tf.Tensor, x2: tf.Tensor, /) -> tf.Tensor:
    """The larger one of each pair."""
    return tf.maximum(x1, x2)


def real(x: tf.Tensor, /) -> tf.Tensor:
    """Real part."""
    return tf.math.real(x)


def sin(x: tf.Tensor, /) -> tf.Tensor:
    """Sine."""
    return tf.sin(x)


def sqrt(x: tf.Tensor, /) -> tf.Tensor:
    """Square root."""
    return tf.sqrt(x)


def tanh(x: tf.Tensor, /) -> tf.Tensor:
    """Hyperbolic tangent."""
    return tf.tanh(x)


def where(condition: tf.Tensor, x1: Any, x2: Any, /) -> tf.Tensor:
    """``x1`` where the condition holds, else ``x2``."""
    return tf.where(condition, x1, x2)


# Reductions


def max(x: tf.Tensor, /, *, axis: Axis = None, keepdims: builtins.bool = False) -> tf.Tensor:
    """Largest value."""
    return tf.reduce_max(x, axis=axis, keepdims=keepdims)


def mean(x: tf.Tensor, /, *, axis: Axis = None, keepdims: builtins.bool = False) -> tf.Tensor:
    """Mean."""
    return tf.reduce_mean(x, axis=axis, keepdims=keepdims)


def sum(x: tf.Tensor, /, *, axis: Axis = None, dtype: Any = None, keepdims: builtins.bool = False) -> tf.Tensor:
    """Sum; small integers are widened to 64 bits."""
    if dtype is None and isdtype(x.dtype, "integral"):
        dtype = uint64 if x.dtype.is_unsigned else int64
    return tf.reduce_sum(x if dtype is None else tf.cast(x, dtype), axis=axis, keepdims=keepdims)


# Shapes


def broadcast_to(x: tf.Tensor, /, shape: tuple[int, ...]) -> tf.Tensor:
    """``x`` repeated to ``shape``."""
    return tf.broadcast_to(x, shape)


def concat(arrays: Sequence[tf.Tensor], /, *, axis: int | None = 0) -> tf.Tensor:
    """Arrays joined along an axis, flat ones for None."""
    if axis is None:
        return tf.concat([tf.reshape(x, [-1]) for x in arrays], axis=0)
    return tf.concat(arrays, axis=axis)


def permute_dims(x: tf.Tensor, /, axes: tuple[int, ...]) -> tf.Tensor:
    """``x`` with its axes in another order."""
    return tf.transpose(x, axes)


def reshape(x: tf.Tensor, /, shape: tuple[int, ...], *, copy: Any = None) -> tf.Tensor:
    """``x`` in another shape."""
    return tf.reshape(x, shape)


def roll(x: tf.Tensor, /, shift: int | tuple[int, ...], *, axis: Axis = None) -> tf.Tensor:
    """``x`` with its elements moved around along axes, or in flat order for None."""
    if axis is None:
        return tf.reshape(tf.roll(tf.reshape(x, [-1]), shift, axis=0), x.shape)
    return tf.roll(x, shift, axis=axis)


def stack(arrays: Sequence[tf.Tensor], /, *, axis: int = 0) -> tf.Tensor:
    """Arrays joined along a new axis."""
    return tf.stack(arrays, axis=axis)


def take(x: tf.Tensor, indices: tf.Tensor, /, *, axis: int | None = None) -> tf.Tensor:
    """Slices of ``x`` by their numbers along an axis."""
    return tf.gather(x, indices, axis=0 if axis is None else axis)


# Fourier transforms, over the last two axes


def _fftn(x: tf.Tensor, /, *, s: None = None, axes: Axis = None, norm: str = "backward") -> tf.Tensor:
    """Fourier transform over the last two axes."""
    pixels = _last_two_axes(x, s, axes)
    return tf.signal.fft2d(x) * {"ortho": pixels**-0.5, "forward": 1.0 / pixels, "backward": 1.0}[norm]


def _ifftn(x: tf.Tensor, /, *, s: None = None, axes: Axis = None, norm: str = "backward") -> tf.Tensor:
    """Inverse of :func:`_fftn`; TensorFlow's own divides by the number of pixels."""
    pixels = _last_two_axes(x, s, axes)
    return tf.signal.ifft2d(x) * {"ortho": pixels**0.5, "forward": float(pixels), "backward": 1.0}[norm]


def _fftshift(x: tf.Tensor, /, *, axes: Axis = None) -> tf.Tensor:
    """Zero frequency from the first element to the middle."""
    return _shifted(x, axes, 0)


def _ifftshift(x: tf.Tensor, /, *, axes: Axis = None) -> tf.Tensor:
    """Inverse of :func:`_fftshift`."""
    return _shifted(x, axes, 1)


def _fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> tf.Tensor:
    """Frequencies of a transform of ``n`` samples ``d`` apart."""
    return asarray(np.fft.fftfreq(n, d), dtype=dtype or float32, device=device)


fft = SimpleNamespace(fftn=_fftn, ifftn=_ifftn, fftshift=_fftshift, ifftshift=_ifftshift, fftfreq=_fftfreq)


def _last_two_axes(x: tf.Tensor, s: None, axes: Axis) -> int:
    """Pixels of an image, where ``axes`` are its last two and its size is to stay."""
    wanted = range(x.ndim) if axes is None else axes if isinstance(axes, tuple) else (axes,)
    if s is not None or sorted(axis % x.ndim for axis in wanted) != [x.ndim - 2, x.ndim - 1]:
        raise ValueError(f"axes: got {axes} of {x.ndim}, s={s}; TensorFlow transforms the last two axes, (-2, -1).")
    return math.prod(x.shape[-2:])


def _shifted(x: tf.Tensor, axes: Axis, more: int) -> tf.Tensor:
    """``x`` rolled by half its size (rounded down, or up with one ``more``) along axes."""
    along = tuple(range(x.ndim)) if axes is None else axes if isinstance(axes, tuple) else (axes,)
    return tf.roll(x, [(x.shape[axis] + more) // 2 for axis in along], axis=along)


def _on(device: Any) -> Any:
    return contextlib.nullcontext() if device is None else tf.device(device)
