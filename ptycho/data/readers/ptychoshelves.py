"""PtychoShelves (and fold_slice): patterns and positions in two HDF5 files, or everything in one MATLAB v7.3 file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

logger = logging.getLogger(__name__)

_PATTERNS = ("dp", "data", "diffraction", "cbed")
_SUFFIXES = ("_dp", "_para")


class PtychoShelvesReader:
    """Reads `NAME_dp.hdf5` with the `NAME_para.hdf5` beside it, or one `.mat` file of version 7.3.

    * `dp` (M, H, W): counts, zero frequency in the middle; `ppX`, `ppY` (M,): position of the beam in metres, column
      along +x, row along +y; `lambda` wavelength, `dx` object's pixel, both in metres.
    * In a MATLAB file every array has its axes in the opposite order and complex numbers are pairs; besides the names
      above it may hold `probe` (N, N, modes), `object` (H, W), `fmask` (1 = good), and, of a reconstruction,
      `outputs.probe_positions` (M, 2) as (x, y) in pixels about the object's centre, `p.lambda` and `p.dx_spec`.
    """

    name = "ptychoshelves"
    description = "a file of PtychoShelves, HDF5 or MATLAB v7.3 with dp (or data) and ppX, ppY"
    options: frozenset[str] = frozenset()

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its datasets, and MATLAB's by what stands at its beginning."""
        if not file.is_hdf5:
            return False
        with file.hdf5() as h5:
            return "dp" in h5 or "ppX" in h5 or (_is_matlab(file) and h5.first(*_PATTERNS) is not None)

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan."""
        path, places = _pair(file)
        matlab = _is_matlab(file)
        with file.companion(path) as h5:
            name = h5.first(*_PATTERNS)
            if name is None:
                raise DataError(f"{path} lacks the patterns dp; its file of patterns is named like it, with _dp.")
            patterns = h5.patterns(name)
            count = patterns.shape[0]
            fields: dict[str, Any] = {
                "patterns": replace(patterns, transposed=matlab),
                "measurement": "counts",
                "name": path.stem.removesuffix("_dp"),
                "mask": _mask(h5, matlab, tuple(patterns.shape[1:])),
            }
            if matlab:
                fields |= _reconstruction(h5, fields["patterns"].shape[-1])
        with file.companion(places) as h5:
            fields |= _positions(h5, count)
            fields["wavelength"] = h5.length("lambda", "p/lambda")
            fields["pixel_size"] = h5.length("dx") or _first(h5, "p/dx_spec")
        return fields


def _is_matlab(file: ScanFile) -> bool:
    return file.head.startswith(b"MATLAB 7.3")


def _pair(file: ScanFile) -> tuple[Path, Path]:
    """The files of the patterns and of the positions: the same one, unless the name says that it is one of two."""
    path = file.path
    for own, other in (_SUFFIXES, _SUFFIXES[::-1]):
        if path.stem.endswith(own):
            partner = path.with_name(path.stem.removesuffix(own) + other + path.suffix)
            if partner.is_file():
                return (path, partner) if own == "_dp" else (partner, path)
            what = "positions" if own == "_dp" else "patterns"
            with file.hdf5() as h5:
                alone = ("ppX" if own == "_dp" else "dp") in h5
            if not alone:
                raise DataError(f"{path} has no {partner.name} beside it, which holds the {what}; put it there.")
    return path, path


def _positions(h5: Hdf5File, count: int) -> dict[str, Any]:
    """`positions_m` (M, 2), (row, col), or `positions` where the file has them in pixels."""
    columns, rows = (h5.array(name, kinds="iuf") for name in ("ppX", "ppY"))
    if columns is not None and rows is not None:
        if columns.size != count or rows.size != count:
            raise DataError(f"{h5.path}: {columns.size} ppX and {rows.size} ppY given for {count} patterns.")
        return {"positions_m": np.stack([rows.reshape(-1), columns.reshape(-1)], axis=-1).astype(np.float64)}
    pixels = h5.array("outputs/probe_positions", kinds="iuf")
    if pixels is None:
        raise DataError(f"{h5.path} lacks the positions ppX and ppY.")
    pixels = pixels.T if pixels.shape[0] == 2 else pixels  # MATLAB's (M, 2) is (2, M) here
    if pixels.shape != (count, 2):
        raise DataError(f"{h5.path}: outputs/probe_positions has shape {pixels.shape}, ({count}, 2) is expected.")
    return {"positions": pixels[:, ::-1].astype(np.float64)}


def _reconstruction(h5: Hdf5File, n: int) -> dict[str, Any]:
    """Probe and object of a MATLAB file, axes in our order; the object's middle is the origin of the positions."""
    probe, image = (_complex(h5, name) for name in ("probe", "object"))
    found: dict[str, Any] = {}
    if probe is not None and probe.ndim in (2, 3, 4):
        probe = probe.swapaxes(-2, -1)
        found["probe"] = probe[0] if probe.ndim == 4 else probe
        if found["probe"].shape[-2:] != (n, n):
            logger.warning("%s: the probe is not as large as the patterns and is left out.", h5.path)
            del found["probe"]
    if image is not None and image.ndim == 2:
        found["object"] = image.T
        found["object_origin"] = tuple((-(np.array(image.T.shape) - 1) / 2).tolist())
    return found


def _complex(h5: Hdf5File, name: str) -> NDArray[Any] | None:
    """A numeric dataset; None where MATLAB has put something else (a cell, a struct) under this name."""
    try:
        return h5.array(name)
    except DataError:
        logger.warning("%s: %s is no array of numbers and is left out.", h5.path, name)
        return None


def _mask(h5: Hdf5File, matlab: bool, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    mask = h5.array("fmask", kinds="biuf")
    if mask is None or mask.shape[-2:] != shape:
        return None
    good = (mask.reshape(-1, *shape) != 0).all(axis=0)
    return good.T if matlab else good


def _first(h5: Hdf5File, name: str) -> float | None:
    values = h5.array(name, kinds="f")
    return float(values.reshape(-1)[0]) if values is not None and values.size and values.reshape(-1)[0] > 0 else None
