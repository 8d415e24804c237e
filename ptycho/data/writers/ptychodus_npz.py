"""ptychodus's product as NPZ, with the patterns in the same file, so that it is its NPZ diffraction file as well."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ptycho.data.scan import Scan
from ptycho.data.writers.hdf5 import record_of, stored_counts
from ptycho.data.writers.ptychodus import lost_in_product, product_content
from ptycho.data.writers.ptychopinn_npz import worth_packing, write_member


class PtychodusNpzWriter:
    """Writes one NPZ file that ptychodus opens as a product and as diffraction data."""

    name = "ptychodus-npz"
    description = "a product file of ptychodus with its patterns, NPZ"
    extensions: tuple[str, ...] = (".product.npz",)

    def lost(self, scan: Scan) -> list[str]:
        """What ptychodus does not see."""
        return lost_in_product(scan)

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        content = product_content(scan)
        row, column = content.object_centre
        sides = {
            f"{what}_pixel_{side}_m": content.pixel for what in ("probe", "object") for side in ("height", "width")
        }
        scalars = {
            **content.texts,
            **content.numbers,
            **sides,
            "far_field": True,
            "object_center_y_m": row,
            "object_center_x_m": column,
            "detector_pixel_width_m": scan.detector_pixel_size or 0.0,
            "ptychopinn_scan": record_of(scan, *content.placeholders),
        }
        arrays = {**content.arrays, **{name: np.array(value) for name, value in scalars.items()}}
        arrays["ptychopinn_positions"] = scan.positions
        if scan.scan_index is not None:
            arrays["ptychopinn_scan_index"] = scan.scan_index
        dtype, convert = stored_counts(scan)
        with path.open("xb") as stream, zipfile.ZipFile(stream, "w") as archive:
            chunks = (convert(np.asarray(scan.patterns[part])) for part in scan.chunks())
            write_member(archive, "patterns", (len(scan), scan.N, scan.N), dtype, chunks, worth_packing(scan))
            for name, values in arrays.items():
                write_member(archive, name, values.shape, values.dtype, [values], True)
