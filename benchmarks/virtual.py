"""A scan of any size that is nowhere: its patterns are computed when they are read.

A file ``NAME.virtual`` that holds ``{"count": 7324219, "N": 64, "step": 1.5}`` is a scan for whoever registers
`VirtualReader` in the entry-point group ``ptycho.readers``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho.data import Scan
from ptycho.physics import gaussian_probe, random_field_object

_TILE = 512


class VirtualPatterns:
    """(M, N, N) uint16 counts of a periodic object on a raster, computed for the run of patterns that is asked for."""

    def __init__(self, count: int, N: int = 64, step: float = 1.5, photons: float = 1e5) -> None:
        self.shape, self.dtype, self.step = (count, N, N), np.dtype(np.uint16), step
        tile = random_field_object((_TILE, _TILE), 1, (0.7, 1.0), (-0.5, 0.5)).astype(np.complex64)
        self._tile = np.pad(tile, ((0, N), (0, N)), mode="wrap")
        probe = np.asarray(gaussian_probe(N, N / 4), np.complex64).reshape(N, N)
        self.probe = probe * np.float32(math.sqrt(photons / np.sum(np.abs(probe) ** 2)))

    def positions(self) -> np.ndarray:
        """(M, 2) pixels, (row, col): a square raster."""
        count = self.shape[0]
        width = math.ceil(math.sqrt(count))
        rows, columns = np.divmod(np.arange(count), width)
        return np.floor(np.stack([rows, columns], axis=-1) * self.step) + self.shape[1] // 2

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some patterns, without noise."""
        _, n, _ = self.shape
        width = math.ceil(math.sqrt(self.shape[0]))
        rows, columns = np.divmod(np.arange(part.start, part.stop), width)
        corners = (np.floor(np.stack([rows, columns], axis=-1) * self.step) % _TILE).astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(self._tile, (n, n))
        found = np.empty((len(corners), n, n), np.uint16)
        for first in range(0, len(corners), 64):
            chosen = corners[first : first + 64]
            waves = np.fft.fft2(windows[chosen[:, 0], chosen[:, 1]] * self.probe, norm="ortho")
            found[first : first + 64] = np.fft.fftshift(np.abs(waves) ** 2, axes=(-2, -1))
        return found


def virtual_scan(count: int, N: int = 64, step: float = 1.5) -> Scan:
    """A scan of so many patterns, ``step`` pixels apart."""
    patterns = VirtualPatterns(count, N, step)
    return Scan(patterns, "counts", patterns.positions(), patterns.probe, name="virtual")


class VirtualReader:
    """Reads the description of a virtual scan."""

    name = "virtual"
    description = "a JSON file NAME.virtual with count, N and step"
    options: frozenset[str] = frozenset()

    def accepts(self, file: Any) -> bool:
        """By the ending of its name."""
        return file.path.suffix == ".virtual"

    def read(self, file: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the scan, its patterns unmade."""
        scan = virtual_scan(**json.loads(file.path.read_text()))
        return {name: getattr(scan, name) for name in ("patterns", "measurement", "positions", "probe")}
