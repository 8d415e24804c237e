"""From what a reader found to the fields of a scan: window, pixels, orientation.

A reader may return, besides the fields of a `Scan`: ``positions_m`` (M, 2) in metres instead of ``positions``;
``beam_centre`` (row, col) of the zero frequency, pixels; ``record`` and ``record_positions`` of `ptycho.data.exact`;
frames and a mask that are not square.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho.data.lazy import LazyPatterns, in_memory
from ptycho.data.orientation import reorient
from ptycho.data.readers.roundtrip import restore
from ptycho.data.readers.units import PATCH_MIDDLE
from ptycho.errors import DataError

logger = logging.getLogger(__name__)

GENERAL_OPTIONS = frozenset({"beam_centre", "data_dirs", "fftshift", "orientation"})
"""Options of `load_scan` that every format understands."""


def assemble(found: dict[str, Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The fields of the scan, in pixels, on square frames around the zero frequency, in the orientation wanted.

    Parameters
    ----------
    found
        What the reader found.
    given
        What the caller states; its fields count before the file's.
    what
        The file, for messages.

    Raises
    ------
    DataError
        If positions in metres have no pixel to become, or the window does not fit the frames.
    """
    fields = dict(found)
    record, exact = fields.pop("record", None), fields.pop("record_positions", None)
    found_centre = fields.pop("beam_centre", None)
    if given.get("fftshift") and given.get("beam_centre") is not None:
        raise DataError(
            "fftshift and beam_centre are given, but unshifted frames have their centre at [0, 0]; give one."
        )
    if given.get("fftshift"):
        found_centre = None
        fields["patterns"] = _shifted(fields["patterns"])
        if fields.get("mask") is not None:
            fields["mask"] = np.fft.fftshift(fields["mask"])
    centre = found_centre if given.get("beam_centre") is None else given["beam_centre"]
    scale = _centre(fields, centre, what)
    if "positions_m" in fields:
        metres = fields.pop("positions_m")
        pixel = object_pixel(fields, given) or (record or {}).get("pixel_size")
        if pixel is None:
            raise DataError(
                f"{what}: the positions are in metres and the object's pixel is not known; give it with --pixel-size "
                "(metres), or --wavelength, --distance and --detector-pixel-size."
            )
        fields["positions"] = metres / pixel
        if "object_centre_m" in fields and fields.get("object") is not None:
            middle = (np.asarray(fields["object"].shape[-2:]) - 1) / 2 + PATCH_MIDDLE
            fields["object_origin"] = tuple((np.asarray(fields.pop("object_centre_m")) / pixel - middle).tolist())
    elif scale != 1:
        fields["positions"] = np.asarray(fields["positions"], np.float64) * scale
    fields.pop("object_centre_m", None)
    fields = restore(fields, record, exact, given.get("measurement"), what)
    orientation = given.get("orientation") or "none"
    if orientation != "none":
        fields["positions"] = reorient(np.asarray(fields["positions"], np.float64), orientation)
        if fields.get("object") is not None:
            logger.warning("%s: the object belongs to the positions as they were and is left out.", what)
            fields["object"] = fields["object_origin"] = None
    return fields


def object_pixel(fields: Mapping[str, Any], given: Mapping[str, Any]) -> float | None:
    """The object's pixel in metres: as stated, else wavelength * distance / (N * detector pixel); None if unknown."""
    both = {**fields, **{name: value for name, value in given.items() if value is not None}}
    if both.get("pixel_size") is not None:
        return float(both["pixel_size"])
    geometry = [both.get(name) for name in ("wavelength", "distance", "detector_pixel_size")]
    if any(value is None for value in geometry):
        return None
    wavelength, distance, pixel = (float(value) for value in geometry if value is not None)
    return wavelength * distance / (int(fields["patterns"].shape[-1]) * pixel)


def _shifted(patterns: Any) -> Any:
    if in_memory(patterns):
        return np.fft.fftshift(patterns, axes=(-2, -1))
    lazy = LazyPatterns.of(patterns)
    return dataclasses.replace(lazy, shifted=not lazy.shifted)


def _centre(fields: dict[str, Any], centre: Any, what: str) -> float:
    """Cut the frames to the largest even square around the zero frequency; return new over old side.

    Frames that are square and centred already, and those that say nothing about the beam, stay as they are.
    """
    shape = tuple(fields["patterns"].shape)
    if len(shape) != 3:
        return 1.0
    rows, columns = (int(length) for length in shape[1:])
    if centre is None:
        if rows != columns and "positions_m" in fields:
            raise DataError(
                f"{what}: frames of {rows}x{columns} pixels are given, square ones expected; give the zero frequency "
                "with --beam-centre ROW,COLUMN, and they are cut around it."
            )
        return 1.0
    row, column = (round(float(value)) for value in centre)
    if rows == columns and (row, column) == (rows // 2, rows // 2):
        return 1.0
    if not (0 < row < rows and 0 < column < columns):
        raise DataError(
            f"{what}: the beam's centre ({row}, {column}) is not inside the frames of {rows}x{columns} pixels; "
            "give --beam-centre ROW,COLUMN."
        )
    if "positions_m" not in fields and rows != columns:
        raise DataError(
            f"{what}: frames of {rows}x{columns} pixels and positions in pixels do not say what a pixel is; "
            "crop the frames to a square first."
        )
    half = min(row, rows - row, column, columns - column)
    window = (slice(row - half, row + half), slice(column - half, column + half))
    logger.info("%s: frames of %dx%d are cut to %d around (%d, %d).", what, rows, columns, 2 * half, row, column)
    patterns = fields["patterns"]
    cut = patterns[:, window[0], window[1]] if in_memory(patterns) else LazyPatterns.of(patterns).cut(*window)
    fields["patterns"] = cut
    if fields.get("mask") is not None:
        fields["mask"] = fields["mask"][window]
    for name in ("probe", "object"):
        if fields.get(name) is not None:
            logger.warning("%s: the %s is on the pixels of uncut frames and is left out.", what, name)
            fields[name] = None
    return 2 * half / rows
