"""The page of a run while it works: what it is told and shown by the run's own progress callbacks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptycho.config import EngineSettings
from ptycho.data import Scan
from ptycho.engines import predictor
from ptycho.evaluation import FRC
from ptycho.viewer.charts import LOSSES, epoch_charts, frc_chart
from ptycho.viewer.patterns import SAMPLED, Patterns
from ptycho.viewer.picture import Picture
from ptycho.viewer.result import picture_of_result, result_patterns
from ptycho.viewer.server import PageServer
from ptycho.viewer.stage import Stage
from ptycho.workflows.report import headline_metrics
from ptycho.workflows.results import Reconstruction

__all__ = ["LivePage"]

logger = logging.getLogger(__name__)

_AT_LEAST = 1.0
_SHARE = 0.05
"""Part of the run's time that may go into showing it, while somebody looks."""
_SERVED_SHARE = 0.1
"""The same of the server's threads, which work beside the run."""
_PATIENCE = 5.0
_LEARNED = ("estimate", "train")
"""Steps that work on the scan that is learned from; the others on the one that is reconstructed."""
_UNSEEN = ("half 1", "half 2")
"""Steps whose pictures would only stand in the way of the whole scan's."""
_WORDS = {
    "estimate": "Physics estimate",
    "train": "Training",
    "reconstruct": "Reconstruction by the network",
    "half 1": "First half of the scan",
    "half 2": "Second half of the scan",
}


