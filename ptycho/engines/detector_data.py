"""The patterns of a scan as the engines read them: amplitudes in one unit, on one device, in the order of the FFT."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from ptycho.backends import Array, Backend
from ptycho.data import Scan
from ptycho.errors import DataError
from ptycho.physics.fourier import ifftshift2

__all__ = ["DetectorData"]

logger = logging.getLogger(__name__)
_BRIGHT_QUANTILE = 0.99


class DetectorData:
    """Amplitudes in a unit in which a detector pixel holds 1 on average, whatever the unit of the counts.

    Parameters
    ----------
    scan : the measurement.
    backend, device : where the amplitudes are wanted.
    dtype : ``"float32"`` or ``"float64"``.
    at_most : bytes of patterns that are kept there; more are read from the scan whenever they are wanted.

    Attributes
    ----------
    unit : engine's amplitude of one photon; ``amplitude = unit * sqrt(counts)``.
    good : (N, N) bool of the backend in the order of the FFT, True where the detector is good; None where all of it is.
    usable : (K,) indices of the patterns that hold light.
    brightness : power of the brightest patterns over the mean: of a beam that nothing absorbs.

    Raises
    ------
    DataError
        No pixel is good, no pattern holds light, or a value is negative or not finite.
    """

    def __init__(
        self, scan: Scan, backend: Backend, device: Any = None, dtype: str = "float32", at_most: int = 2**30
    ) -> None:
        if scan.mask is not None and not scan.mask.any():
            raise DataError("mask: no pixel of the detector is good; expected True on good pixels.")
        self._scan, self._backend, self._device, self._dtype = scan, backend, device, dtype
        self.count, self.size = len(scan), scan.N
        totals = np.concat([_totals(scan, part) for part in scan.chunks()])
        if not bool(np.all(np.isfinite(totals))):
            raise DataError(
                "patterns: some are not finite on good pixels; mask these pixels or leave the patterns out."
            )
        self.usable = np.flatnonzero(totals > 0)
        if self.usable.size == 0:
            raise DataError("patterns: no light is measured on the good pixels; expected counts or amplitudes.")
        if self.usable.size < self.count:
            logger.warning(
                "%d of %d patterns hold no light and are left out.", self.count - self.usable.size, self.count
            )
        lit = totals[self.usable]
        self.mean_total = float(lit.mean())
        self.unit = scan.N / math.sqrt(self.mean_total)
        self.brightness = float(max(1.0, np.quantile(lit, _BRIGHT_QUANTILE) / lit.mean()))
        self.good = None
        if scan.mask is not None and not scan.mask.all():
            self.good = backend.asarray(ifftshift2(scan.mask), dtype="bool", device=device)
        kept = self.count * scan.N**2 * (8 if dtype == "float64" else 4) <= at_most
        self._kept = self._read(np.arange(self.count)) if kept else None

    def __call__(self, index: np.ndarray) -> Array:
        """Amplitudes (k, N, N) of some patterns; zero frequency at [0, 0], bad pixels 0."""
        if self._kept is None:
            return self._read(index)
        if isinstance(self._kept, np.ndarray):
            return self._kept[index]
        where = self._backend.asarray(index, dtype="int32", device=self._device)
        return self._backend.xp.take(self._kept, where, axis=0)

    def _read(self, index: np.ndarray) -> Array:
        host = np.empty((index.size, self.size, self.size), dtype=self._dtype)
        for first in range(0, index.size, 256):
            part = slice(first, first + 256)
            host[part] = ifftshift2(self._scan.amplitude(index[part], np.dtype(self._dtype))) * self.unit
        return self._backend.asarray(host, dtype=self._dtype, device=self._device)


def _totals(scan: Scan, part: slice) -> np.ndarray:
    counts = scan.counts(part)
    if counts.size and float(counts.min()) < 0:
        raise DataError("patterns: some values are negative; expected counts or amplitudes, 0 or more.")
    return counts.sum(axis=(1, 2), dtype=np.float64)
