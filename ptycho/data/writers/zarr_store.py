"""A scan as a Zarr group, as `ptycho.data.readers.zarr_store` describes it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import numpy as np

from ptycho.data.readers.roundtrip import FORMAT_ID, scan_record
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

    def replaces(self, folder: Path) -> str | None:
        """Why a folder must not be replaced, as the end of a sentence; None for a store that this library wrote."""
        other = _not_of_a_store(folder)
        if other is None:
            return None
        return f"holds {other}, so it is no store of ptychopinn's alone and is not replaced; choose another name."

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


_CHUNK = re.compile(r"\d+(\.\d+)*")
_LARGEST = 2**24
"""Bytes of the attributes that are read to recognise a store."""


def _not_of_a_store(folder: Path) -> str | None:
    """What shows that a folder is not a store of this library and nothing else: the first name that does not belong."""
    attributes, content = folder / ".zattrs", None
    if attributes.is_file() and not attributes.is_symlink() and attributes.stat().st_size < _LARGEST:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads(attributes.read_bytes())
    if not isinstance(content, dict) or content.get("format") != FORMAT_ID:
        return "no attributes of a scan of ptychopinn"
    for entry in _entries(folder):
        if entry.name in (".zattrs", ".zgroup", ".zmetadata"):
            if not entry.is_file(follow_symlinks=False):
                return entry.name
        elif entry.name not in ("patterns", *ARRAYS) or not entry.is_dir(follow_symlinks=False):
            return entry.name
        else:
            for part in _entries(entry.path):
                known = part.name in (".zarray", ".zattrs") or _CHUNK.fullmatch(part.name)
                if not known or not part.is_file(follow_symlinks=False):
                    return f"{entry.name}/{part.name}"
    return None


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return list(found)
