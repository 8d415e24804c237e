"""Figures of a scan and of a training: positions, patterns, loss and Fourier ring correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.drawing import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    UNCOVERED,
    extent,
    limits,
    new_figure,
    plain_label,
    style,
    thinned,
)
from ptycho.evaluation.frc import FRC
from ptycho.evaluation.metrics import optimal_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["frc_figure", "loss_figure", "patterns_figure", "positions_figure"]

_CURVES = {"complex": INK, "amplitude": BLUE, "phase": ORANGE}
_RINGS = "rings before the first below 1/2 bit, below 0.5"
_GRID = "#e4e8ec"
_PATTERNS_DRAWN = 4
"""Pairs of patterns in one figure; with more of them each is too small to show anything."""
_POSITIONS_DRAWN = 4000
"""More positions would cover each other."""


def positions_figure(
    positions: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    origin: Sequence[float] = (0.0, 0.0),
    pixel_size: float | None = None,
) -> Figure:
    """Scan positions drawn over their coverage.

    Parameters
    ----------
    positions : (M, 2) pixels, (row, col). Of more than 4000, every k-th is drawn.
    weight : (H, W) real coverage, or None.
    origin : (row, col), position of ``weight[0, 0]``.
    pixel_size : metres; the axes are then in micrometres, else in pixels.
    """
    points = np.asarray(positions, dtype=np.float64)
    unit, factor = ("pixels", 1.0) if pixel_size is None else ("µm", pixel_size * 1e6)
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    if weight is not None:
        weight = np.asarray(weight)
        box = thinned((slice(0, weight.shape[0]), slice(0, weight.shape[1])))
        left, right, bottom, top = (factor * side for side in extent(box, origin))
        shown = np.ma.masked_less_equal(weight[box] / max(float(weight.max()), 1e-30), 0.0)
        drawn = axes.imshow(
            shown, cmap="Blues", vmin=-0.15, vmax=1.15, extent=(left, right, bottom, top), interpolation="nearest"
        )
        bar = figure.colorbar(
            drawn, ax=axes, shrink=0.9, pad=0.02, boundaries=np.linspace(0, 1, 101), ticks=[0, 0.5, 1]
        )
        bar.set_label("coverage (relative)", color=INK, fontsize=11)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=10, colors=INK)
    step = max(1, math.ceil(len(points) / _POSITIONS_DRAWN))
    rows, cols = factor * points[::step].T
    axes.scatter(cols, rows, s=float(np.clip(4000 / len(rows), 1.5, 16)), color=ORANGE, linewidths=0)
    if weight is None:
        axes.invert_yaxis()
    axes.set(xlabel=f"column ({unit})", ylabel=f"row ({unit})", aspect="equal")
    style(axes, f"{len(points)} scan positions")
    return figure


def patterns_figure(
    measured: np.ndarray, predicted: np.ndarray, *, mask: np.ndarray | None = None, names: Sequence[str] = ()
) -> Figure:
    """Measured beside predicted patterns, photons per pixel on a logarithmic scale, and their difference.

    Parameters
    ----------
    measured, predicted : (K, N, N) real amplitudes, sqrt(photons). The predicted ones are multiplied
        by one global least-squares scale, as in the R-factor. At most four patterns are drawn.
    mask : (N, N) bool, True where the detector is good.
    names : label of each pattern; default its number.

    Raises
    ------
    DataError
        The shapes differ.
    """
    seen, told = (np.asarray(stack, dtype=np.float64)[:_PATTERNS_DRAWN] for stack in (measured, predicted))
    if seen.ndim != 3 or seen.shape != told.shape:
        raise DataError(f"measured: got shape {seen.shape} and predicted {told.shape}; expected two equal (K, N, N).")
    good = np.ones(seen.shape[1:], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    told = told * optimal_scale(told, seen, good)
    brightness = {"norm": _logarithmic(seen[:, good] ** 2), "cmap": "inferno"}
    spread = limits(np.abs((told - seen)[:, good]))[1]
    signed = {"vmin": -spread, "vmax": spread, "cmap": "RdBu_r"}
    figure = new_figure(2.3 * len(seen) + 1.5, 7.2)
    grid = figure.subplots(3, len(seen), squeeze=False)
    rows: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        ("measured", seen**2, brightness),
        ("predicted", told**2, brightness),
        ("difference", told - seen, signed),
    )
    for row, (label, stack, colours) in enumerate(rows):
        for axes, picture in zip(grid[row], stack, strict=True):
            shown = picture if label == "predicted" else np.ma.array(picture, mask=~good)
            drawn = axes.imshow(shown, interpolation="nearest", **colours)
            axes.set_facecolor(UNCOVERED)
            axes.set(xticks=[], yticks=[])
            style(axes)
        grid[row, 0].set_ylabel(label, fontsize=12, fontweight="bold", color=INK)
        if label != "measured":  # one bar serves the first two rows
            both = label == "predicted"
            beside = list(grid[:2].ravel() if both else grid[2])
            bar = figure.colorbar(drawn, ax=beside, pad=0.015, aspect=34 if both else 16)
            bar.set_label("photons" if both else "amplitude (√photons)", color=INK, fontsize=11)
            bar.ax.tick_params(labelsize=10, colors=INK)
    for index, axes in enumerate(grid[0]):
        misfit = float(np.abs(told - seen)[index, good].sum() / max(seen[index, good].sum(), 1e-30))
        name = names[index] if index < len(names) else f"pattern {index + 1}"
        axes.set_title(f"{plain_label(name)},  R = {misfit:.3f}", loc="left", color=INK, fontsize=11)
    return figure


def loss_figure(history: Mapping[str, Sequence[float]]) -> Figure:
    """Training and validation loss by epoch; the scale is logarithmic where the values span more than a factor of 5.

    Parameters
    ----------
    history : one value per epoch by name. ``loss`` and ``val_loss`` (or ``train_loss``) are drawn; where neither
        exists, every series whose name contains "loss".
    """
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator, ScalarFormatter

    named = {"loss": "training", "train_loss": "training", "val_loss": "validation", "validation_loss": "validation"}
    curves = {label: history[name] for name, label in named.items() if len(history.get(name, ()))}
    curves = curves or {name: values for name, values in history.items() if "loss" in name and len(values)}
    figure = new_figure(5.6, 4.3)
    axes = figure.subplots()
    colours = {"training": BLUE, "validation": ORANGE}
    everything = np.concatenate([np.asarray(values, dtype=np.float64) for values in curves.values()] or [np.zeros(0)])
    for (label, values), spare in zip(curves.items(), [GREEN, GREY, INK] * len(curves), strict=False):
        epochs = np.arange(1, len(values) + 1)
        marker = "o" if len(values) <= 30 else None
        axes.plot(
            epochs,
            values,
            color=colours.get(label, spare),
            linewidth=2,
            marker=marker,
            markersize=4,
            label=plain_label(label),
        )
    finite = everything[np.isfinite(everything)]
    if finite.size and finite.min() > 0 and finite.max() > 5 * finite.min():
        axes.set_yscale("log")
        if finite.max() < 100 * finite.min():  # within two decades plain numbers read better than powers
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(FormatStrFormatter("%.3g"))
            axes.tick_params(which="minor", labelsize=9, colors=INK)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_GRID, linewidth=0.8)
    style(axes, "Loss")
    if curves:
        axes.legend(frameon=False, fontsize=11, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "no loss was recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=12)
    return figure


def frc_figure(frc: Mapping[str, FRC]) -> Figure:
    """Fourier ring correlation curves with the 1/2-bit and the 0.5 threshold; a dot where each first crosses 1/2 bit.

    Parameters
    ----------
    frc : curves by name; ``complex``, ``amplitude`` and ``phase`` have colours of their own.

    Raises
    ------
    DataError
        There is no curve.
    """
    if not frc:
        raise DataError("frc: got no curve; expected at least one.")
    figure = new_figure(5.6, 4.9)
    axes = figure.subplots()
    names = sorted(frc, key=lambda name: ([*_CURVES, name].index(name), name))
    for name, spare in zip(names, [GREEN, GREY] * len(names), strict=False):
        curve, colour = frc[name], _CURVES.get(name, spare)
        label = f"{plain_label(name)}: {curve.rings('half-bit')}, {curve.rings(0.5)} of {len(curve)}"
        axes.plot(curve.frequency, curve.correlation, color=colour, linewidth=2, label=label)
        at = curve.cutoff("half-bit")
        if 0 < at < curve.frequency[-1]:
            height = float(np.interp(at, curve.frequency, curve.correlation))
            axes.plot([at], [height], "o", color=colour, markersize=7, markeredgecolor="white")
    first = frc[names[0]]
    lowest = min(-0.05, *(float(curve.correlation.min()) for curve in frc.values()))
    axes.plot(first.frequency, first.half_bit, color=GREY, linestyle="--", linewidth=1.4, label="1/2-bit threshold")
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.4, label="0.5 threshold")
    axes.axhline(0.0, color=FAINT, linewidth=0.8)
    axes.set(xlim=(0, 0.5), ylim=(lowest - 0.05, 1.05))
    axes.set(xlabel="spatial frequency (cycles / pixel)", ylabel="correlation")
    axes.grid(color=_GRID, linewidth=0.8)
    style(axes)
    if first.pixel_size is None:
        axes.set_title("Fourier ring correlation", loc="left", color=INK, fontsize=12, fontweight="bold")
    else:
        per_micrometre = 1e-6 / first.pixel_size

        def to_micrometres(frequency: Any) -> Any:
            return np.asarray(frequency) * per_micrometre

        def from_micrometres(frequency: Any) -> Any:
            return np.asarray(frequency) / per_micrometre

        top = axes.secondary_xaxis("top", functions=(to_micrometres, from_micrometres))
        top.set_xlabel("spatial frequency (1 / µm)", color=INK, fontsize=11)
        top.tick_params(labelsize=10, colors=INK)
    figure.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK, title=_RINGS, title_fontsize=9
    )
    return figure


def _logarithmic(counts: np.ndarray) -> Any:
    """Logarithmic colour scale from the faintest to the brightest non-zero measured pixel."""
    from matplotlib.colors import LogNorm

    positive = counts[counts > 0]
    low = float(np.percentile(positive, 1)) if positive.size else 0.1
    return LogNorm(vmin=low, vmax=max(float(counts.max(initial=0.0)), 10 * low), clip=True)
