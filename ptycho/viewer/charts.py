"""The curves of a page as plain values: losses and R-factors by epoch, Fourier ring correlation by frequency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptycho.evaluation import FRC

__all__ = ["LOSSES", "epoch_charts", "frc_chart"]

LOSSES = ("loss", "val_loss")
"""Metrics of an epoch that are losses."""

_NAMES = {"loss": "training", "val_loss": "validation"}
_CURVE_POINTS = 600
"""Of a curve; a chart on the page has about as many pixels in its width."""

Curve = Sequence[tuple[float, float]]


def epoch_charts(losses: Mapping[str, Curve], r_factors: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Charts of the losses and of the R-factors, where there are any.

    Parameters
    ----------
    losses, r_factors : (epoch, value) by the name of the curve.
    """
    named = {_NAMES.get(name, name): points for name, points in losses.items()}
    apart = {} if _overlap(named.values()) else {f"Loss in {name}": {name: points} for name, points in named.items()}
    losses_shown = [_chart(title, "epoch", curves) for title, curves in (apart or {"Loss": named}).items()]
    found = [*losses_shown, _chart("R-factor", "epoch", r_factors)]
    return [chart for chart in found if chart["series"]]


def _overlap(curves: Iterable[Curve]) -> bool:
    """Whether the ranges of the curves overlap; on a common axis, curves far apart would all look flat."""
    ranges = [(min(values), max(values)) for curve in curves if (values := [y for _, y in curve if math.isfinite(y)])]
    return not ranges or max(low for low, _ in ranges) <= min(high for _, high in ranges)


def frc_chart(curves: Mapping[str, FRC]) -> list[dict[str, Any]]:
    """Chart of the Fourier ring correlations against the frequency in cycles per pixel; empty without a curve."""
    lines = {name: list(zip(curve.frequency, curve.correlation, strict=True)) for name, curve in curves.items()}
    if not lines:
        return []
    first = next(iter(curves.values()))
    lines["half bit"] = list(zip(first.frequency, first.threshold("half-bit"), strict=True))
    return [_chart("Fourier ring correlation", "cycles per pixel", lines)]


def _chart(title: str, axis: str, curves: Mapping[str, Curve]) -> dict[str, Any]:
    series = []
    for name, points in curves.items():
        step = -(-len(points) // _CURVE_POINTS) or 1
        kept = [*points[:-1:step], *points[-1:]]
        series.append({"name": name, "x": [float(x) for x, _ in kept], "y": [float(y) for _, y in kept]})
    return {"title": title, "axis": axis, "series": [each for each in series if each["x"]]}
