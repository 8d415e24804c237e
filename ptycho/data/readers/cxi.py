"""CXI 1.6, the format of the Coherent X-ray Imaging Data Bank, as SHARP, cdtools and ptychodus use it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.data.readers.roundtrip import read_record
from ptycho.data.readers.units import energy_unit, wavelength_of
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

logger = logging.getLogger(__name__)

ENTRY = "/entry_1"
SIGNAL_BIT = 0x1000
"""A mask of exactly this value marks a good pixel with signal above the background (specification, table 11)."""


class CxiReader:
    """Reads `/entry_1` of a CXI file: patterns, translations, geometry, mask, and probe and object where they are.

    Patterns are counts with the zero frequency in the middle. `translation` (M, 3) is that of the sample, (x, y, z) in
    metres; on the detector's usual basis, rows along -y and columns along -x, a pattern's position is
    (row, column) = (+y, +x) / pixel. Another basis is followed, as long as the detector is perpendicular to the beam.
    """

    name = "cxi"
    description = "an HDF5 file with entry_1/data_1/data or entry_1/instrument_1/detector_1/data and translations"
    options = frozenset({"patterns_file"})

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its groups; one that calls itself NXcxi_ptycho is left to that reader."""
        if not file.is_hdf5:
            return False
        with file.hdf5() as h5:
            named = h5.text(f"{ENTRY}/definition") or ""
            return f"{ENTRY}/instrument_1" in h5 and not named.startswith("NX")

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan; `patterns_file` names another CXI file, whose detector is taken."""
        with file.hdf5() as h5, file.hdf5(given.get("patterns_file")) as frames:
            source, detector = f"{ENTRY}/instrument_1/source_1", f"{ENTRY}/instrument_1/detector_1"
            energy = h5.number(f"{source}/energy", energy_unit)
            wavelength = h5.length(f"{source}/wavelength", f"{ENTRY}/instrument_1/beam_1/wavelength")
            if wavelength is None and energy is not None and energy > 0:
                wavelength = wavelength_of(energy)
            fields = entry_fields(h5, frames, ENTRY, detector)
            if None in (wavelength, fields["distance"], fields["detector_pixel_size"]):
                fields["pixel_size"] = h5.length(f"{ENTRY}/ptychodus/object_pixel_width_m")
            return {
                **fields,
                "wavelength": wavelength,
                "name": h5.text(f"{ENTRY}/title") or h5.text(f"{ENTRY}/sample_1/name") or file.stem,
            }


def entry_fields(h5: Hdf5File, frames: Hdf5File, entry: str, detector: str) -> dict[str, Any]:
    """What CXI and NXcxi_ptycho name alike: everything of an entry but the wavelength and the name.

    Parameters
    ----------
    h5, frames
        The file of everything else, and that of the detector; mostly the same.
    entry, detector
        Names of the groups.
    """
    data = frames.first(f"{entry}/data_1/data", f"{detector}/data", f"{entry}/data/data")
    if data is None:
        raise DataError(
            f"{frames.path} lacks the patterns {entry}/data_1/data and {detector}/data; if they are in a file of their "
            "own, name it with --patterns-file."
        )
    translation = h5.first(
        f"{entry}/data_1/translation", f"{entry}/sample_1/geometry_1/translation", f"{detector}/translation"
    )
    if translation is None:
        raise DataError(f"{h5.path} lacks the positions {entry}/sample_1/geometry_1/translation.")
    basis = _basis(frames, detector)
    fields: dict[str, Any] = {
        "patterns": frames.patterns(data),
        "measurement": "counts",
        "positions_m": _positions(h5, translation, basis),
        "distance": frames.length(f"{detector}/distance"),
        "detector_pixel_size": _pixel(frames, detector, basis),
        "probe": _image(h5, 3, f"{entry}/image_1/data", f"{entry}/instrument_1/source_1/illumination"),
        "object": _image(h5, 2, f"{entry}/image_2/data"),
        "mask": good_pixels(frames, f"{detector}/mask"),
        "record": read_record(h5.text(f"{entry}/ptychopinn/scan"), f"{h5.path}: {entry}/ptychopinn/scan"),
        "record_positions": h5.array(f"{entry}/ptychopinn/positions", kinds="f"),
        "scan_index": h5.array(f"{entry}/ptychopinn/scan_index", kinds="iu"),
    }
    probe = fields["probe"]
    if probe is not None and probe.shape[-2:] != fields["patterns"].shape[-2:]:
        logger.warning("%s: %s/image_1 is not as large as the patterns, so it is no probe.", h5.path, entry)
        fields["probe"] = fields["object"] = None
    if fields["distance"] is None:
        fields["distance"] = _corner_distance(frames, detector, basis)
    centre = [h5.number(f"{entry}/ptychodus/object_center_{axis}_m") for axis in "yx"]
    if fields["object"] is not None and None not in centre:
        fields["object_centre_m"] = centre
    return fields


def good_pixels(h5: Hdf5File, name: str) -> NDArray[np.bool_] | None:
    """A CXI mask as True where the pixel is good; None without one."""
    mask = h5.array(name, kinds="biu")
    if mask is None:
        return None
    if mask.ndim != 2:
        raise DataError(f"{h5.path}: {name} has shape {mask.shape}, one mask (rows, columns) is expected.")
    return (mask == 0) | (mask == SIGNAL_BIT)


def _basis(h5: Hdf5File, detector: str) -> NDArray[np.float64]:
    """(2, 3): the way from one pixel to the next along rows and along columns, (x, y, z) in metres or without scale."""
    vectors = h5.array(f"{detector}/basis_vectors", kinds="iuf")
    if vectors is None:
        return np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    vectors = vectors.astype(np.float64)
    vectors = vectors.T if vectors.shape == (3, 2) else vectors
    if vectors.shape != (2, 3) or not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        raise DataError(f"{h5.path}: {detector}/basis_vectors has shape {vectors.shape}, two vectors are expected.")
    if (
        abs(vectors[:, 2]).max() > 1e-3 * abs(vectors).max()
        or abs(vectors[0] @ vectors[1]) > 1e-3 * abs(vectors).max() ** 2
    ):
        raise DataError(
            f"{h5.path}: the detector is tilted, one perpendicular to the beam is expected; remap the patterns."
        )
    return vectors


def _pixel(h5: Hdf5File, detector: str, basis: NDArray[np.float64]) -> float | None:
    sizes = [h5.length(f"{detector}/{axis}_pixel_size") for axis in "yx"]
    if sizes == [None, None] and f"{detector}/basis_vectors" in h5:
        sizes = [float(size) for size in np.linalg.norm(basis, axis=1)]
    known = [size for size in sizes if size is not None]
    if len(known) == 2 and abs(known[0] - known[1]) > 1e-4 * known[0]:
        raise DataError(
            f"{h5.path}: the detector's pixels are {known[0]:g} m high and {known[1]:g} m wide, square ones are "
            "expected; rebin the patterns."
        )
    return known[0] if known else None


def _positions(h5: Hdf5File, name: str, basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 2) metres, (row, col): the beam moves over the sample against the sample's translation."""
    factor = length_factor(h5, name)
    translation = h5.array(name, kinds="iuf")
    if translation is None or translation.ndim < 2 or translation.shape[-1] not in (2, 3):
        shape = None if translation is None else translation.shape
        raise DataError(f"{h5.path}: {name} has shape {shape}, (number of patterns, 3) is expected.")
    flat = translation.reshape(-1, translation.shape[-1]).astype(np.float64)
    directions = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    if (
        np.abs(directions[:, :2]) > 1 - 1e-9
    ).sum() == 2:  # along the axes: picked, not multiplied, so nothing is rounded
        axes = np.abs(directions[:, :2]).argmax(axis=1)
        beam = -np.sign(directions[[0, 1], axes]) * flat[:, axes]
    else:
        beam = -flat[:, :2] @ directions[:, :2].T
    return beam * factor


def length_factor(h5: Hdf5File, name: str) -> float:
    """Metres in the unit that a dataset names; metres where it names none."""
    from ptycho.data.readers.units import length_unit

    return length_unit(str(h5.attribute(name, "units") or ""), f"{h5.path}: {name}")


def _image(h5: Hdf5File, rank: int, *names: str) -> NDArray[Any] | None:
    """A probe (modes, rows, columns) or an object (rows, columns); the first of what precedes these axes."""
    for name in names:
        values = h5.array(name)
        if values is None or values.ndim < 2:
            continue
        while values.ndim > rank:
            if rank == 2 and values.shape[0] > 1:
                return None  # several slices are no transmission
            values = values[0]
        return values
    return None


def _corner_distance(h5: Hdf5File, detector: str, basis: NDArray[np.float64]) -> float | None:
    corner = h5.array(f"{detector}/corner_position", kinds="f")
    if corner is None or corner.shape != (3,):
        return None
    normal = np.cross(basis[0], basis[1])
    distance = float(abs(corner @ normal) / np.linalg.norm(normal))
    return distance or None
