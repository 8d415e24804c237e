"""A scan from plain arrays, for callers in Python: what they must say is said by name."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ptycho.data.readers.assemble import GENERAL_OPTIONS, assemble
from ptycho.data.scan import Measurement, Scan, scan_fields
from ptycho.errors import DataError


def scan_from_arrays(
    patterns: Any,
    positions: ArrayLike,
    *,
    measurement: Measurement,
    unit: Literal["pixels", "metres"] = "pixels",
    order: Literal["row-column", "x-y"] = "row-column",
    **more: Any,
) -> Scan:
    """Make a scan from arrays of any library that numpy can read, converting what has other conventions.

    Parameters
    ----------
    patterns
        (M, H, W) real or integer, zero frequency in the middle. A memory map or an open HDF5 dataset stays unread.
    positions
        (M, 2) of the patch's centre on the object.
    measurement
        "counts" or "amplitude".
    unit
        Of the positions; metres become pixels by `pixel_size`, or `wavelength`, `distance` and `detector_pixel_size`.
    order
        "row-column", or "x-y" where a position is (column, row).
    **more
        Other fields of a `Scan`, and `fftshift`, `beam_centre` and `orientation` as in `load_scan`.

    Raises
    ------
    DataError
        Naming what is not as it should be.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> patterns = np.ones((4, 8, 8), np.uint16)
    >>> ptycho.scan_from_arrays(patterns, np.zeros((4, 2)), measurement="counts").measurement
    'counts'
    """
    unknown = sorted(set(more) - {*scan_fields(), *GENERAL_OPTIONS})
    if unknown:
        raise DataError(f"scan_from_arrays: unknown {', '.join(unknown)}; known are {', '.join(scan_fields())}.")
    if unit not in ("pixels", "metres"):
        raise DataError(f"unit: {unit!r} given, 'pixels' or 'metres' expected.")
    if order not in ("row-column", "x-y"):
        raise DataError(f"order: {order!r} given, 'row-column' or 'x-y' expected.")
    places = np.asarray(positions)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iuf":
        raise DataError(f"positions: {places.dtype} of shape {places.shape} given, (M, 2) real numbers expected.")
    places = places[:, ::-1] if order == "x-y" else places
    if not (hasattr(patterns, "shape") and hasattr(patterns, "dtype")) or hasattr(patterns, "detach"):
        patterns = np.asarray(patterns)
    found = {
        "patterns": patterns,
        "measurement": measurement,
        "positions_m" if unit == "metres" else "positions": places.astype(np.float64),
        **{name: value for name, value in more.items() if name in scan_fields()},
    }
    return Scan(**assemble(found, more, "arrays"))
