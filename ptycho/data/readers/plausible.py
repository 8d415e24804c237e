"""The check that a scan's field can be reconstructed on this machine, before anything of its size is allocated."""

from __future__ import annotations

import numpy as np

from ptycho.data.readers.limits import physical_memory, readable
from ptycho.data.scan import Scan
from ptycho.errors import DataError

__all__ = ["check_field"]

_BYTES_PER_PIXEL = 24
"""Of the object alone while it is summed: complex sum and weight in single precision, and the quotient."""
_LARGE = 2**22
"""Pixels of an object below which no outlier matters to the memory."""
_SHRINKS = 10.0
"""Without outliers the object is this many times smaller; that of an ordinary scan shrinks by a few per cent."""


def check_field(scan: Scan) -> Scan:
    """Return the scan, or refuse one whose object is larger than the memory, or is large because of a few positions.

    Raises
    ------
    DataError
        Naming the outlying pattern, or the unit that the positions may have.
    """
    pixels = _object_pixels(scan.positions, scan.N)
    if pixels <= _LARGE:
        return scan
    away = np.abs(scan.positions - np.median(scan.positions, axis=0)).max(axis=1)
    few = min(max(3, len(scan) // 100), len(scan) - 1)
    inner = np.argsort(away)[: len(scan) - few]
    if pixels > _SHRINKS * max(_object_pixels(scan.positions[inner], scan.N), _LARGE / _SHRINKS):
        number = int(np.argmax(away))
        row, col = scan.positions[number]
        (top, left), (bottom, right) = scan.positions[inner].min(axis=0), scan.positions[inner].max(axis=0)
        raise DataError(
            f"positions: pattern {number} lies at ({row:.6g}, {col:.6g}), {away[number]:.6g} pixels from the middle of "
            f"the scan, so that the object would have {pixels:.3g} pixels; correct its position, or leave it out with "
            f"--region {top:.0f}:{bottom + 1:.0f},{left:.0f}:{right + 1:.0f}."
        )
    size = int(pixels * _BYTES_PER_PIXEL)
    if size > physical_memory():
        raise DataError(
            f"positions: the object would have {pixels:.3g} pixels and take {readable(size)}, "
            f"more than the {readable(physical_memory())} of memory here; if the positions are in another unit, "
            "correct --pixel_size (metres), --wavelength, --distance or --detector_pixel_size; else reconstruct a "
            "part with --region."
        )
    return scan


def _object_pixels(positions: np.ndarray, size: int) -> float:
    return float(np.prod(np.ptp(positions, axis=0) + size))
