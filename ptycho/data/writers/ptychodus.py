"""ptychodus's data product: the vocabulary of its HDF5 and NPZ files, filled from a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.ptychodus import NUMBERS, POSITIONS
from ptycho.data.readers.units import ELECTRON_VOLT, energy_of
from ptycho.data.scan import Scan
from ptycho.data.writers.hdf5 import needed_pixel, object_centre, plain_text

_MARGIN = 2


@dataclass(frozen=True)
class ProductContent:
    """What stands in a product: texts, quantities, arrays, and the fields that stand in for what the scan lacks."""

    texts: dict[str, str]
    numbers: dict[str, float]
    arrays: dict[str, NDArray[Any]]
    pixel: float
    object_centre: tuple[float, float]
    placeholders: tuple[str, ...]


def product_content(scan: Scan) -> ProductContent:
    """The product of a scan.

    A product must have a probe and an object. Where the scan has none, the probe is dark and the object is a flat one
    that all positions lie on. Energy and distance are 0 where they are unknown, as ptychodus itself has it.

    Raises
    ------
    DataError
        If the object's pixel is not known.
    """
    pixel = needed_pixel(scan, "ptychodus")
    placeholders = [name for name in ("probe", "object", "mask") if getattr(scan, name) is None]
    probe = np.zeros((1, scan.N, scan.N), np.complex64) if scan.probe is None else scan.probe
    image, centre = _object(scan, pixel)
    kept = scan.metadata.get("ptychodus")
    kept = kept if isinstance(kept, dict) else {}
    return ProductContent(
        texts={"name": plain_text(scan.name), "comments": plain_text(str(kept.get("comments", "")))},
        numbers={
            "detector_object_distance_m": scan.distance or 0.0,
            "photon_energy_eV": 0.0 if scan.wavelength is None else energy_of(scan.wavelength) / ELECTRON_VOLT,
            **{name: float(kept.get(name, 0.0)) for name in NUMBERS},
        },
        arrays={
            "probe_position_indexes": np.arange(len(scan)),
            POSITIONS[0]: scan.positions[:, 0] * pixel,
            POSITIONS[1]: scan.positions[:, 1] * pixel,
            "probe": probe[None],
            "object": image[None],
            "object_layer_spacing_m": np.zeros(0),
            "loss_epochs": np.zeros(0, np.int64),
            "loss_values": np.zeros(0),
            "indexes": np.arange(len(scan)),
            "bad_pixels": np.zeros((scan.N, scan.N), bool) if scan.mask is None else ~scan.mask,
        },
        pixel=pixel,
        object_centre=centre,
        placeholders=tuple(placeholders),
    )


def lost_in_product(scan: Scan) -> list[str]:
    """What ptychodus will not see, or sees something else in the place of."""
    lost = []
    if scan.measurement == "amplitude":
        lost.append("The amplitudes are stored as counts, their squares.")
    if scan.wavelength is None or scan.distance is None:
        lost.append("The photon energy or the distance is not known and written as 0.")
    if scan.detector_pixel_size is None:
        lost.append("The detector's pixel is not known and written as 0.")
    if scan.probe is None:
        lost.append("There is no probe; a dark one is written, since a product has to have one.")
    if scan.object is None:
        lost.append("There is no object; a flat one is written, since a product has to have one.")
    if scan.scan_index is not None or set(scan.metadata) - {"ptychodus"}:
        lost.append("Scan numbers and metadata are kept where only this library looks.")
    return lost


def _object(scan: Scan, pixel: float) -> tuple[NDArray[Any], tuple[float, float]]:
    """(H, W) object and the (row, col) of its middle in metres."""
    if scan.object is not None:
        return scan.object, object_centre(scan, pixel)
    low, high = scan.positions.min(axis=0), scan.positions.max(axis=0)
    middle = (low + high) / 2 * pixel
    sides = np.minimum(np.ceil(high - low).astype(np.int64) + scan.N + _MARGIN, 2**14)
    return np.ones(sides, np.complex64), (float(middle[0]), float(middle[1]))
