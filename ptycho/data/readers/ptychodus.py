"""ptychodus's data products: the vocabulary that its HDF5 and NPZ files share, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.data.lazy import LazyPatterns
from ptycho.data.readers.roundtrip import read_record
from ptycho.data.readers.units import ELECTRON_VOLT, wavelength_of
from ptycho.errors import DataError

POSITIONS = ("probe_position_y_m", "probe_position_x_m")
NUMBERS = (
    "probe_photon_count",
    "exposure_time_s",
    "mass_attenuation_m2_per_kg",
    "tomography_angle_deg",
    "tilt_angle_deg",
    "focus_object_distance_m",
)
"""Quantities of a product that a scan keeps in its metadata, under "ptychodus"."""


class Product(Protocol):
    """The arrays and quantities of a product, whatever file they stand in."""

    what: str

    def array(self, name: str) -> NDArray[Any] | None:
        """A whole array of the product; None if it is missing."""

    def number(self, name: str) -> float | None:
        """A quantity of the product; None if it is missing."""

    def text(self, name: str) -> str | None:
        """A text of the product; None if it is missing."""


def product_fields(product: Product) -> dict[str, Any]:
    """The fields of a scan that a product holds, all but the patterns and the mask.

    Object pixel (i, j) of an H x W object lies at center + (j - (W - 1)/2, i - (H - 1)/2) * pixel in (x, y), and
    positions are those of the middle of a patch, half a pixel before its pixel N//2, in the same metres: row along
    +y, column along +x.

    Raises
    ------
    DataError
        If the product lacks its positions, or its object's pixels are not square.
    """
    rows, columns = (_positions(product, name) for name in POSITIONS)
    if rows.shape != columns.shape:
        raise DataError(f"{product.what}: {POSITIONS[1]} has {columns.size} values, {POSITIONS[0]} {rows.size}.")
    image = _slice(product.array("object"))
    probe = _modes(product.array("probe"))
    fields: dict[str, Any] = {
        "positions_m": np.stack([rows, columns], axis=-1),
        "pixel_size": _pixel(product),
        "wavelength": _wavelength(product),
        "distance": _positive(product.number("detector_object_distance_m")),
        "probe": probe if probe is not None and probe.any() else None,
        "object": image if image is not None and image.any() else None,
        "name": product.text("name"),
        "metadata": _metadata(product),
        "record": read_record(product.text("ptychopinn_scan"), f"{product.what}: ptychopinn_scan"),
        "record_positions": product.array("ptychopinn_positions"),
        "scan_index": product.array("ptychopinn_scan_index"),
    }
    centre = [product.number(f"object_center_{axis}_m") for axis in "yx"]
    if fields["object"] is not None and None not in centre:
        fields["object_centre_m"] = centre
    return fields


def matched(fields: dict[str, Any], indexes: NDArray[Any] | None, numbers: NDArray[Any] | None) -> dict[str, Any]:
    """The patterns that have a position with their positions, in the order of the patterns.

    Parameters
    ----------
    fields
        With ``patterns`` and ``positions_m``.
    indexes, numbers
        The index of every pattern and of every position; None where they are counted from 0.

    Raises
    ------
    DataError
        If an index stands twice, or none is common.
    """
    patterns, positions = fields["patterns"], fields["positions_m"]
    first = np.arange(patterns.shape[0]) if indexes is None else np.asarray(indexes).reshape(-1)
    second = np.arange(len(positions)) if numbers is None else np.asarray(numbers).reshape(-1)
    for what, values, count in (
        ("indexes", first, patterns.shape[0]),
        ("probe_position_indexes", second, len(positions)),
    ):
        if values.dtype.kind not in "iu" or len(values) != count or len(np.unique(values)) != count:
            raise DataError(f"{what}: {len(values)} values given for {count}, a different integer for each expected.")
    if np.array_equal(first, second):
        return fields
    _, mine, theirs = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    if not mine.size:
        raise DataError("No pattern has the index of a position; the two files do not belong together.")
    order = np.argsort(mine, kind="stable")
    mine, theirs = mine[order], theirs[order]
    chosen = {
        name: fields[name][theirs]
        for name in ("record_positions", "scan_index")
        if fields.get(name) is not None and len(fields[name]) == len(positions)
    }
    return {
        **fields,
        **chosen,
        "patterns": LazyPatterns.of(patterns).select(mine.astype(np.int64)),
        "positions_m": positions[theirs],
    }


def _positions(product: Product, name: str) -> NDArray[np.float64]:
    values = product.array(name)
    if values is None:
        raise DataError(f"{product.what} lacks {name}; a product with the positions of the probe is expected.")
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise DataError(f"{product.what}: {name} is {values.dtype} of shape {values.shape}, one length each expected.")
    return values.astype(np.float64)


def _pixel(product: Product) -> float | None:
    height, width = (_positive(product.number(f"object_pixel_{side}_m")) for side in ("height", "width"))
    if height is not None and width is not None and abs(height - width) > 1e-6 * width:
        raise DataError(
            f"{product.what}: the object's pixels are {height:g} m high and {width:g} m wide, square ones are "
            "expected; resample the product."
        )
    return height or width


def _wavelength(product: Product) -> float | None:
    energy = _positive(product.number("photon_energy_eV") or product.number("probe_energy_eV"))
    return None if energy is None else wavelength_of(energy * ELECTRON_VOLT)


def _metadata(product: Product) -> dict[str, Any]:
    numbers = {name: product.number(name) for name in NUMBERS}
    texts = {name: product.text(name) for name in ("comments", "polarization")}
    kept: Mapping[str, Any] = {name: value for name, value in {**numbers, **texts}.items() if value}
    return {"ptychodus": dict(kept)} if kept else {}


def _positive(value: float | None) -> float | None:
    """The value, or None where a product says 0 for what it does not know."""
    return value if value is not None and np.isfinite(value) and value > 0 else None


def _modes(probe: NDArray[Any] | None) -> NDArray[Any] | None:
    """(P, N, N): the incoherent modes of the first of the coherent ones, (coherent, incoherent, row, column)."""
    return probe[0] if probe is not None and probe.ndim == 4 and len(probe) else probe


def _slice(image: NDArray[Any] | None) -> NDArray[Any] | None:
    """(H, W), if there is a single slice (layer, row, column)."""
    if image is None or image.ndim == 2:
        return image
    return image[0] if image.ndim == 3 and len(image) == 1 else None
