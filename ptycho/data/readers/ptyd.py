"""ptypy's prepared data, `.ptyd`: an HDF5 file of chunks of frames with their positions and weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.data.readers.units import ELECTRON_VOLT, wavelength_of
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

logger = logging.getLogger(__name__)


class PtydReader:
    """Reads the chunks of a `.ptyd` file in their order, also those that ptypy keeps in files of their own.

    Frames are detector counts with the zero frequency at `center`, the middle. Positions are (row, column) in metres,
    the energy is in keV, lengths are in metres. A pixel whose weight is 0 in any frame is bad. What ptypy may have
    pickled into the file is not read.
    """

    name = "ptyd"
    description = "a .ptyd file of ptypy, HDF5 with chunks/0/data and chunks/0/positions"
    options: frozenset[str] = frozenset()

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its groups."""
        if not file.is_hdf5:
            return False
        with file.hdf5() as h5:
            return "chunks" in h5 and ("meta" in h5 or "chunks/0/data" in h5)

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan."""
        with file.hdf5() as h5:
            chunks = sorted(
                (name for name in h5.groups("chunks") if name[7:].isdigit()), key=lambda name: int(name[7:])
            )
            if not chunks:
                raise DataError(f"{file.path} holds no chunks of frames yet; let ptypy finish writing it.")
            if (h5.text("info/propagation") or "farfield") != "farfield":
                raise DataError(f"{file.path} holds near-field patterns; far-field ones are expected.")
            patterns = h5.patterns(*(f"{name}/data" for name in chunks))
            energy = _quantity(h5, "energy")
            return {
                "patterns": patterns,
                "measurement": "counts",
                "positions_m": np.concatenate([_positions(h5, name) for name in chunks]),
                "wavelength": None if energy is None else wavelength_of(energy * 1e3 * ELECTRON_VOLT),
                "distance": _quantity(h5, "distance"),
                "detector_pixel_size": _quantity(h5, "psize"),
                "beam_centre": _centre(h5, patterns.shape),
                "mask": _mask(h5, chunks, patterns.shape),
                "name": h5.text("meta/label") or file.stem,
            }


def _value(h5: Hdf5File, name: str) -> NDArray[Any] | None:
    """An array that ptypy has written; None where it has written None."""
    return None if h5.attribute(name, "type") == "None" else h5.array(name, kinds="biuf")


def _quantity(h5: Hdf5File, name: str) -> float | None:
    """A positive number of `meta`, or else of `info`, the same along both axes."""
    for group in ("meta", "info"):
        values = _value(h5, f"{group}/{name}")
        if values is None or values.size == 0:
            continue
        if not np.allclose(values, values.reshape(-1)[0], rtol=1e-6):
            raise DataError(f"{h5.path}: {group}/{name} is {values.tolist()}, the same along both axes is expected.")
        if values.reshape(-1)[0] > 0:
            return float(values.reshape(-1)[0])
    return None


def _positions(h5: Hdf5File, chunk: str) -> NDArray[np.float64]:
    values = _value(h5, f"{chunk}/positions")
    if values is None or values.ndim != 2 or values.shape[1] != 2:
        shape = None if values is None else values.shape
        raise DataError(
            f"{h5.path}: {chunk}/positions has shape {shape}, (frames, 2) in metres is expected; ptypy writes them "
            "where it knows them when it prepares the data."
        )
    return values.astype(np.float64)


def _centre(h5: Hdf5File, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """The zero frequency, (row, col) pixels; None where it is the middle, to the half pixel that ptypy leaves open."""
    values = _value(h5, "meta/center")
    if values is None or values.shape != (2,):
        return None
    middle = np.array(shape[1:]) // 2
    return None if np.abs(values - middle).max() <= 0.5 else values.astype(np.float64)


def _mask(h5: Hdf5File, chunks: list[str], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """(H, W) True where no frame has the weight 0; None without weights."""
    good: Any = None
    for chunk in chunks:
        weights = _value(h5, f"{chunk}/weights")
        if weights is None or weights.size == 0:
            continue
        own = weights.reshape(-1, *weights.shape[-2:]) > 0
        everywhere = own.all(axis=0)
        if not np.array_equal(everywhere, own.any(axis=0)):
            logger.warning("%s: the weights differ between frames; a pixel that is bad in one is left out.", h5.path)
        good = everywhere if good is None else good & everywhere
    for name in ("meta/weight2d", "info/weight2d"):
        weights = _value(h5, name) if good is None else None
        if weights is not None and weights.shape == shape[1:]:
            good = weights > 0
    return None if good is None or good.all() else good
