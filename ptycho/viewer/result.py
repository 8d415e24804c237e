"""The page of a finished result."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from ptycho.config import EngineSettings, validate
from ptycho.data import Scan
from ptycho.engines import State, predictor
from ptycho.errors import DataError
from ptycho.viewer.charts import LOSSES, epoch_charts, frc_chart
from ptycho.viewer.patterns import Patterns, Samples
from ptycho.viewer.picture import Picture
from ptycho.viewer.server import PageServer
from ptycho.viewer.stage import Stage
from ptycho.workflows.r_factor import sample_of
from ptycho.workflows.report import headline_metrics, provenance_rows
from ptycho.workflows.results import Reconstruction

__all__ = ["picture_of_result", "result_patterns", "result_state", "serve_result"]

logger = logging.getLogger(__name__)

_SAME_PLACE = 1e-6
_ELSEWHERE = "This position has no pattern in the scan that is given."


def serve_result(
    result: Reconstruction,
    scan: Scan | None = None,
    *,
    missing: str = "The scan is not at hand.",
    about: Mapping[str, Any] | None = None,
    port: int | None = None,
) -> PageServer:
    """Serve a page of a finished result on this machine, until its server is closed.

    Parameters
    ----------
    result : what is shown.
    scan : the measurement that it was made from, for the measured patterns.
    missing : a sentence that says why there is no scan.
    about : JSON that the page says beside: title, ...
    port : none takes a free one.

    Returns
    -------
    PageServer
        Its ``url`` is the address of the page.

    Raises
    ------
    ConfigError
        The port cannot be used.
    """
    stage = Stage({"live": False, **described(result), **(about or {})}, result_patterns(result, scan, missing))
    stage.put(picture_of_result(result, scan))
    stage.change(status="result", steps=[], elapsed=None, **result_state(result))
    return PageServer(stage, port)


def described(result: Reconstruction) -> dict[str, Any]:
    """What a page says of where a result came from."""
    data = result.provenance.get("data") or {}
    return {
        "title": str(data.get("name") or "Reconstruction"),
        "command": str(result.provenance.get("command") or ""),
        "created": str(result.provenance.get("created") or ""),
        "details": provenance_rows(result.provenance),
    }


def picture_of_result(result: Reconstruction, scan: Scan | None = None) -> Picture:
    """A result's object, truth, probe and positions; with the scan, where its positions were before correction."""
    nominal = None
    if scan is not None and len(scan) == len(result.positions) and not np.array_equal(scan.positions, result.positions):
        nominal = scan.positions
    return Picture(
        object=result.object,
        origin=result.origin,
        probe=result.probe,
        positions=result.positions,
        weight=lambda: result.weight,
        nominal=nominal,
        pixel_size=result.pixel_size,
        truth=result.truth,
        slices=result.slices,
        components=result.components,
        weights=result.weights,
    )


def result_patterns(result: Reconstruction, scan: Scan | None, missing: str) -> Patterns:
    """The patterns beside a result: the scan's, where it is at hand, else the few that the result keeps.

    Parameters
    ----------
    result : whose positions are asked for.
    scan : the measurement, or None.
    missing : a sentence that says why there is none.
    """
    samples = None
    if result.measured is not None and result.predicted is not None:
        index = sample_of(len(result.positions))
        if len(index) == len(result.measured):
            samples = Samples(index, result.measured, result.predicted)
    if scan is not None and result.probe.shape[-1] != scan.N:
        missing = (
            f"The scan's patterns are {scan.N} x {scan.N} pixels and the result's {result.probe.shape[-1]} x "
            f"{result.probe.shape[-1]}: read it as for the result (--crop, --bin)."
        )
        scan = None
    if scan is None:
        kept = (
            ""
            if samples is None
            else f"Only positions {', '.join(map(str, samples.index))} show what the result keeps."
        )
        missing, predict = f"{missing} {kept}".strip(), _prediction(result, None)
        return Patterns(None, samples=samples, mask=result.mask, missing=missing, predict=predict)
    predict = _prediction(result, scan)
    if len(scan) == len(result.positions):
        return Patterns(scan, samples=samples, mask=result.mask, predict=predict)
    distance, nearest = KDTree(scan.positions).query(result.positions)
    return Patterns(scan, np.where(distance < _SAME_PLACE, nearest, -1), samples, result.mask, _ELSEWHERE, predict)


def _prediction(result: Reconstruction, scan: Scan | None) -> Callable[[int], np.ndarray] | None:
    """What an engine predicts of slices, for another detector, or with another way to read; None otherwise."""
    config = result.provenance.get("config") or {}
    propagation = str(config.get("propagation", "far"))
    interpolation = str(config.get("interpolation", config.get("shift", "bilinear")))  # version 0.1 wrote "shift"
    if (propagation, interpolation) == ("far", "bilinear") and result.slices is None:
        return None

    @functools.cache
    def made() -> Callable[[np.ndarray], np.ndarray]:
        if scan is None:
            raise DataError(f"What the {propagation} field shows here is not known without the scan.")
        image = result.object if result.slices is None else result.slices
        state = State(image, result.origin, result.probe, result.positions, result.positions)
        state.spacing = result.slice_spacing
        state.components, state.weights = result.components, result.weights
        settings = EngineSettings(propagation=propagation, interpolation=interpolation)
        validate(settings)
        return predictor(state, scan, settings)

    return lambda index: made()(np.asarray([index]))[0]


def result_state(result: Reconstruction) -> dict[str, Any]:
    """Figures and curves of a result; JSON."""
    curves = {name: list(enumerate(values, 1)) for name, values in result.history.items()}
    losses = {name: curves[name] for name in LOSSES if name in curves}
    r_factors = {"R-factor": curves["r_factor"]} if "r_factor" in curves else {}
    return {
        "headline": headline_metrics(result),
        "charts": epoch_charts(losses, r_factors) + frc_chart(result.frc),
    }
