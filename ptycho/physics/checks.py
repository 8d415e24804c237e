"""Checks shared by the physics, with messages for the user: numbers, and arrays that enter one formula.

One rule holds in every framework: the arrays belong to one framework and lie on one device, otherwise an error is
raised; if one of them is in double precision, so is the result. Positions are the exception: numpy positions go with
the patches of any framework, and they may be integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ptycho.backends import Array, array_namespace, device, get_backend
from ptycho.errors import DataError

__all__ = ["array_of", "positions_beside", "require_positive", "require_size", "require_together", "widest"]


def require_positive(name: str, value: float, unit: str) -> None:
    """Raise :class:`DataError` unless ``value`` is a positive, finite number."""
    if not 0 < value < math.inf:
        raise DataError(f"{name}: got {value}; expected a positive number ({unit}).")


def require_size(N: int) -> None:
    """Raise :class:`DataError` unless N is a whole number of pixels, at least 2."""
    if int(N) != N or N < 2:
        raise DataError(f"N: got {N}; expected the pixels along a side, at least 2.")


def array_of(values: Any, name: str = "values") -> Array:
    """An array of any framework as it is; lists, tuples and numbers as a numpy array.

    Raises
    ------
    DataError
        A list is ragged or holds something that is not a number.
    """
    if not isinstance(values, list | tuple | int | float | complex):
        return values
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biufc":
        raise DataError(f"{name}: got a list that is not an array of numbers; expected rows of equal length.")
    return array


def require_together(**arrays: Array | None) -> Any:
    """The common namespace of arrays that enter one formula.

    Parameters
    ----------
    arrays : by the name of the argument; None where one is not given. Inside a compiled function an array has no
        device yet and is left to the framework.

    Raises
    ------
    DataError
        They belong to different frameworks, or lie on different devices.
    """
    (first, one), *others = ((name, array) for name, array in arrays.items() if array is not None)
    for name, other in others:
        owners = get_backend(one), get_backend(other)
        if owners[0] is not owners[1]:
            raise DataError(
                f"{name}: got an array of {owners[1].name} beside {first} of {owners[0].name}; expected one framework: "
                f"convert it with ptycho.backends.get_backend({first}).asarray({name})."
            )
        places = _place(one), _place(other)
        if None not in places and places[0] != places[1]:
            raise DataError(
                f"{name}: got an array on {device(other)} beside {first} on {device(one)}; expected one device: move "
                f"it with ptycho.backends.get_backend({first}).asarray({name}, device=...)."
            )
    return array_namespace(one)


def widest(xp: Any, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in one precision: double if one of them is in double precision, otherwise as they are."""
    double = (xp.float64, xp.complex128)
    if not any(array.dtype in double for array in arrays):
        return arrays
    return tuple(_doubled(xp, array) for array in arrays)


def positions_beside(like: Array, positions: Array, name: str = "positions", beside: str = "patches") -> Array:
    """``positions`` as real floating numbers in the framework and on the device of ``like``.

    Parameters
    ----------
    like : what the positions belong to.
    positions : (..., 2) real or integer; of the same framework and on the same device, or numpy.
    name, beside : names of ``positions`` and ``like`` in error messages.

    Raises
    ------
    DataError
        They are of another framework or on another device, or do not end in an axis of length 2.
    """
    if positions.ndim < 1 or positions.shape[-1] != 2:
        raise DataError(f"{name}: got shape {tuple(positions.shape)}; expected (..., 2), (row, col) in pixels.")
    if isinstance(positions, np.ndarray) and not isinstance(like, np.ndarray):
        positions = get_backend(like).asarray(positions, device=device(like))
    xp = require_together(**{beside: like, name: positions})
    if xp.isdtype(positions.dtype, "real floating"):
        return positions
    return xp.astype(positions, xp.real(like).dtype if xp.isdtype(like.dtype, "complex floating") else like.dtype)


def _place(array: Array) -> Any:
    """The device of an array in a comparable form; all of them where it is sharded."""
    where = device(array)
    return getattr(where, "device_set", {where}) if where is not None else None


def _doubled(xp: Any, array: Array) -> Array:
    if xp.isdtype(array.dtype, "complex floating"):
        return xp.astype(array, xp.complex128)
    return xp.astype(array, xp.float64) if xp.isdtype(array.dtype, "real floating") else array
