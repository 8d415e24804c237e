"""PtychoPINN's NPZ in its dialects, including the one that ptychodus writes and the one of `ptycho.data.save_npz`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.mapped import read_mapped
from ptycho.data.readers.limits import json_object
from ptycho.data.readers.roundtrip import FORMAT_ID, stated_fields
from ptycho.data.readers.units import PATCH_MIDDLE
from ptycho.data.scan import measurement_by_contract
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.npz import NpzArchive
    from ptycho.data.readers.registry import ScanFile

logger = logging.getLogger(__name__)


class PtychoPINNReader:
    """Reads `diff3d` (M, N, N), or the older `diffraction` whose scan axis is the one as long as the coordinates.

    Positions are `ycoords`, `xcoords` in object pixels of the patch's centre: the true ones, not the nominal
    `*_start`. What was measured is what the file's `_metadata` says; without that it follows from the contract:
    integers, and files with `bad_pixels` (ptychodus), hold counts, other real numbers hold amplitudes.
    """

    name = "ptychopinn-npz"
    description = "an NPZ file with diff3d (or diffraction), xcoords and ycoords"
    options = frozenset({"scan_axis"})

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its keys."""
        keys = file.npz.keys() if file.npz else ()
        return any(key in keys for key in ("diff3d", "diffraction", "xcoords"))

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan; `scan_axis` (0, 1 or 2) names the axis of the patterns in a legacy cube."""
        archive = file.npz
        if archive is None:
            raise DataError(f"{file.path} is not an NPZ file, which the format {self.name} is.")
        columns, rows = (_coordinates(archive, key) for key in ("xcoords", "ycoords"))
        if columns.shape != rows.shape:
            raise DataError(
                f"{file.path}: xcoords has {columns.size} values, ycoords {rows.size}; as many are expected."
            )
        patterns = _patterns(archive, columns.size, given.get("scan_axis"))
        stated = _stated(archive)
        fields: dict[str, Any] = {
            "patterns": patterns,
            "measurement": given.get("measurement") or stated.pop("measurement", None) or _contract(archive, patterns),
            "positions": np.stack([rows, columns], axis=-1),
            "probe": _without_leading_ones(_optional(archive, "probeGuess"), 3),
            "object": _without_leading_ones(_optional(archive, "objectGuess"), 2),
            "scan_index": _optional(archive, "scan_index"),
        }
        bad = _optional(archive, "bad_pixels")
        if bad is not None:
            fields["mask"] = ~bad.astype(bool)
            if fields["object"] is not None:  # ptychodus wrote it
                fields["object_origin"] = (-PATCH_MIDDLE, -PATCH_MIDDLE)
        stated.pop("measurement", None)
        return {**fields, **stated}


def _coordinates(archive: NpzArchive, key: str) -> NDArray[np.float64]:
    values = archive.array(key)
    if values.ndim != 1 or values.dtype.kind not in "uif":
        raise DataError(
            f"{archive.path}: {key} is {values.dtype} of shape {values.shape}, one real number per pattern expected."
        )
    return values.astype(np.float64)


def _patterns(archive: NpzArchive, count: int, scan_axis: int | None) -> NDArray[Any]:
    """The patterns as (M, N, N), whatever the dialect."""
    if "diff3d" in archive or "diffraction" not in archive:
        cube = archive.array("diff3d", mapped=True)
        axis = 0 if scan_axis is None else scan_axis
    else:
        cube = archive.array("diffraction", mapped=True)
        axis = _scan_axis(archive, cube, count) if scan_axis is None else scan_axis
    if cube.ndim != 3:
        raise DataError(f"{archive.path}: patterns of rank {cube.ndim} (shape {cube.shape}) given, rank 3 expected.")
    if axis not in (-3, -2, -1, 0, 1, 2):
        raise DataError(f"scan_axis: {axis!r} given, 0, 1 or 2 expected.")
    return cube if axis in (0, -3) else np.ascontiguousarray(read_mapped(np.moveaxis(cube, axis, 0)))


def _scan_axis(archive: NpzArchive, cube: NDArray[Any], count: int) -> int:
    if cube.ndim != 3:
        return 0
    fitting = [axis for axis in (0, 2) if cube.shape[axis] == count]
    if not fitting:
        raise DataError(
            f"{archive.path}: diffraction has shape {cube.shape}, but there are {count} coordinates; "
            "neither its first nor its last axis is as long."
        )
    if len(fitting) > 1:
        raise DataError(
            f"{archive.path}: diffraction has shape {cube.shape} and {count} coordinates, so its first and its last "
            "axis may be the scan; say which with scan_axis=0 or scan_axis=2."
        )
    return fitting[0]


def _contract(archive: NpzArchive, patterns: NDArray[Any]) -> str:
    return "counts" if "bad_pixels" in archive else measurement_by_contract(patterns.dtype)


def _optional(archive: NpzArchive, key: str) -> NDArray[Any] | None:
    if archive.is_pickled_scalar(key):
        logger.warning("%s: %s is a pickled object, which is not read.", archive.path, key)
    return archive.optional(key)


def _without_leading_ones(values: NDArray[Any] | None, rank: int) -> NDArray[Any] | None:
    while values is not None and values.ndim > rank and values.shape[0] == 1:
        values = values[0]
    return values


def _stated(archive: NpzArchive) -> dict[str, Any]:
    """What `_metadata` states: fields of the scan if this library wrote it, and the rest as metadata."""
    text = _optional(archive, "_metadata")
    if text is None:
        return {}
    if text.size == 0:
        raise DataError(f"{archive.path}: _metadata is empty, a JSON object expected; remove it or repair it.")
    content = json_object(str(text.reshape(-1)[0]), f"{archive.path}: _metadata")
    return stated_fields(content) if content.get("format") == FORMAT_ID else {"metadata": content}
