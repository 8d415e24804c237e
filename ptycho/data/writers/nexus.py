"""NeXus with the application definition NXcxi_ptycho, which CXI programs can read as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho.data.readers.nexus import DEFINITIONS
from ptycho.data.readers.units import energy_of
from ptycho.data.scan import Scan
from ptycho.data.writers.cxi import CXI_VERSION, lost_in_cxi, write_entry
from ptycho.data.writers.hdf5 import make_group, needed_pixel, new_file, plain_text, put, write_length

_CLASSES = {
    "": "NXentry",
    "instrument_1": "NXinstrument",
    "instrument_1/source_1": "NXsource",
    "instrument_1/beam_1": "NXbeam",
    "instrument_1/detector_1": "NXdetector",
    "sample_1": "NXsample",
    "sample_1/geometry_1": "NXcollection",
    "sample_1/transformations": "NXtransformations",
    "data_1": "NXcollection",
    "data": "NXdata",
    "image_1": "NXcollection",
    "image_2": "NXcollection",
    "ptychodus": "NXcollection",
    "ptychopinn": "NXcollection",
}


class NexusWriter:
    """Writes one entry of the definition NXcxi_ptycho; what it has no place for goes to a collection of its own."""

    name = "nexus"
    description = "a NeXus file of the definition NXcxi_ptycho"
    extensions = (".nxs", ".nx", ".nexus")

    def lost(self, scan: Scan) -> list[str]:
        """As in CXI."""
        return lost_in_cxi(scan)

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        pixel = needed_pixel(scan, "NeXus", geometric=True)
        with new_file(path) as file:
            put(file, "cxi_version", CXI_VERSION)
            file.attrs["default"] = "entry_1"
            file.attrs["NX_class"] = "NXroot"
            entry = make_group(file, "entry_1")
            write_entry(entry, scan, pixel)
            put(entry, "definition", DEFINITIONS[0])
            put(entry, "sample_1/name", plain_text(scan.name))
            _write_beam(entry, scan)
            _write_plot(entry, scan)
            for name, kind in _CLASSES.items():
                if not name or name in entry:
                    entry[name or entry.name].attrs["NX_class"] = kind


def _write_beam(entry: Any, scan: Scan) -> None:
    """Photon energy and wavelength. The energy of the source is the machine's, which a scan does not know."""
    source, beam = (make_group(entry, f"instrument_1/{name}") for name in ("source_1", "beam_1"))
    put(source, "probe", "x-ray")
    detector = entry["instrument_1/detector_1"]
    detector.attrs["signal"] = "data"
    for axis in "xy":
        name = f"beam_center_{axis}"
        put(detector, name, scan.N // 2 * (scan.detector_pixel_size or 1.0))
        detector[name].attrs["units"] = "pixel" if scan.detector_pixel_size is None else "m"
    if scan.wavelength is None:
        return
    for name in ("energy", "incident_beam_energy"):
        put(beam, name, energy_of(scan.wavelength))
        beam[name].attrs["units"] = "J"
    write_length(source, "wavelength", scan.wavelength)  # where programs that read CXI look


def _write_plot(entry: Any, scan: Scan) -> None:
    """The motors as NeXus has them, and a group that a viewer can plot."""
    import h5py

    motors, translation = make_group(entry, "sample_1/transformations"), entry["sample_1/geometry_1/translation"]
    translation.attrs["axes"] = "translation:y:x"
    translation.attrs["interpretation"] = "image"
    for axis, (name, vector) in enumerate((("x", (1, 0, 0)), ("y", (0, 1, 0)))):
        write_length(motors, name, translation[:, axis])
        motors[name].attrs["vector"] = np.array(vector, np.float64)
        motors[name].attrs["transformation_type"] = "translation"
        motors[name].attrs["depends_on"] = "." if name == "x" else f"{motors.name}/x"
    data = make_group(entry, "data")
    data["data"] = h5py.SoftLink(f"{entry.name}/instrument_1/detector_1/data")
    for name in "xy":
        data[name] = h5py.SoftLink(f"{motors.name}/{name}")
        data.attrs[f"{name}_indices"] = 0
    data.attrs["signal"] = "data"
    data.attrs["axes"] = ["x", ".", "."]
    entry.attrs["default"] = "data"
