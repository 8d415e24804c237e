"""CXI 1.6, as `ptycho.data.readers.cxi` describes it; cdtools, SHARP and ptychodus read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho.data.readers.cxi import ENTRY
from ptycho.data.readers.units import energy_of
from ptycho.data.scan import Scan
from ptycho.data.writers.hdf5 import (
    geometric_pixel,
    make_group,
    needed_pixel,
    new_file,
    object_centre,
    plain_text,
    put,
    write_length,
    write_patterns,
    write_record,
)

CXI_VERSION = 160
_INVALID = 1


class CxiWriter:
    """Writes `/entry_1` of a CXI file; what CXI has no place for goes to `/entry_1/ptychopinn`."""

    name = "cxi"
    description = "a CXI file"
    extensions = (".cxi",)

    def lost(self, scan: Scan) -> list[str]:
        """Amplitudes, scan numbers and metadata; and the geometry where the scan does not know it."""
        return lost_in_cxi(scan)

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        pixel = needed_pixel(scan, "CXI", geometric=True)
        with new_file(path) as file:
            put(file, "cxi_version", CXI_VERSION)
            put(file, "number_of_entries", 1)
            entry = make_group(file, ENTRY)
            write_entry(entry, scan, pixel)
            source = make_group(entry, "instrument_1/source_1")
            if scan.wavelength is not None:
                write_length(source, "wavelength", scan.wavelength)
                put(source, "energy", energy_of(scan.wavelength))
                source["energy"].attrs["units"] = "J"


def write_entry(entry: Any, scan: Scan, pixel: float) -> None:
    """Write what CXI and NXcxi_ptycho name alike into an entry: everything but the photon energy.

    Parameters
    ----------
    entry
        The group of the entry, empty.
    scan
        The scan.
    pixel
        The object's pixel, metres.
    """
    import h5py

    put(entry, "title", plain_text(scan.name))
    detector = make_group(entry, "instrument_1/detector_1")
    write_patterns(detector, "data", scan).attrs["axes"] = "translation:y:x"
    write_length(detector, "distance", scan.distance)
    for axis in "xy":
        write_length(detector, f"{axis}_pixel_size", scan.detector_pixel_size)
    if scan.mask is not None:
        put(detector, "mask", np.where(scan.mask, 0, _INVALID).astype(np.uint32))
    geometry = make_group(entry, "sample_1/geometry_1")
    translation = np.zeros((len(scan), 3))
    translation[:, 0], translation[:, 1] = scan.positions[:, 1] * pixel, scan.positions[:, 0] * pixel
    write_length(geometry, "translation", translation)  # type: ignore[arg-type]  # as many lengths as there are
    data = make_group(entry, "data_1")
    data["data"] = h5py.SoftLink(f"{entry.name}/instrument_1/detector_1/data")
    data["translation"] = h5py.SoftLink(f"{entry.name}/sample_1/geometry_1/translation")
    _write_images(entry, scan, pixel)
    write_record(entry, scan)


def lost_in_cxi(scan: Scan) -> list[str]:
    """What a program that reads CXI will not see."""
    lost = []
    if scan.measurement == "amplitude":
        lost.append("The amplitudes are stored as counts, their squares.")
    if scan.wavelength is None or scan.distance is None or scan.detector_pixel_size is None:
        lost.append(
            "Wavelength, distance or detector pixel are not known, and programs that compute the object's "
            "pixel from them will not open the file."
        )
    geometric = geometric_pixel(scan)
    if geometric is not None and abs((scan.object_pixel_size or geometric) - geometric) > 1e-3 * geometric:
        lost.append(
            f"The scan states an object's pixel of {scan.pixel_size:g} m, but the geometry makes it {geometric:g} m, "
            "which the positions are written for."
        )
    if scan.scan_index is not None or scan.metadata:
        lost.append("Scan numbers and metadata are kept where only this library looks.")
    if scan.probe is None and scan.object is not None:
        lost.append("The object is kept without a probe, which programs that read CXI expect in image_1.")
    return lost


def _write_images(entry: Any, scan: Scan, pixel: float) -> None:
    """The probe as image_1 and the object as image_2, in the way of ptychodus."""
    if scan.probe is not None:
        image = _image(entry, "image_1", scan.probe[None], "coherent:incoherent:y:x", pixel)
        put(image, "data_type", "amplitude")
    if scan.object is not None:
        image = _image(entry, "image_2", scan.object[None], "layer:y:x", pixel)
        put(image, "data_type", "electron density")
        own = make_group(entry, "ptychodus")
        for axis, centre in zip("yx", object_centre(scan, pixel), strict=True):
            put(own, f"object_center_{axis}_m", centre)
        for side in ("height", "width"):
            put(own, f"object_pixel_{side}_m", pixel)


def _image(entry: Any, name: str, values: Any, axes: str, pixel: float) -> Any:
    image = make_group(entry, name)
    put(image, "data", values)
    image["data"].attrs["axes"] = axes
    put(image, "data_space", "real")
    rows, columns = values.shape[-2:]
    put(image, "image_size", np.array([columns * pixel, rows * pixel, 0.0]))
    return image
