"""The checks of the fields of a `Scan`; each returns the field in the type in which it is stored.

Every message names the field, says what was given and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError


def patterns(value: Any) -> Any:
    """Check rank, squareness and dtype of the patterns without reading them; lists become numpy arrays."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__")):
        value = _as_array("patterns", value)
    shape = tuple(value.shape)
    if len(shape) != 3:
        raise DataError(f"patterns: rank {len(shape)} (shape {shape}) given, rank 3 (number, row, column) expected.")
    if shape[1] != shape[2]:
        raise DataError(f"patterns: {shape[1]}x{shape[2]} given, square patterns expected; crop them to a square.")
    if shape[0] == 0 or shape[1] < 2:
        raise DataError(f"patterns: shape {shape} holds no patterns; at least one of 2x2 pixels is expected.")
    dtype = np.dtype(value.dtype)
    if dtype.kind not in "uif":
        raise DataError(f"patterns: dtype {dtype} given, integer or real numbers expected (counts or amplitudes).")
    return value


def values(
    chunk: NDArray[Any], mask: NDArray[np.bool_] | None, number_of: Callable[[int], int] = lambda place: place
) -> None:
    """Refuse negative and non-finite values at good pixels.

    Parameters
    ----------
    chunk
        (K, N, N) patterns.
    mask
        (N, N) good pixels, or None for all.
    number_of
        Function from the index of a pattern in the chunk to its index in the file, for the message.
    """
    if chunk.dtype.kind == "u" or chunk.size == 0:
        return
    good: Any = True if mask is None else mask
    low = np.min(chunk, initial=0, where=good)
    high = np.max(chunk, initial=0, where=good)
    if np.isfinite(low) and np.isfinite(high) and low >= 0:
        return
    wrong = (~np.isfinite(chunk) | (chunk < 0)) & good
    place, row, col = (int(i) for i in np.argwhere(wrong)[0])
    raise DataError(
        f"patterns: {int(wrong[place].sum())} negative or non-finite value(s) at good pixels of pattern "
        f"{number_of(place)}, the first is {chunk[place, row, col]} at pixel ({row}, {col}); "
        "mark such pixels as bad in the mask or repair the data."
    )


def measurement(value: Any) -> Any:
    """Check that the measurement is one of the two that exist."""
    if value not in ("counts", "amplitude"):
        raise DataError(f"measurement: {value!r} given, 'counts' or 'amplitude' expected.")
    return value


def positions(value: Any, count: int) -> NDArray[np.float64]:
    """Check the (M, 2) positions; they become float64."""
    array = _as_array("positions", value)
    if array.ndim != 2 or array.shape[1] != 2:
        raise DataError(f"positions: shape {array.shape} given, (M, 2) expected: the (row, col) of every pattern.")
    if array.shape[0] != count:
        raise DataError(f"positions: {array.shape[0]} coordinates given for {count} patterns; one each is expected.")
    array = _real(array, "positions")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise DataError(f"positions: {bad.size} of {count} are not finite, the first is that of pattern {bad[0]}.")
    return array


def probe(value: Any, n: int) -> NDArray[np.complexfloating] | None:
    """Check the probe modes; a single (N, N) mode becomes (1, N, N), real becomes complex."""
    if value is None:
        return None
    array = _as_array("probe", value)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[1:] != (n, n) or array.shape[0] == 0:
        raise DataError(f"probe: shape {array.shape} given, (modes, {n}, {n}) expected, as large as the patterns.")
    return _complex(array, "probe")


def complex_image(name: str, value: Any) -> NDArray[np.complexfloating] | None:
    """Check an (H, W) image; real becomes complex."""
    if value is None:
        return None
    array = _as_array(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"{name}: shape {array.shape} given, an image (rows, columns) expected.")
    return _complex(array, name)


def origin(value: Any, given: bool) -> tuple[float, float] | None:
    """Check the (row, col) of `object[0, 0]`; (0, 0) where an object is given without one, None without an object."""
    if not given:
        return None
    if value is None:
        return (0.0, 0.0)
    array = _real(_as_array("object_origin", value), "object_origin")
    if array.shape != (2,) or not np.isfinite(array).all():
        raise DataError(f"object_origin: {value!r} given, two finite numbers (row, col) expected.")
    return (float(array[0]), float(array[1]))


def length(name: str, value: Any) -> float | None:
    """Check a length in metres."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise DataError(f"{name}: {value!r} given, a positive length in metres expected.")
    return number


def mask(value: Any, n: int) -> NDArray[np.bool_] | None:
    """Check the (N, N) mask of good pixels; 0 and 1 become bool."""
    if value is None:
        return None
    array = _as_array("mask", value)
    if array.shape != (n, n):
        raise DataError(f"mask: shape {array.shape} given, ({n}, {n}) expected, as large as a pattern.")
    if array.dtype != np.bool_:
        if array.dtype.kind not in "uif" or not np.isin(array, (0, 1)).all():
            raise DataError("mask: values other than True (good) and False (bad) given.")
        array = array.astype(np.bool_)
    if not array.any():
        raise DataError("mask: every pixel is marked bad; True marks the good ones.")
    return array


def scan_index(value: Any, count: int) -> NDArray[np.integer] | None:
    """Check the (M,) scan numbers."""
    if value is None:
        return None
    array = _as_array("scan_index", value)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(
            f"scan_index: {array.dtype} of shape {array.shape} given, one integer per pattern ({count}) expected."
        )
    return array


def _as_array(name: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: the value given is not an array of numbers ({error}).") from error
    if array.dtype.hasobject:
        raise DataError(f"{name}: an array of Python objects given, an array of numbers expected.")
    return array


def _real(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    if array.dtype.kind not in "uif":
        raise DataError(f"{name}: dtype {array.dtype} given, real numbers expected.")
    return array.astype(np.float64)


def _complex(array: NDArray[Any], name: str) -> NDArray[np.complexfloating]:
    if array.dtype.kind not in "uifc":
        raise DataError(f"{name}: dtype {array.dtype} given, complex numbers expected.")
    wide = array.dtype in (np.complex128, np.float64)
    array = array.astype(np.complex128 if wide else np.complex64, copy=False)
    if not np.isfinite(array).all():
        raise DataError(f"{name}: {int((~np.isfinite(array)).sum())} value(s) are not finite.")
    return array
