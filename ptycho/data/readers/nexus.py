"""NeXus files that follow the application definition NXcxi_ptycho (formerly called NXptycho)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.cxi import entry_fields, length_factor
from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.data.readers.units import energy_unit, wavelength_of
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

DEFINITIONS = ("NXcxi_ptycho", "NXptycho")


class NexusReader:
    """Reads the first entry whose `definition` is NXcxi_ptycho.

    The fields are those of CXI, found by the same names; quantities carry their units. The photon energy is that of the
    beam (`NXbeam`), since the energy of `NXsource` is the machine's. `beam_center_x` and `_y` are lengths on the
    detector, or pixels where their units say so; frames are cut around them.
    """

    name = "nexus"
    description = "a NeXus file with an entry of the definition NXcxi_ptycho"
    options: frozenset[str] = frozenset()

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by the definition that an entry names."""
        if not file.is_hdf5:
            return False
        with file.hdf5() as h5:
            return _entry(h5) is not None

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan."""
        with file.hdf5() as h5:
            entry = _entry(h5)
            if entry is None:
                raise DataError(f"{file.path} has no entry of the definition {DEFINITIONS[0]}.")
            instrument = _of_class(h5, entry, "NXinstrument") or f"{entry}/instrument_1"
            detector = _of_class(h5, instrument, "NXdetector") or f"{instrument}/detector_1"
            fields = entry_fields(h5, h5, entry, detector)
            beam = _of_class(h5, instrument, "NXbeam") or f"{instrument}/beam_1"
            fields["wavelength"] = _wavelength(h5, instrument, beam)
            fields["name"] = h5.text(f"{entry}/title") or h5.text(f"{entry}/sample_1/name") or file.stem
            fields["beam_centre"] = _beam_centre(h5, detector, fields["detector_pixel_size"])
            return fields


def _entry(h5: Hdf5File) -> str | None:
    """The full name of the entry."""
    return next((name for name in h5.groups() if h5.text(f"{name}/definition") in DEFINITIONS), None)


def _of_class(h5: Hdf5File, group: str, kind: str) -> str | None:
    """The first group of a NeXus class inside another."""
    return next((name for name in h5.groups(group) if h5.attribute(name, "NX_class") == kind), None)


def _wavelength(h5: Hdf5File, instrument: str, beam: str) -> float | None:
    for name in (f"{beam}/energy", f"{beam}/incident_beam_energy", f"{beam}/incident_energy"):
        energy = h5.number(name, energy_unit)
        if energy is not None and energy > 0:
            return wavelength_of(energy)
    return h5.length(f"{beam}/incident_wavelength", f"{instrument}/source_1/wavelength")


def _beam_centre(h5: Hdf5File, detector: str, pixel: float | None) -> NDArray[np.float64] | None:
    """(row, col) pixels of the zero frequency; None where the file does not say."""
    centre = []
    for axis in "yx":
        name = f"{detector}/beam_center_{axis}"
        value = h5.number(name)
        if value is None:
            return None
        if str(h5.attribute(name, "units") or "").strip().lower() not in ("px", "pixel", "pixels"):
            if pixel is None:
                return None
            value *= length_factor(h5, name) / pixel
        centre.append(value)
    return np.array(centre)
