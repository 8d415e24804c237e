"""The measured pattern of a position beside the one that object and probe predict."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.data import Scan
from ptycho.errors import PtychoError
from ptycho.viewer.picture import Picture
from ptycho.workflows.r_factor import predict_amplitudes

__all__ = ["SAMPLED", "Patterns", "Samples"]

_NO_PATTERN = "There is no measured pattern for this position."
SAMPLED = 32
"""Number of patterns that the R-factor of a live picture is computed from."""


@dataclass
class Samples:
    """The patterns that are stored in a result.

    Attributes
    ----------
    index : (K,) the positions that they belong to.
    measured, predicted : (K, N, N) amplitudes, sqrt(photons).
    """

    index: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray


@dataclass
class _Placed:
    """A part of an object in the form that the evaluation expects."""

    object: np.ndarray
    weight: np.ndarray
    origin: tuple[float, float]


class Patterns:
    """Measured and predicted patterns by position.

    Parameters
    ----------
    scan : the measurement, or None where it is not available.
    pattern_of : (M,) which pattern of the scan belongs to each position, -1 where none does; None if they are the same.
    samples : the patterns to show where there is no scan.
    mask : (N, N) bool, True where the detector is good; by default the scan's.
    missing : a sentence that explains why the measured patterns are not available.
    predict : amplitude (N, N) of a position, where that is not the far field of the object read bilinearly.
    """

    def __init__(
        self,
        scan: Scan | None,
        pattern_of: np.ndarray | None = None,
        samples: Samples | None = None,
        mask: np.ndarray | None = None,
        missing: str = _NO_PATTERN,
        predict: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.predict = predict
        self.scan, self.pattern_of, self.samples, self.missing = scan, pattern_of, samples, missing
        self.mask = scan.mask if mask is None and scan is not None else mask
        self._fits: tuple[Picture | None, tuple[float, float]] = (None, (1.0, float("nan")))
        self._lock = threading.Lock()

    def note(self) -> str:
        """Note for the reader about missing patterns; empty where every position has its pattern."""
        return "" if self.scan is not None else self.missing

    def at_hand(self, count: int) -> list[int] | None:
        """The positions of ``count`` that have a measured pattern; None where all of them do."""
        if self.scan is None:
            return [] if self.samples is None else [int(number) for number in self.samples.index]
        if self.pattern_of is None:
            return None if len(self.scan) == count else []
        return [int(number) for number in np.flatnonzero(self.pattern_of >= 0)]

    def at(self, picture: Picture, index: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Measured and predicted pattern of one position.

        Parameters
        ----------
        picture : object, probe and positions.
        index : of the position.

        Returns
        -------
        header : dict
            JSON: the index, its position, the source of the patterns, what is missing, the R-factor of this pattern.
        arrays : dict
            ``measured`` and ``predicted``, (N, N) amplitudes, NaN on bad pixels of the detector; each only where it is
            known.

        Raises
        ------
        LookupError
            There is no such position.
        """
        if not 0 <= index < len(picture.positions):
            raise LookupError(f"position {index} of {len(picture.positions)}")
        row, column = (float(value) for value in picture.positions[index])
        header: dict[str, Any] = {"index": index, "row": row, "column": column, "note": ""}
        try:
            arrays = self._kept(index) if self.scan is None else self._read(picture, index)
            if not arrays:
                header["note"] = self.missing
                arrays = {"predicted": self._predicted(picture, index)} if len(picture.probe) else {}
        except (PtychoError, OSError) as error:
            return {**header, "note": f"The pattern cannot be read: {error}"}, {}
        if "measured" in arrays:
            good = np.ones(arrays["measured"].shape, dtype=bool) if self.mask is None else self.mask
            header |= _figures(arrays["measured"][good], arrays["predicted"][good])
            arrays["measured"] = np.where(good, arrays["measured"], np.nan)
        return header, arrays

    def _kept(self, index: int) -> dict[str, np.ndarray]:
        if self.samples is None:
            return {}
        found = np.flatnonzero(self.samples.index == index)
        if not len(found):
            return {}
        return {"measured": self.samples.measured[found[0]], "predicted": self.samples.predicted[found[0]]}

    def _read(self, picture: Picture, index: int) -> dict[str, np.ndarray]:
        pattern = self._pattern(index, len(picture.positions))
        if self.scan is None or pattern < 0:
            return {}
        predicted = self._predicted(picture, index) * self.fit(picture)[0]
        return {"measured": self.scan.amplitude([pattern])[0], "predicted": predicted}

    def _pattern(self, index: int, count: int) -> int:
        if self.scan is None or (self.pattern_of is None and len(self.scan) != count):
            return -1
        return index if self.pattern_of is None else int(self.pattern_of[index])

    def fit(self, picture: Picture) -> tuple[float, float]:
        """Agreement of the predictions with a few patterns spread over the scan.

        Returns
        -------
        scale : float
            The factor from predicted amplitudes, in the unit of the probe, to measured ones.
        r_factor : float
            Of these patterns; NaN where none was measured.
        """
        with self._lock:
            if self._fits[0] is not picture:
                self._fits = (picture, self._fitted(picture))
            return self._fits[1]

    def _fitted(self, picture: Picture) -> tuple[float, float]:
        count = len(picture.positions)
        pairs = [(k, self._pattern(k, count)) for k in np.linspace(0, count - 1, min(count, SAMPLED)).astype(int)]
        known = [(position, pattern) for position, pattern in pairs if pattern >= 0]
        if self.scan is None or not known:
            return 1.0, float("nan")
        good = 1.0 if self.mask is None else self.mask
        measured = self.scan.amplitude([pattern for _, pattern in known])
        predicted = np.stack([self._predicted(picture, position) * good for position, _ in known])
        power = float(np.sum(predicted**2, dtype=np.float64))
        total = float(np.sum(measured, dtype=np.float64))
        scale = float(np.sum(predicted * measured, dtype=np.float64)) / power if power > 0 else 1.0
        misfit = float(np.sum(np.abs(scale * predicted - measured), dtype=np.float64))
        return scale, misfit / total if total > 0 else float("nan")

    def _predicted(self, picture: Picture, index: int) -> np.ndarray:
        """(N, N) amplitude in the probe's unit; only the object around the position is touched."""
        predict = picture.predict or self.predict
        if predict is not None:
            return predict(index)
        reach = picture.probe.shape[-1] // 2 + 2
        position = np.asarray(picture.positions[index])
        pixel = np.clip(np.round(position - picture.origin), 0, np.asarray(picture.object.shape) - 1).astype(int)
        sides = [
            slice(max(0, middle - reach), min(middle + reach + 1, size))
            for middle, size in zip(pixel.tolist(), picture.object.shape, strict=True)
        ]
        part = picture.object[sides[0], sides[1]]
        origin = (picture.origin[0] + sides[0].start, picture.origin[1] + sides[1].start)
        placed = _Placed(part, np.ones(part.shape, dtype=np.float32), origin)
        return predict_amplitudes(placed, picture.probe_at(index), position[None])[0]


def _figures(measured: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    total = float(np.sum(measured, dtype=np.float64))
    misfit = float(np.sum(np.abs(predicted - measured), dtype=np.float64))
    return {
        "photons": float(np.sum(np.square(measured, dtype=np.float64))),
        "r_factor": misfit / total if total > 0 else float("nan"),
    }
