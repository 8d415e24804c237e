"""A scan of any size that is nowhere: its patterns are computed when they are read.

A file ``NAME.virtual`` that holds ``{"count": 7324219, "N": 64, "step": 1.5}`` is a scan for whoever registers
`VirtualReader` in the entry-point group ``ptycho.readers``; so is one of frames larger than what a reconstruction
needs, ``{"count": 114441, "frame": 512, "N": 64, "step": 6}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptycho.data import Scan
from ptycho.physics import gaussian_probe, random_field_object

_TILE, _PERIOD = 512, 16


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


class VirtualFrames:
    """(M, frame, frame) uint16 noisy counts of a periodic object, taken from the frames of one period.

    The probe is dark outside the middle N x N pixels, so that binning by frame / N leaves N x N patterns of the same
    object. The positions are a raster, each moved at random by up to a third of a step, the same way in every period.
    """

    def __init__(self, count: int, frame: int = 512, N: int = 64, step: int = 6, photons: float = 1e7) -> None:
        self.shape, self.dtype, self.step = (count, frame, frame), np.dtype(np.uint16), step
        rng, side = np.random.default_rng(2), step * _PERIOD
        tile = random_field_object((side, side), 1, (0.7, 1.0), (-0.8, 0.8)).astype(np.complex64)
        self._moves = rng.integers(-(step // 3), step // 3 + 1, (_PERIOD, _PERIOD, 2))
        small = np.asarray(gaussian_probe(N, N / 10), np.complex64).reshape(N, N)
        small *= np.float32(math.sqrt(photons / np.sum(np.abs(small) ** 2)))
        edge = (frame - N) // 2
        self.probe = np.pad(small, edge)
        self._frames = np.empty((_PERIOD, _PERIOD, frame, frame), np.uint16)
        for row, column in np.ndindex(_PERIOD, _PERIOD):
            top, left = np.asarray([row, column]) * step + self._moves[row, column] - N // 2
            patch = tile.take(np.arange(top, top + N), 0, mode="wrap").take(np.arange(left, left + N), 1, mode="wrap")
            wave = np.fft.fft2(np.pad(patch * small, edge), norm="ortho")
            self._frames[row, column] = np.fft.fftshift(rng.poisson(np.abs(wave) ** 2))

    def positions(self) -> np.ndarray:
        """(M, 2) pixels, (row, col)."""
        rows, columns = self._places(np.arange(self.shape[0]))
        moves = self._moves[rows % _PERIOD, columns % _PERIOD]
        return np.stack([rows, columns], axis=-1) * float(self.step) + moves

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some frames."""
        rows, columns = self._places(np.arange(part.start, part.stop))
        return self._frames[rows % _PERIOD, columns % _PERIOD]

    def _places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.divmod(numbers, math.ceil(math.sqrt(self.shape[0])))


def virtual_scan(count: int, N: int = 64, step: float = 1.5, frame: int | None = None) -> Scan:
    """A scan of so many patterns, ``step`` pixels apart; of frames of another size than N, if that is given."""
    patterns = VirtualPatterns(count, N, step) if frame is None else VirtualFrames(count, frame, N, int(step))
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
