"""The patterns of a scan as the engines read them: amplitudes in one unit, on one device, in the order of the FFT."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ptycho.backends import Array, Backend
from ptycho.data import Scan
from ptycho.data.prefetch import prefetch
from ptycho.errors import DataError
from ptycho.physics.fourier import ifftshift2

__all__ = ["PATTERN_BYTES", "DetectorData"]

logger = logging.getLogger(__name__)
PATTERN_BYTES = 2**30
"""Amplitudes that an engine keeps unless it is given another limit."""
_BRIGHT_QUANTILE = 0.99
"""Of the totals of the patterns: the brightest ones, but for outliers, are of a beam that nothing absorbs."""
_PATTERNS_READ, _POOL_PIXELS = 128, 2**23
"""Patterns that are read at once, and pixels of them from stores that unpack several patterns at a time."""


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
        self, scan: Scan, backend: Backend, device: Any = None, dtype: str = "float32", at_most: int = PATTERN_BYTES
    ) -> None:
        if scan.mask is not None and not scan.mask.any():
            raise DataError("mask: no pixel of the detector is good; expected True on good pixels.")
        self._scan, self._backend, self._device, self._dtype = scan, backend, device, dtype
        self.count, self.size = len(scan), scan.N
        totals, smallest = scan.total_counts()
        if smallest < 0:
            raise DataError("patterns: some values are negative; expected counts or amplitudes, 0 or more.")
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
        self._block = scan.frames_per_chunk
        most = max(1, _POOL_PIXELS // scan.N**2) if self._block > 1 else _PATTERNS_READ
        self._pool = most if self._block > most else most // self._block * self._block
        kept = self.count * scan.N**2 * (8 if dtype == "float64" else 4) <= at_most
        self._kept = self._on_device(self._read(np.arange(self.count))) if kept else None
        self._prefetched: tuple[np.ndarray, Array] | None = None

    def __call__(self, index: np.ndarray) -> Array:
        """Amplitudes (k, N, N) of some patterns; zero frequency at [0, 0], bad pixels 0."""
        if self._kept is not None:
            return self._taken(self._kept, index)
        where = self._place_in_prefetched(index)
        if self._prefetched is None or where is None:
            return self._on_device(self._read(index))
        return self._taken(self._prefetched[1], where)

    def random_batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray] | None:
        """Batches of ``size`` usable patterns of random chunks of the store; None where a pattern is read as such.

        Some millions of pixels are read at once, whole chunks, and divided into random batches.
        """
        if self._kept is not None or self._block == 1:
            return None
        return self._random_batches(size, rng)

    def prefetched(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same parts (rising indices), each of which is read while the one before is worked on."""
        if self._kept is not None:
            yield from parts
            return
        parts = list(parts)
        for part, amplitudes in zip(parts, prefetch(self._read, parts), strict=True):
            self._prefetched = part, self._on_device(amplitudes)
            yield part
        self._prefetched = None

    def pools(self, index: np.ndarray) -> list[np.ndarray]:
        """Parts of rising indices that are read at once, whole chunks of the store."""
        if self._kept is not None or self._place_in_prefetched(index) is not None:
            return [index]
        return np.split(index, np.flatnonzero(np.diff(index // self._pool)) + 1)

    def _random_batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        block = min(self._pool, self._block)
        order = rng.permutation(-(-self.count // block))
        at_once = self._pool // block
        chosen = [np.sort(order[first : first + at_once]) for first in range(0, order.size, at_once)]
        pools = [self.usable[np.isin(self.usable // block, blocks)] for blocks in chosen]
        for pool in self.prefetched(pool for pool in pools if pool.size):
            mixed = rng.permutation(pool.size)
            yield from (pool[np.sort(mixed[first : first + size])] for first in range(0, pool.size, size))

    def _place_in_prefetched(self, index: np.ndarray) -> np.ndarray | None:
        if self._prefetched is None:
            return None
        held = self._prefetched[0]
        where = np.minimum(np.searchsorted(held, index), held.size - 1)
        return where if np.array_equal(held[where], index) else None

    def _taken(self, amplitudes: Array, index: np.ndarray) -> Array:
        if isinstance(amplitudes, np.ndarray):
            return amplitudes[index]
        where = self._backend.asarray(index, dtype="int32", device=self._device)
        return self._backend.xp.take(amplitudes, where, axis=0)

    def _read(self, index: np.ndarray) -> np.ndarray:
        host = np.empty((index.size, self.size, self.size), dtype=self._dtype)
        for part in self._pieces(index):
            host[part] = ifftshift2(self._scan.amplitude(index[part], np.dtype(self._dtype))) * self.unit
        return host

    def _pieces(self, index: np.ndarray) -> list[slice]:
        """Slices of some indices that are converted at once, whole chunks of the store where it has any."""
        ends = np.arange(_PATTERNS_READ, index.size, _PATTERNS_READ)
        if self._block > 1:
            step = max(1, _PATTERNS_READ // self._block) * self._block
            ends = np.flatnonzero(np.diff(index // step)) + 1
        return [slice(first, last) for first, last in pairwise([0, *ends.tolist(), index.size])]

    def _on_device(self, host: np.ndarray) -> Array:
        return self._backend.asarray(host, dtype=self._dtype, device=self._device)
