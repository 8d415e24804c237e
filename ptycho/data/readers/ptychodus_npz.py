"""ptychodus's product as NPZ, with its patterns in the same file or in the `diffraction.h5` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.npz import NpzArchive
from ptycho.data.readers.ptychodus import POSITIONS, matched, product_fields
from ptycho.data.readers.ptychodus_hdf5 import read_stack
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile


class PtychodusNpzReader:
    """Reads ptychodus's product in an NPZ file; patterns stand in the same file, or as in `PtychodusHdf5Reader`."""

    name = "ptychodus-npz"
    description = "a product file of ptychodus, .npz with probe_position_x_m, object and probe"
    options = frozenset({"patterns_file"})

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its keys."""
        return file.npz is not None and POSITIONS[1] in file.npz

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan; `patterns_file` names the HDF5 file of the patterns."""
        archive = file.npz
        if archive is None:
            raise DataError(f"{file.path} is not an NPZ file, which the format {self.name} is.")
        fields = product_fields(_NpzProduct(archive))
        if "patterns" in archive and given.get("patterns_file") is None:
            bad = archive.optional("bad_pixels")
            stack: dict[str, Any] = {
                "patterns": archive.array("patterns", mapped=True),
                "measurement": "counts",
                "mask": None if bad is None else bad == 0,
                "detector_pixel_size": _NpzProduct(archive).number("detector_pixel_width_m") or None,
                "indexes": archive.optional("indexes"),
            }
        else:
            stack = read_stack(file, given.get("patterns_file"))
        indexes = stack.pop("indexes")
        return matched({**fields, **stack}, indexes, archive.optional("probe_position_indexes"))


class _NpzProduct:
    """The vocabulary of a product in NPZ: everything is an array."""

    def __init__(self, archive: NpzArchive) -> None:
        self._archive, self.what = archive, str(archive.path)

    def array(self, name: str) -> NDArray[Any] | None:
        """An array."""
        return self._archive.optional(name)

    def number(self, name: str) -> float | None:
        """An array of one number."""
        values = self._archive.optional(name)
        if values is None or values.size == 0:
            return None
        if values.size != 1 or values.dtype.kind not in "biuf":
            raise DataError(f"{self.what}: {name} is {values.dtype} of shape {values.shape}, one number is expected.")
        return float(np.asarray(values).reshape(-1)[0])

    def text(self, name: str) -> str | None:
        """An array of one text."""
        values = self._archive.optional(name)
        return (
            str(values.reshape(-1)[0])
            if values is not None and values.size == 1 and values.dtype.kind in "US"
            else None
        )
