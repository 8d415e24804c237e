"""Checks that several makers of probes and scans share, worded for the user."""

from __future__ import annotations

import math

from ptycho.errors import DataError

__all__ = ["require_positive", "require_size"]


def require_positive(name: str, value: float, unit: str) -> None:
    """Raise :class:`DataError` unless ``value`` is a positive, finite number."""
    if not 0 < value < math.inf:
        raise DataError(f"{name}: got {value}; expected a positive number ({unit}).")


def require_size(N: int) -> None:
    """Raise :class:`DataError` unless N is a whole number of pixels, at least 2."""
    if int(N) != N or N < 2:
        raise DataError(f"N: got {N}; expected the pixels along a side, at least 2.")
