"""One figure of a whole scan, and one of a whole reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho.evaluation.drawing import BLUE, UNCOVERED, limits, new_figure, plain_label, style
from ptycho.evaluation.ramps import remove_ramp
from ptycho.evaluation.registration import coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_reconstruction", "plot_scan"]

_PATTERNS = 64
"""Most patterns that the mean is taken of: enough to show the detector, and read from a file in a second."""
_POINTS = 4000
"""Most positions that are drawn; more of them only darken the picture."""


def plot_scan(scan: Any) -> Figure:
    """Mean pattern, one pattern, positions and probe of a scan.

    Parameters
    ----------
    scan : a :class:`ptycho.Scan`. Of patterns in a file, 64 spread over the scan are read.

    Returns
    -------
    matplotlib.figure.Figure
        Of its own, not pyplot's; ``figure.savefig("scan.png")`` writes it, a notebook shows it.
    """
    chosen = np.unique(np.linspace(0, len(scan) - 1, min(len(scan), _PATTERNS)).round().astype(np.int64))
    counts = scan.counts(chosen)
    figure = new_figure(12.5, 3.6)
    figure.suptitle(plain_label(repr(scan)), fontsize=11)
    panels = figure.subplots(1, 4)
    _image(
        figure, panels[0], np.log10(1.0 + counts.mean(axis=0)), f"mean of {len(chosen)} patterns", "log10(1 + counts)"
    )
    _image(figure, panels[1], np.log10(1.0 + counts[0]), "pattern 0", "log10(1 + counts)")
    _positions(panels[2], np.asarray(scan.positions))
    _probe(figure, panels[3], scan.probe)
    return figure


def plot_reconstruction(result: Any) -> Figure:
    """Amplitude and phase of the object, first probe mode, and history of a reconstruction.

    The phase is shown without its constant and its linear ramp, which the patterns do not determine; uncovered pixels
    are grey.

    Parameters
    ----------
    result : a :class:`ptycho.Reconstruction`, or an engine's :class:`ptycho.State`.

    Returns
    -------
    matplotlib.figure.Figure
        As of :func:`plot_scan`.
    """
    image = np.asarray(result.object)
    image = image if image.ndim == 2 else np.prod(image, axis=0)  # a state of several slices
    covered = coverage(np.asarray(result.weight))
    figure = new_figure(14.5, 3.6)
    figure.suptitle(plain_label(repr(result)), fontsize=11)
    panels = figure.subplots(1, 4)
    inside = np.where(covered, 1.0, np.nan)
    _image(figure, panels[0], np.abs(image) * inside, "amplitude")
    _image(figure, panels[1], np.angle(remove_ramp(image, covered)) * inside, "phase", "radians")
    _probe(figure, panels[2], result.probe)
    for name in ("r_factor", "loss", "val_loss"):
        values = result.history.get(name, [])
        if len(values):
            panels[3].plot(np.arange(1, len(values) + 1), values, marker=".", label=name)
    style(panels[3], "history")
    panels[3].set_xlabel("epoch")
    if panels[3].lines:
        panels[3].legend(frameon=False)
    return figure


def _image(figure: Figure, axes: Axes, image: np.ndarray, title: str, unit: str = "") -> None:
    low, high = limits(image)
    axes.set_facecolor(UNCOVERED)
    drawn = axes.imshow(np.ma.masked_invalid(image), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    figure.colorbar(drawn, ax=axes, shrink=0.8).set_label(unit)
    style(axes, title)


def _positions(axes: Axes, positions: np.ndarray) -> None:
    points = positions[:: -(-len(positions) // _POINTS)]
    axes.plot(points[:, 1], points[:, 0], ".", color=BLUE, markersize=3)
    axes.set(xlabel="column (pixels)", ylabel="row (pixels)", aspect="equal")
    axes.invert_yaxis()
    style(axes, f"{len(positions)} positions")


def _probe(figure: Figure, axes: Axes, probe: Any) -> None:
    if probe is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no probe", ha="center", va="center", transform=axes.transAxes)
        return
    modes = np.asarray(probe)
    _image(
        figure, axes, np.abs(modes.reshape(-1, *modes.shape[-2:])[0]), "probe amplitude, first mode", "sqrt(photons)"
    )
