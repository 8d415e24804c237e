"""Content of a page at one moment: object, truth and probe as pyramids, and the scan positions."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho.engines.opr import probes_of
from ptycho.errors import DataError
from ptycho.evaluation.drawing import bounding_box
from ptycho.evaluation.registration import coverage
from ptycho.viewer.pyramid import TILE, Pyramid, phase_ramp

__all__ = ["Picture"]


@dataclass(eq=False)
class Picture:
    """Object, probe and positions; expensive parts are computed on first use.

    Attributes
    ----------
    object : (H, W) complex, dimensionless.
    origin : (row, col), position of ``object[0, 0]``, pixels.
    probe : (P, N, N) complex modes.
    positions : (M, 2) float, (row, col) of the patch centres, pixels.
    weight : returns (H, W) real, the coverage of each pixel; None where all of the object is known.
    nominal : (M, 2) float, positions before they were corrected, or None.
    pixel_size : metres, or None.
    truth : (H, W) complex on the grid of the object, or None.
    slices : (S, H, W) complex, of which the object is the product, or None.
    components, weights : (V, N, N) and (M, 1 + V) complex, where every pattern has a beam of its own, or None.
    predict : amplitude (N, N) of a position, where that is not the far field of the object read bilinearly.
    label : which step it was taken in.
    """

    object: np.ndarray
    origin: tuple[float, float]
    probe: np.ndarray
    positions: np.ndarray
    weight: Callable[[], np.ndarray] | None = None
    nominal: np.ndarray | None = None
    pixel_size: float | None = None
    truth: np.ndarray | None = None
    slices: np.ndarray | None = None
    components: np.ndarray | None = None
    weights: np.ndarray | None = None
    predict: Callable[[int], np.ndarray] | None = None
    label: str = ""
    _lock: Any = field(default_factory=threading.RLock, repr=False)
    _pyramids: dict[tuple[str, bool], Pyramid] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def covered(self) -> np.ndarray | None:
        """(H, W) bool, the pixels with enough coverage to be shown; None where all of them have."""
        if self.weight is None:
            return None
        try:
            return coverage(self.weight())
        except DataError:
            return None

    def probe_at(self, index: int) -> np.ndarray:
        """(P, N, N) complex, the probe modes of one pattern."""
        if self.components is None or self.weights is None:
            return self.probe
        return np.asarray(probes_of(self.probe, self.components, self.weights[index : index + 1])[0])

    def names(self) -> list[str]:
        """Names of the available images: ``object``, ``slice 1``, ..., ``truth``, ``probe 1``, ..."""
        slices = [] if self.slices is None else [f"slice {number}" for number in range(1, len(self.slices) + 1)]
        truth = [] if self.truth is None else ["truth"]
        return ["object", *slices, *truth, *(f"probe {number}" for number in range(1, len(self.probe) + 1))]

    def pyramid(self, name: str, flat: bool) -> Pyramid:
        """One of the images; ``flat`` takes its global phase and linear phase ramp off (of a probe the phase alone).

        Raises
        ------
        LookupError
            There is no such image.
        """
        with self._lock:
            if (name, flat) not in self._pyramids:
                self._pyramids[name, flat] = self._made(name, flat)
            return self._pyramids[name, flat]

    def _made(self, name: str, flat: bool) -> Pyramid:
        if name not in self.names():
            raise LookupError(name)
        if name.startswith("probe"):
            mode = self.probe[int(name.split()[1]) - 1]
            return Pyramid(mode * np.exp(-1j * np.angle(np.sum(mode * np.abs(mode)))) if flat else mode)
        image = self.object
        if name == "truth" and self.truth is not None:
            image = self.truth
        elif name.startswith("slice") and self.slices is not None:
            image = self.slices[int(name.split()[1]) - 1]
        known = np.ones(image.shape, dtype=bool) if self.covered is None else self.covered
        return Pyramid(image, self.covered, phase_ramp(image, known) if flat else None)

    def header(self, flat: bool) -> dict[str, Any]:
        """Information that a page needs before it requests tiles; JSON. ``flat`` as in :meth:`pyramid`."""
        with self._lock:
            images = {name: self._described(name, flat) for name in self.names()}
        return {
            "label": self.label,
            "images": images,
            "tile": TILE,
            "origin": [float(value) for value in self.origin],
            "pixel_size": self.pixel_size,
            "positions": len(self.positions),
        }

    def _described(self, name: str, flat: bool) -> dict[str, Any]:
        pyramid = self.pyramid(name, flat)
        found: dict[str, Any] = {
            "shape": list(pyramid.image.shape),
            "levels": pyramid.levels,
            "limits": pyramid.limits(),
        }
        if pyramid.covered is not None:
            rows, columns = bounding_box(pyramid.covered)
            found["box"] = [rows.start, columns.start, rows.stop, columns.stop]
        if name.startswith("probe"):
            power = (np.abs(self.probe) ** 2).sum(axis=(1, 2), dtype=np.float64)
            found["share"] = float(power[int(name.split()[1]) - 1] / max(float(power.sum()), np.finfo(np.float64).tiny))
        return found

    def places(self) -> np.ndarray:
        """(M, 4) float32, (row, col) of every position on the object's pixels, and where it was before correction."""
        before = self.positions if self.nominal is None else self.nominal
        both = np.concatenate([self.positions, before], axis=1) - np.tile(np.asarray(self.origin), 2)
        return both.astype(np.float32)
