"""What a scan holds beyond a foreign format, kept beside the format's own fields so that a round trip is exact.

Formats in metres round every position, and have no place for the measurement, a name, or where the object lies. The
writers of this library add a record of those. It counts only while it agrees with the format's own fields: once another
program has changed them, they win.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.lazy import LazyPatterns
from ptycho.data.readers.limits import json_object
from ptycho.data.scan import Scan
from ptycho.errors import DataError

logger = logging.getLogger(__name__)

FORMAT_ID = "ptychopinn-scan"
LENGTHS = ("wavelength", "distance", "detector_pixel_size", "pixel_size")
_STATED = ("measurement", "object_origin", *LENGTHS, "name")
_SAME_PIXELS = 1e-3
_SAME_RELATIVE = 1e-6


def scan_record(scan: Scan, **more: Any) -> str:
    """The record of a scan as JSON: everything but its arrays.

    Parameters
    ----------
    scan
        The scan.
    **more
        What a format must remember besides, as plain values.

    Raises
    ------
    DataError
        If the scan's metadata cannot be expressed as JSON.
    """
    content = {
        "format": FORMAT_ID,
        "version": 1,
        **{name: getattr(scan, name) for name in _STATED},
        "metadata": dict(scan.metadata),
        **more,
    }
    try:
        return json.dumps(content, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"metadata: not everything in it can be written as JSON ({error}).") from error


def read_record(text: str | None, what: str) -> dict[str, Any] | None:
    """The record from its JSON; None where there is none.

    Raises
    ------
    DataError
        If it is no JSON object.
    """
    if not text:
        return None
    content = json_object(text, what)
    return content if content.get("format") == FORMAT_ID else None


def stated_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Scan` that a record states."""
    stated = {name: record[name] for name in _STATED if record.get(name) is not None}
    if isinstance(stated.get("object_origin"), list):
        stated["object_origin"] = tuple(stated["object_origin"])
    metadata = record.get("metadata", {})
    return {**stated, "metadata": metadata if isinstance(metadata, dict) else {}}


def restore(
    found: dict[str, Any],
    record: Mapping[str, Any] | None,
    positions: NDArray[Any] | None,
    measurement: str | None,
    what: str,
) -> dict[str, Any]:
    """The fields of a scan with the record's exact values, where it agrees with what the format itself says.

    Parameters
    ----------
    found
        Fields read from the format's own places; positions in pixels.
    record
        From `read_record`.
    positions
        (M, 2) the exact positions of the record, pixels.
    measurement
        What the caller says was measured; None where it is left to the file.
    what
        The file, for the log.
    """
    if record is None:
        return found
    stated = stated_fields(record)
    if not _agrees(found, stated, positions):
        logger.warning(
            "%s: the exact record does not agree with the file's other fields and what was given; it is left out.", what
        )
        return found
    exact = {**found, **stated}
    exact["pixel_size"] = stated.get("pixel_size")
    for name in record.get("placeholders", ()):
        exact[name] = None
    if positions is not None:
        exact["positions"] = positions
    if record.get("amplitude_dtype") and measurement != "counts":
        exact["patterns"] = amplitudes_of_counts(found["patterns"], record["amplitude_dtype"], what)
    return exact


def counts_of_amplitudes(values: NDArray[Any]) -> NDArray[Any]:
    """Squares of amplitudes, exactly reversible: floats in their own type, integers as uint64.

    The square root of a rounded square is the number itself in binary floating point, unless the square underflows.

    Raises
    ------
    DataError
        If an integer is too large for its square.
    """
    if values.dtype.kind == "f":
        return np.square(values)
    if values.size and values.max() >= 2**32:
        raise DataError("patterns: integer amplitudes of 2^32 and more cannot be squared; they are no amplitudes.")
    return np.square(values.astype(np.uint64))


def amplitudes_of_counts(counts: Any, dtype: str, what: str) -> LazyPatterns:
    """Square roots of stored counts, unread, in the type that the amplitudes had.

    Raises
    ------
    DataError
        If the type is none of real numbers.
    """
    try:
        kind = np.dtype(str(dtype))
    except TypeError as error:
        raise DataError(f"{what}: the amplitudes' type {dtype!r} is not known.") from error
    if kind.kind not in "uif":
        raise DataError(f"{what}: the amplitudes' type {dtype!r} is none of real numbers.")

    def root(values: NDArray[Any]) -> NDArray[Any]:
        roots = np.sqrt(values)
        return roots.astype(kind) if kind.kind == "f" else np.rint(roots).astype(kind)

    return dataclasses.replace(LazyPatterns.of(counts), convert=root, converts_to=kind)


def _agrees(found: Mapping[str, Any], stated: Mapping[str, Any], positions: NDArray[Any] | None) -> bool:
    for name in LENGTHS:
        one, other = found.get(name), stated.get(name)
        if one is not None and other is not None and abs(one - other) > _SAME_RELATIVE * abs(other):
            return False
    own = found.get("object_origin")
    if (
        own is not None
        and "object_origin" in stated
        and np.abs(np.subtract(own, stated["object_origin"])).max() > _SAME_PIXELS
    ):
        return False
    if positions is None:
        return True
    mine = np.asarray(found["positions"])
    if mine.shape != positions.shape:
        return False
    allowed = _SAME_PIXELS + _SAME_RELATIVE * np.abs(positions).max(initial=0)
    return bool(np.abs(mine - positions).max(initial=0) <= allowed)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
