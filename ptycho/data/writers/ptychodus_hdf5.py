"""ptychodus's product as HDF5, with the patterns in the same file, so that it is its `diffraction.h5` as well."""

from __future__ import annotations

from pathlib import Path

from ptycho.data.scan import Scan
from ptycho.data.writers.hdf5 import new_file, put, record_of, write_patterns
from ptycho.data.writers.ptychodus import lost_in_product, product_content


class PtychodusHdf5Writer:
    """Writes one HDF5 file that ptychodus opens as a product and as assembled diffraction data."""

    name = "ptychodus-hdf5"
    description = "a product file of ptychodus with its patterns, HDF5"
    extensions = (".h5", ".hdf5")

    def lost(self, scan: Scan) -> list[str]:
        """What ptychodus does not see."""
        return lost_in_product(scan)

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        content = product_content(scan)
        with new_file(path) as file:
            for name, value in {**content.texts, **content.numbers, "far_field": True}.items():
                file.attrs[name] = value
            for name, values in content.arrays.items():
                put(file, name, values)
            for name in ("probe", "object"):
                file[name].attrs["pixel_height_m"] = file[name].attrs["pixel_width_m"] = content.pixel
            file["object"].attrs["center_y_m"], file["object"].attrs["center_x_m"] = content.object_centre
            patterns = write_patterns(file, "patterns", scan)
            for side in ("height", "width"):
                patterns.attrs[f"detector_pixel_{side}_m"] = scan.detector_pixel_size or 0.0
            put(file, "ptychopinn_scan", record_of(scan, *content.placeholders))
            put(file, "ptychopinn_positions", scan.positions)
            if scan.scan_index is not None:
                put(file, "ptychopinn_scan_index", scan.scan_index)
