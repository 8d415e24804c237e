"""What is meant by an array, where one lies, and how many of its pixels a processor's cache holds."""

from __future__ import annotations

import math
import sys
from typing import Any

import array_api_compat

__all__ = ["Array", "cached_parts", "device"]

Array = Any
"""An array of any supported framework."""

_CACHED = 2**18
"""Complex pixels that are worked on at once: two megabytes, and as much again for each intermediate result."""


def device(a: Array) -> Any:
    """Where ``a`` lies, in the words of its framework; what creation functions take as ``device=``."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(a):
        return None if tensorflow.is_symbolic_tensor(a) else a.device  # inside a compiled function it has none yet
    return array_api_compat.device(a)


def cached_parts(shape: tuple[int, ...], most: int | None = None) -> list[slice]:
    """Parts of the first axis of a stack, at most so many, that stay in a processor's cache with what comes of them."""
    step = max(1, _CACHED // max(1, math.prod(shape[1:])), 0 if most is None else -(-shape[0] // most))
    return [slice(first, first + step) for first in range(0, shape[0], step)]
