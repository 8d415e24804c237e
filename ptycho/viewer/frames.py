"""Format of arrays sent to a page: a JSON header followed by the numbers as little-endian float32."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho.visible import visible

__all__ = ["frame", "plain_json"]


def frame(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The length of the header as uint32, the header, and the arrays one after the other.

    Parameters
    ----------
    header : JSON; ``arrays`` is added, name, shape and number of floats per value (2 for complex) of each.
    arrays : real or complex.
    """
    parts, described = [], []
    for name, values in arrays.items():
        kind = "<c8" if np.iscomplexobj(values) else "<f4"
        parts.append(np.ascontiguousarray(values, dtype=kind).tobytes())
        described.append({"name": name, "shape": list(values.shape), "floats": 2 if kind == "<c8" else 1})
    text = plain_json({**header, "arrays": described})
    text += b" " * (-len(text) % 4)  # the numbers begin at a multiple of four bytes
    return struct.pack("<I", len(text)) + text + b"".join(parts)


def plain_json(values: Any) -> bytes:
    """JSON for browsers: values that are not finite become null, control codes and surrogates escapes."""
    return json.dumps(_finite(values), separators=(",", ":")).encode()


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {visible(key): _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    if isinstance(values, float | np.floating):
        return float(values) if np.isfinite(values) else None
    return visible(values) if isinstance(values, str) else values
