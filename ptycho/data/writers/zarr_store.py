"""A scan as a Zarr group, as `ptycho.data.readers.zarr_store` describes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ptycho.data.readers.roundtrip import scan_record
from ptycho.data.readers.zarr_store import ARRAYS
from ptycho.data.scan import Scan
from ptycho.errors import DataError


class ZarrWriter:
    """Writes a folder with one array per field, one compressed piece per some patterns, and the rest as attributes."""

    name = "zarr"
    description = "a Zarr group (a folder)"
    extensions = (".zarr",)

    def lost(self, scan: Scan) -> list[str]:
        """Nothing: the layout is this library's own."""
        return []

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan."""
        try:
            import zarr
            from numcodecs import Zstd
        except ImportError as error:
            raise DataError("To write a Zarr store zarr has to be installed: pip install ptychopinn[zarr].") from error
        record = json.loads(scan_record(scan))
        group = zarr.open_group(str(path), mode="w-", zarr_format=2)
        group.attrs.update(record)
        packing = Zstd(checksum=True)  # a damaged piece is told when it is read
        piece = max(1, 2**22 // (scan.N**2 * scan.patterns.dtype.itemsize))
        shape, chunk = (len(scan), scan.N, scan.N), (min(piece, len(scan)), scan.N, scan.N)
        patterns = group.create_array(
            "patterns", shape=shape, chunks=chunk, dtype=scan.patterns.dtype, compressors=packing
        )
        for part in scan.chunks(16 * chunk[0]):
            patterns[part] = np.asarray(scan.patterns[part])
        for name in ARRAYS:
            values = getattr(scan, name)
            if values is not None:
                group.create_array(name, data=np.ascontiguousarray(values), compressors=packing)
