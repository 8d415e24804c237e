"""A complex image at full, half, quarter, ... resolution, cut into tiles, so that a page can show a large object."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.drawing import bounding_box, limits
from ptycho.evaluation.ramps import flattening

__all__ = ["TILE", "Pyramid", "Ramp", "phase_ramp"]

TILE = 512
"""Side of a tile in pixels of its level."""

_ROWS_AT_ONCE = 512
_JUDGED = 256
"""Side, in pixels, of the grid that a phase ramp is fitted on."""
_SAMPLED = 1024


class Ramp(NamedTuple):
    """A plane of phase, ``level + down * row + right * column`` in radians, rows and columns counted from [0, 0]."""

    level: float
    down: float
    right: float

    def factor(self, rows: slice, columns: slice) -> np.ndarray:
        """(h, w) complex64 of modulus 1 that removes the plane from these pixels."""
        down = np.exp(-1j * (self.level + self.down * np.arange(rows.start, rows.stop, rows.step)))
        right = np.exp(-1j * self.right * np.arange(columns.start, columns.stop, columns.step))
        return (down[:, None] * right[None, :]).astype(np.complex64)

    def seen_from(self, row: int, column: int) -> Ramp:
        """The same plane with its origin moved from this pixel to [0, 0]."""
        return Ramp(self.level - self.down * row - self.right * column, self.down, self.right)


def phase_ramp(image: np.ndarray, covered: np.ndarray) -> Ramp | None:
    """The global phase and the linear ramp of an object, to be removed for display.

    For a large object the ramp is fitted at full resolution at its centre first, and then corrected on pixels spread
    over all of it.

    Parameters
    ----------
    image : (H, W) complex.
    covered : (H, W) bool.

    Returns
    -------
    Ramp or None
        None where no pixel is finite.
    """
    box = bounding_box(covered)
    middle = tuple(_middle(side) for side in box)
    near = _fitted(image[middle], covered[middle])
    if near is None:
        return None
    near = near.seen_from(middle[0].start, middle[1].start)
    step = -(-max(side.stop - side.start for side in box) // _JUDGED)
    if step == 1:
        return near
    wide = (slice(box[0].start, box[0].stop, step), slice(box[1].start, box[1].stop, step))
    far = _fitted(image[wide] * near.factor(*wide), covered[wide])
    if far is None:
        return near
    far = Ramp(far.level, far.down / step, far.right / step).seen_from(box[0].start, box[1].start)
    return Ramp(*(sum(pair) for pair in zip(near, far, strict=True)))


def _fitted(image: np.ndarray, covered: np.ndarray) -> Ramp | None:
    try:
        factor = flattening(image, covered)
    except DataError:
        return None
    down, right = (
        -float(np.angle(line[1] * np.conj(line[0]))) if line.size > 1 else 0.0 for line in (factor[:, 0], factor[0])
    )
    return Ramp(-float(np.angle(factor[0, 0])), down, right)


def _middle(side: slice) -> slice:
    spare = max(0, side.stop - side.start - _JUDGED)
    return slice(side.start + spare // 2, side.stop - (spare - spare // 2))


class Pyramid:
    """Levels of an image: level k holds means over 2^k x 2^k pixels of those that are covered.

    A level is computed on first use from the one below; the image itself is never copied.

    Parameters
    ----------
    image : (H, W) complex.
    covered : (H, W) bool, or None where all of it is known.
    ramp : removed before anything is averaged; None removes nothing.
    """

    def __init__(self, image: np.ndarray, covered: np.ndarray | None = None, ramp: Ramp | None = None) -> None:
        self.image, self.covered, self.ramp = image, covered, ramp
        self._halves: list[np.ndarray] = []
        self._lock = threading.Lock()

    @property
    def levels(self) -> int:
        """Number of levels; the last one is a single tile."""
        return max(0, (max(self.image.shape) - 1) // TILE).bit_length() + 1

    def tile(self, level: int, row: int, column: int) -> np.ndarray:
        """(h, w) complex64, at most ``TILE`` on each side; NaN where nothing is known.

        Parameters
        ----------
        level : 0 is the image itself.
        row, column : of the tile, in tiles.

        Raises
        ------
        LookupError
            There is no such tile.
        """
        if not 0 <= level < self.levels:
            raise LookupError(f"level {level} of {self.levels}")
        height, width = (-(-side // 2**level) for side in self.image.shape)
        top, left = row * TILE, column * TILE
        if not (0 <= top < height and 0 <= left < width):
            raise LookupError(f"tile {row}, {column} of an image of {height} x {width}")
        rows, columns = slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width))
        return self._window(rows, columns) if level == 0 else self._level(level)[rows, columns]

    def limits(self) -> dict[str, tuple[float, float]]:
        """Colour limits of amplitude and phase (radians), from percentiles of pixels spread over the covered area."""
        step = -(-max(self.image.shape) // _SAMPLED)
        parts = [self._window(rows, slice(0, self.image.shape[1]))[::step, ::step] for rows in self._rows(step)]
        known = np.concatenate([part[np.isfinite(part)] for part in parts])
        return {"amplitude": limits(np.abs(known)), "phase": limits(np.angle(known))}

    def _level(self, level: int) -> np.ndarray:
        with self._lock:
            while len(self._halves) < level:
                if self._halves:
                    self._halves.append(_halved(self._halves[-1]))
                else:
                    every = slice(0, self.image.shape[1])
                    self._halves.append(np.concatenate([_halved(self._window(rows, every)) for rows in self._rows()]))
            return self._halves[level - 1]

    def _rows(self, step: int = 2) -> list[slice]:
        """Bands of rows, each beginning at a multiple of ``step``."""
        height, band = self.image.shape[0], -(-_ROWS_AT_ONCE // step) * step
        return [slice(first, min(first + band, height)) for first in range(0, height, band)]

    def _window(self, rows: slice, columns: slice) -> np.ndarray:
        """A part of the image, (h, w) complex64, without the ramp and NaN where nothing is known."""
        part = self.image[rows, columns].astype(np.complex64)
        if self.ramp is not None:
            part *= self.ramp.factor(rows, columns)
        if self.covered is not None:
            part[~self.covered[rows, columns]] = np.nan + 1j * np.nan
        return part


def _halved(image: np.ndarray) -> np.ndarray:
    """Means over 2 x 2 pixels of those that are not NaN; an odd last row or column is averaged on its own."""
    height, width = image.shape
    padded = np.pad(image, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
    blocks = [padded[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    total = np.zeros(blocks[0].shape, dtype=np.complex64)
    count = np.zeros(blocks[0].shape, dtype=np.float32)
    for block in blocks:
        known = np.isfinite(block)
        total += np.where(known, block, 0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.complex64(np.nan + 1j * np.nan)).astype(np.complex64)