class LivePage:
    """A page that shows a run; its callbacks are given to the run beside those that draw bars.

    Nothing here ever stops the run: what goes wrong is logged. Pictures are made only while a page is open and
    visible, at most once a second, and take about a twentieth of the run's time at most.

    Parameters
    ----------
    scan : what is learned from, or reconstructed.
    target : what a network reconstructs; by default the same.
    about : JSON, what the page says of the run: title, command, ...
    port : none takes a free one.

    Attributes
    ----------
    url : address of the page.

    Raises
    ------
    ConfigError
        The port cannot be used.
    """

    def __init__(
        self, scan: Scan, target: Scan | None = None, about: Mapping[str, Any] | None = None, port: int | None = None
    ) -> None:
        self.scan, self.target = scan, scan if target is None else target
        self._patterns = {id(each): Patterns(each) for each in (self.scan, self.target)}
        self.stage = Stage({"live": True, **(about or {})}, self._patterns[id(self.scan)])
        self.server = PageServer(self.stage, port)
        self.url = self.server.url
        self._steps: dict[str, dict[str, Any]] = {}
        self._losses: dict[str, list[tuple[float, float]]] = {}
        self._r_factors: dict[str, list[tuple[float, float]]] = {}
        self._sampled: dict[str, list[tuple[float, float]]] = {}
        self._frc: Mapping[str, FRC] = {}
        self._started, self._broken = time.monotonic(), False
        self._looked, self._served = self._started - _AT_LEAST, 0.0
        self._costs: dict[str, float] = {}
        self._told, self._epoch_takes = self._started, 0.0
        self._lock = threading.Lock()
        self.stage.change(status="running", steps=self._listed, charts=self._charts, elapsed=self._elapsed)

    def counter(self, label: str) -> StepReported:
        """A callback ``(done, total)`` for a step of the work."""
        return StepReported(self, label)

    def epochs(self, label: str) -> EpochReported:
        """A callback ``(epoch, all epochs, metrics)`` for a training or an iterative engine."""
        return EpochReported(self, label)

    def told(self, label: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show how far a step is, and its metrics."""
        now = time.monotonic()
        self._told, self._epoch_takes = now, now - self._told
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        with self._lock:
            step = self._steps.setdefault(label, {"words": _words(label), "metrics": {}})
            step |= {"done": int(done), "total": int(total), "metrics": metrics}
            for name, value in metrics.items():
                if name in LOSSES:
                    self._losses.setdefault(name, []).append((done, value))
                elif name == "r_factor" and label not in _UNSEEN:
                    self._r_factors.setdefault(label, []).append((done, value))
        self.stage.change()

    def observe(self, label: str, done: int, make: Callable[[], Any]) -> None:
        """Show what a step has, if somebody looks and it is time."""
        began = time.monotonic()
        if self._broken or label in _UNSEEN or not (self._is_time(label, began) and self.stage.looked_at()):
            return
        try:
            self._show(label, done, make)
        except Exception:
            self._broken = True
            logger.warning("The page can show no more pictures of the run, which goes on.", exc_info=True)
        self._looked, self._served = time.monotonic(), self.stage.spent()
        self._costs[label] = self._looked - began

    def _is_time(self, label: str, now: float) -> bool:
        """Whether a picture, at what the last one of this step has cost, would be a small part of the time since then.

        A network's first one is reckoned at a third of an epoch: the way forward without the way back.
        """
        expected = self._costs.get(label, self._epoch_takes / 3 if label == "train" else 0.0)
        return now - self._looked >= max(_AT_LEAST, expected / _SHARE, self._served / _SERVED_SHARE)

    def show(self, result: Reconstruction) -> None:
        """Show a finished result."""
        try:
            patterns = result_patterns(result, self.target, "")
            self.stage.put(picture_of_result(result, self.target), patterns)
            self._frc = result.frc
            self.stage.change(headline=headline_metrics(result))
        except Exception:
            logger.warning("The page cannot show the result.", exc_info=True)

    def close(self, status: str = "finished", message: str = "") -> None:
        """Say how the run ended, let open pages take in its last state, and end.

        Parameters
        ----------
        status : ``finished``, ``failed`` or ``interrupted``.
        message : what a reader should know, e.g. where the result is.
        """
        self.stage.change(ended=True, status=status, message=message, elapsed=self._elapsed())
        self.stage.farewell(_PATIENCE)
        self.server.close()

    def _show(self, label: str, done: int, make: Callable[[], Any]) -> None:
        shown = make()
        scan = self.scan if label in _LEARNED else self.target
        positions = getattr(shown, "positions", scan.positions)
        nominal = getattr(shown, "nominal", None)
        slices = shown.object if shown.object.ndim == 3 else None
        picture = Picture(
            object=shown.object if slices is None else shown.projection,
            origin=shown.origin,
            probe=np.asarray(shown.probe),
            positions=positions,
            weight=lambda: shown.weight,
            nominal=None if nominal is positions else nominal,
            pixel_size=scan.object_pixel_size,
            slices=slices,
            predict=_prediction(shown, scan),
            components=getattr(shown, "components", None),
            weights=getattr(shown, "weights", None),
            label=f"{_words(label)}, after {done}",
        )
        patterns = self._patterns[id(scan)]
        if label not in self._r_factors and label != "reconstruct":  # that one goes by patterns, not by rounds
            r_factor = patterns.fit(picture)[1]
            with self._lock:
                self._sampled.setdefault(label, []).append((done, r_factor))
        self.stage.put(picture, patterns)

    def _listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(step) for step in self._steps.values()]

    def _charts(self) -> list[dict[str, Any]]:
        with self._lock:
            curves = {_words(label): list(points) for label, points in self._r_factors.items()}
            curves |= {f"{_words(label)}, {SAMPLED} patterns": list(points) for label, points in self._sampled.items()}
            losses = {name: list(points) for name, points in self._losses.items()}
        return epoch_charts(losses, curves) + frc_chart(self._frc)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def _prediction(shown: Any, scan: Scan) -> Callable[[int], np.ndarray] | None:
    """How an engine predicts a pattern of what it shows, with its own settings; None where that is the usual way."""
    propagation, interpolation = (
        getattr(shown, name, usual) for name, usual in (("propagation", "far"), ("interpolation", "bilinear"))
    )
    if (propagation, interpolation) == ("far", "bilinear") and shown.object.ndim == 2:
        return None
    predict = predictor(shown, scan, EngineSettings(propagation=propagation, interpolation=interpolation))
    return lambda index: predict(np.asarray([index]))[0]


def _words(label: str) -> str:
    """What a reader calls a step; what has no other name is an engine."""
    return _WORDS.get(label, f"Engine {label}")


class StepReported:
    """A progress callback ``(done, total)`` that looks on."""

    def __init__(self, page: LivePage, label: str) -> None:
        self._page, self._label, self._done = page, label, 0

    def __call__(self, done: int, total: int) -> None:
        """Show how far the step is."""
        self._done = done
        self._page.told(self._label, done, total)

    def observe(self, make_snapshot: Callable[[], Any]) -> None:
        """Show what the step has; see :class:`ptycho.observers.Observer`."""
        self._page.observe(self._label, self._done, make_snapshot)


class EpochReported(StepReported):
    """A progress callback ``(epoch, all epochs, metrics)`` that looks on."""

    def __call__(self, epoch: int, n_epochs: int, metrics: Mapping[str, float] | None = None) -> None:
        """Show the metrics of an epoch."""
        self._done = epoch
        self._page.told(self._label, epoch, n_epochs, metrics)
