"""Tike's NPZ: counts with the zero frequency in the corner, and scan positions of the patch's corner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.lazy import ArraySource, LazyPatterns
from ptycho.data.mapped import is_mapped
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile


class TikeReader:
    """Reads `data` (M, N, N), `scan` (M, 2) and `probe` (..., P, N, N), each possibly with leading axes of length 1.

    `data` are photon counts with the zero frequency at [0, 0]; they are shifted to the centre. `scan` is the (row, col)
    of the patch's top-left corner in object pixels; half a patch is added. The probe is taken as it is: its power is
    the file's, which need not be that of the counts.
    """

    name = "tike-npz"
    description = "an NPZ file (or .npz.bz2) with data, scan and probe"
    options: frozenset[str] = frozenset()

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its keys."""
        keys = file.npz.keys() if file.npz else ()
        return "data" in keys and ("scan" in keys or "probe" in keys)

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan."""
        archive = file.npz
        if archive is None:
            raise DataError(f"{file.path} is not an NPZ file, which the format {self.name} is.")
        data = _drop_angles(archive.array("data", mapped=True), 3, f"{file.path}: data")
        scan = _drop_angles(archive.array("scan"), 2, f"{file.path}: scan")
        if data.shape[1] != data.shape[2]:
            raise DataError(f"{file.path}: data has patterns of shape {data.shape[1:]}, square ones are expected.")
        probe = archive.optional("probe")
        return {
            "patterns": LazyPatterns((ArraySource(data),), shifted=True)
            if is_mapped(data)
            else np.fft.fftshift(data, axes=(-2, -1)),
            "measurement": "counts",
            "positions": scan.astype(np.float64) + data.shape[-1] // 2,
            "probe": None if probe is None else _drop_angles(probe, 3, f"{file.path}: probe"),
        }


def _drop_angles(values: NDArray[Any], rank: int, what: str) -> NDArray[Any]:
    """Remove leading axes of length 1 down to the rank wanted; more than one angle or probe is another kind of data."""
    if values.ndim < rank:
        raise DataError(f"{what} has rank {values.ndim} (shape {values.shape}), at least rank {rank} is expected.")
    if any(length != 1 for length in values.shape[: values.ndim - rank]):
        raise DataError(f"{what} has shape {values.shape}; only axes of length 1 may precede the last {rank}.")
    return values.reshape(values.shape[values.ndim - rank :])
