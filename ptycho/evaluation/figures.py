"""Figures of a reconstruction: object, probe, scan, patterns, loss and Fourier ring correlation.

Every function returns a matplotlib ``Figure`` of its own, drawn by Agg: pyplot, the
display and the caller's figures are untouched. Colour limits are percentiles inside the covered area; uncovered pixels
are grey. The phase is shown without its constant and its linear ramp, which the patterns do not determine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.charts import frc_figure, loss_figure, patterns_figure, positions_figure
from ptycho.evaluation.comparison import Comparison
from ptycho.evaluation.drawing import (
    FAINT,
    INK,
    UNCOVERED,
    bounding_box,
    colour_wheel,
    extent,
    hue_brightness,
    limits,
    new_figure,
    png_bytes,
    scale_bar,
    style,
    thinned,
)
from ptycho.evaluation.ramps import ramp_factors
from ptycho.evaluation.registration import coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "amplitude_figure",
    "comparison_figure",
    "complex_figure",
    "frc_figure",
    "loss_figure",
    "patterns_figure",
    "phase_figure",
    "png_bytes",
    "positions_figure",
    "probe_figure",
    "slices_figure",
]

_LONG = 6.4
_PANELS = 6
"""Modes or slices in one figure; with more of them each is too small to show anything."""


def amplitude_figure(
    object: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    pixel_size: float | None = None,
    origin: Sequence[float] = (0.0, 0.0),
) -> Figure:
    """Amplitude of an object.

    Parameters
    ----------
    object : (H, W) complex.
    weight : (H, W) real coverage; default covered everywhere.
    pixel_size : metres; gives a scale bar. Without it the axes count pixels.
    origin : (row, col), position of pixel [0, 0].
    """
    box, inside = _view(_covered(object, weight))
    return _object_figure(np.abs(object[box]), inside, box, "Amplitude", "", "gray", None, pixel_size, origin)


def phase_figure(
    object: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    pixel_size: float | None = None,
    origin: Sequence[float] = (0.0, 0.0),
) -> Figure:
    """Phase of an object in rad, global phase and linear ramp removed; arguments as in :func:`amplitude_figure`.

    The colours are cyclic, from -pi to pi, where the phase wraps.
    """
    covered = _covered(object, weight)
    box, inside = _view(covered)
    phase = np.angle(_without_ramp(object, covered, box))
    wraps = float(np.ptp(np.percentile(phase[inside], [0.5, 99.5]))) > 1.6 * math.pi
    cmap, span = ("twilight", (-math.pi, math.pi)) if wraps else ("gray", None)
    return _object_figure(phase, inside, box, "Phase", "rad", cmap, span, pixel_size, origin)


def complex_figure(
    object: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    pixel_size: float | None = None,
    origin: Sequence[float] = (0.0, 0.0),
) -> Figure:
    """An object with its phase as hue and its amplitude as brightness; arguments as in :func:`amplitude_figure`."""
    covered = _covered(object, weight)
    box, inside = _view(covered)
    flat = _without_ramp(object, covered, box)
    brightest = limits(np.abs(flat)[inside])[1]
    figure = new_figure(*_image_size(inside.shape, 1.5))
    axes, legend = figure.subplots(1, 2, width_ratios=[1.0, 0.2])
    axes.imshow(_greyed(hue_brightness(flat, brightest), inside), interpolation="nearest", extent=extent(box, origin))
    style(axes, "Complex object")
    _furnish(axes, pixel_size)
    legend.set_anchor("N")
    colour_wheel(legend, brightest)
    return figure


def probe_figure(probe: np.ndarray, *, pixel_size: float | None = None) -> Figure:
    """The probe's modes, phase as hue and amplitude as brightness, with each mode's share of the power.

    Parameters
    ----------
    probe : (P, N, N) or (N, N) complex. At most six modes are drawn, the first ones.
    pixel_size : metres; gives a scale bar.
    """
    modes = np.asarray(probe)
    modes = modes[None] if modes.ndim == 2 else modes
    power = np.sum(np.abs(modes) ** 2, axis=(1, 2))
    share = power / max(float(power.sum()), np.finfo(np.float64).tiny)
    shown = min(len(modes), _PANELS)
    columns = min(shown, 3)
    rows = math.ceil(shown / columns)
    side = {1: 5.0, 2: 3.6, 3: 3.0}[columns]
    figure = new_figure(side * columns + 1.3, side * rows + 0.5)
    grid = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=[1.0] * columns + [1.2 / side])
    for index, axes in enumerate(grid[:, :-1].ravel()):
        axes.set_axis_off()
        if index < shown:
            mode = modes[index] * np.exp(-1j * np.angle(np.sum(modes[index] * np.abs(modes[index]))))
            axes.imshow(hue_brightness(mode, float(np.abs(mode).max())), interpolation="nearest")
            style(axes, f"Mode {index + 1}: {100 * share[index]:.3g} %" if len(modes) > 1 else "Probe")
            if pixel_size is not None and index == 0:
                scale_bar(axes, pixel_size)
    for axes in grid[:, -1]:
        axes.set_axis_off()
        axes.set_anchor("N")
    colour_wheel(grid[0, -1], float(np.abs(modes[0]).max()))
    return figure


def slices_figure(slices: np.ndarray, weight: np.ndarray | None = None, *, pixel_size: float | None = None) -> Figure:
    """Slices of an object side by side, amplitude above phase, each without its phase ramp.

    Parameters
    ----------
    slices : (S, H, W) complex. At most six are drawn, the first ones.
    weight, pixel_size : as in :func:`amplitude_figure`.
    """
    shown = np.asarray(slices)[:_PANELS]
    covered = _covered(shown[0], weight)
    box, inside = _view(covered)
    tall = min(1.6, max(0.5, inside.shape[0] / inside.shape[1]))
    figure = new_figure(4.2 * len(shown), 7.2 * tall + 0.6)
    grid = figure.subplots(2, len(shown), squeeze=False)
    for number, image in enumerate(shown):
        flat = _without_ramp(image, covered, box)
        for axes, picture, name, unit in zip(
            grid[:, number], (np.abs(flat), np.angle(flat)), ("amplitude", "phase"), ("", "rad"), strict=True
        ):
            _drawn(axes, picture, inside, limits(picture[inside]), "gray", unit, figure)
            axes.set(xticks=[], yticks=[])
            style(axes, f"slice {number + 1}: {name}")
    if pixel_size is not None:
        scale_bar(grid[0, 0], pixel_size, fontsize=8)
    return figure


def comparison_figure(comparison: Comparison, *, pixel_size: float | None = None) -> Figure:
    """Estimate and reference side by side, amplitude above phase, on the same colour limits, and their difference."""
    mask = comparison.mask
    parts = {
        "amplitude": (np.abs(comparison.estimate), np.abs(comparison.reference), "", False),
        "phase": (np.angle(comparison.estimate), np.angle(comparison.reference), "rad", True),
    }
    height, width = mask.shape
    figure = new_figure(12.5, 7.4 * min(1.4, max(0.6, height / width)) + 0.4)
    grid = figure.subplots(2, 3)
    for row, (name, (ours, theirs, unit, cyclic)) in enumerate(parts.items()):
        difference = np.angle(np.exp(1j * (ours - theirs))) if cyclic else ours - theirs
        span = limits(theirs[mask])
        spread = max(abs(side) for side in limits(difference[mask]))
        for axes, picture, title, (low, high), cmap in zip(
            grid[row],
            (ours, theirs, difference),
            (f"{name}: reconstruction", f"{name}: reference", "difference"),
            (span, span, (-spread, spread)),
            ("gray", "gray", "RdBu_r"),
            strict=True,
        ):
            _drawn(axes, picture, mask, (low, high), cmap, unit, figure)
            axes.set(xticks=[], yticks=[])
            style(axes, title)
        if pixel_size is not None:
            scale_bar(grid[row, 0], pixel_size, fontsize=8)
    return figure


def _object_figure(
    shown: np.ndarray,
    inside: np.ndarray,
    box: tuple[slice, slice],
    title: str,
    unit: str,
    cmap: str,
    span: tuple[float, float] | None,
    pixel_size: float | None,
    origin: Sequence[float],
) -> Figure:
    figure = new_figure(*_image_size(inside.shape, 1.1))
    axes = figure.subplots()
    _drawn(axes, shown, inside, span or limits(shown[inside]), cmap, unit, figure, extent=extent(box, origin))
    style(axes, f"{title} ({unit})" if unit else title)
    _furnish(axes, pixel_size)
    return figure


def _drawn(
    axes: Axes,
    image: np.ndarray,
    inside: np.ndarray,
    span: tuple[float, float],
    cmap: str,
    unit: str,
    figure: Figure,
    **options: Any,
) -> None:
    masked = np.ma.array(image, mask=~inside)
    drawn = axes.imshow(masked, cmap=cmap, vmin=span[0], vmax=span[1], interpolation="nearest", **options)
    axes.set_facecolor(UNCOVERED)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02, aspect=28)
    bar.outline.set(edgecolor=FAINT, linewidth=0.6)
    bar.ax.tick_params(labelsize=10, colors=INK)
    if unit:
        bar.set_label(unit, color=INK, fontsize=11)


def _covered(image: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    if weight is None:
        return np.ones(image.shape, dtype=bool)
    if weight.shape != image.shape:
        raise DataError(f"weight: got shape {weight.shape}; expected the object's, {image.shape}.")
    return coverage(weight)


def _view(covered: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """The box of pixels that is drawn, subsampled where it is large, and its covered pixels."""
    box = bounding_box(covered)
    view = thinned(box)
    return (view, covered[view]) if covered[view].any() else (box, covered[box])


def _without_ramp(image: np.ndarray, covered: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """The pixels of a box, with the phase ramp of the whole image removed."""
    rows, cols = ramp_factors(image, covered)
    return image[box] * rows[box[0], None] * cols[box[1]]


def _greyed(colours: np.ndarray, inside: np.ndarray) -> np.ndarray:
    from matplotlib.colors import to_rgb

    return np.where(inside[..., None], colours, np.asarray(to_rgb(UNCOVERED)))


def _image_size(shape: tuple[int, ...], extra: float) -> tuple[float, float]:
    """Width and height in inches of a figure whose image has its longer side 6.4 inches long."""
    height, width = shape[0], shape[1]
    unit = _LONG / max(height, width)
    return max(2.4, width * unit) + extra, max(2.4, height * unit) + 0.6


def _furnish(axes: Axes, pixel_size: float | None) -> None:
    if pixel_size is None:
        axes.set(xlabel="column (pixels)", ylabel="row (pixels)")
        return
    axes.set(xticks=[], yticks=[])
    scale_bar(axes, pixel_size)
