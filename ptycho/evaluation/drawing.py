"""Elements of the figures: colour limits, scale bars, hue and brightness, and matplotlib without its global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "UNCOVERED",
    "bounding_box",
    "colour_wheel",
    "extent",
    "hue_brightness",
    "length_text",
    "limits",
    "new_figure",
    "nice_length",
    "plain_label",
    "png_bytes",
    "scale_bar",
    "style",
    "thinned",
]

INK = "#1c2733"
"""Text and axes."""
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#5b6773"
"""Curve colours that colour-blind readers can distinguish (Okabe and Ito)."""
_LONGEST_LABEL = 200
"""Characters; the renderer fails on lines of some ten thousands."""
FAINT = "#8a96a3"
UNCOVERED = "#c9ced6"
"""Colour of pixels that no pattern covers."""

_UNITS = ((1e-9, "nm"), (1e-6, "µm"), (1e-3, "mm"))
_BAR = 0.25
_SHOWN = 832
"""Smallest number of pixels along a side that a figure shows of a larger object."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` x ``height`` inches on white, drawn by Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure, dpi: int = 130, mark: str | None = None) -> bytes:
    """The figure as a PNG file, whose text ``Software`` is the mark; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": mark})
    return stream.getvalue()


def plain_label(text: str) -> str:
    """A name as Matplotlib draws it letter by letter: no mathematics between dollar signs, no control codes."""
    name = visible(text)
    return (name if len(name) <= _LONGEST_LABEL else f"{name[:_LONGEST_LABEL]}...").replace("$", r"\$")


def style(axes: Axes, title: str = "") -> None:
    """Set the common look of the axes: dark ink, thin spines, the title at the left."""
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.8)
    axes.tick_params(colors=INK, labelsize=10, width=0.8, color=FAINT)
    axes.xaxis.label.set(color=INK, fontsize=11)
    axes.yaxis.label.set(color=INK, fontsize=11)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")


def limits(values: np.ndarray, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Colour limits from percentiles of the finite values, never equal to each other."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    first, last = (float(value) for value in np.percentile(finite, [low, high]))
    if last - first <= 1e-6 * max(abs(first), abs(last), 1e-12):
        spread = 0.05 * max(abs(first), 1.0)
        return first - spread, last + spread
    return first, last


def bounding_box(covered: np.ndarray, margin: int = 2) -> tuple[slice, slice]:
    """The smallest box that holds every covered pixel, with a margin; everything if nothing is covered."""
    if not covered.any():
        return slice(0, covered.shape[0]), slice(0, covered.shape[1])
    sides = []
    for axis in (1, 0):
        inside = np.flatnonzero(covered.any(axis=axis))
        last = min(covered.shape[1 - axis], int(inside[-1]) + 1 + margin)
        sides.append(slice(max(0, int(inside[0]) - margin), last))
    return sides[0], sides[1]


def thinned(box: tuple[slice, slice]) -> tuple[slice, slice]:
    """A box of pixels, subsampled where it has far more of them than a figure shows; at most one step longer."""
    step = max(1, max(side.stop - side.start for side in box) // _SHOWN)
    rows, cols = (slice(side.start, side.stop + (side.start - side.stop) % step, step) for side in box)
    return rows, cols


def extent(box: tuple[slice, slice], origin: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a box of pixels in position coordinates; a pixel is centred on its position."""
    top, bottom = (side + float(origin[0]) - 0.5 for side in (box[0].start, box[0].stop))
    left, right = (side + float(origin[1]) - 0.5 for side in (box[1].start, box[1].stop))
    return left, right, bottom, top


def hue_brightness(image: np.ndarray, brightest: float) -> np.ndarray:
    """Colours of a complex image: the hue is the phase (red at 0), the brightness the amplitude.

    Parameters
    ----------
    image : (H, W) complex.
    brightest : amplitude that is drawn at full brightness; larger ones look the same.

    Returns
    -------
    (H, W, 3) float, RGB from 0 to 1.
    """
    from matplotlib.colors import hsv_to_rgb

    hue = np.mod(np.angle(image) / (2 * np.pi), 1.0)
    value = np.clip(np.abs(image) / max(brightest, 1e-30), 0.0, 1.0)
    return hsv_to_rgb(np.stack([hue, np.full(hue.shape, 0.85), value], axis=-1))


def colour_wheel(axes: Axes, brightest: float) -> None:
    """Draw the legend of :func:`hue_brightness`: the phase around, the amplitude outward."""
    half = np.linspace(-1.15, 1.15, 240)
    disc = half[None, :] + 1j * half[::-1, None]
    colours = np.ones((*disc.shape, 4))
    colours[..., :3] = hue_brightness(disc, 1.0)
    colours[..., 3] = np.clip((1.0 - np.abs(disc)) * 80, 0, 1)
    axes.imshow(colours, extent=(-1.15, 1.15, -1.15, 1.15), interpolation="bilinear")
    for angle, label in ((0, "0"), (90, "π/2"), (180, "π"), (270, "−π/2")):
        x, y = 1.32 * math.cos(math.radians(angle)), 1.32 * math.sin(math.radians(angle))
        axes.text(x, y, label, ha="center", va="center", color=INK, fontsize=9)
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.75, 1.6), aspect="equal")
    axes.set_axis_off()
    axes.set_title("phase (rad)", color=INK, fontsize=9)
    axes.text(0, -1.75, f"amplitude\n0 to {brightest:.3g}", ha="center", va="top", color=INK, fontsize=9)


def nice_length(extent: float) -> float:
    """A length of 1, 2 or 5 times a power of ten, near a quarter of ``extent``."""
    wanted = _BAR * extent
    decade = 10.0 ** math.floor(math.log10(wanted))
    return max(step * decade for step in (1.0, 2.0, 5.0) if step * decade <= wanted * (1 + 1e-9))


def length_text(metres: float) -> str:
    """A length with a suitable unit: ``200 nm``, ``5 µm``."""
    factor, unit = next(((f, u) for f, u in reversed(_UNITS) if metres >= f * (1 - 1e-9)), _UNITS[0])
    return f"{metres / factor:.4g} {unit}"


def scale_bar(axes: Axes, pixel_size: float, fontsize: float = 11) -> None:
    """Draw a scale bar into the lower left corner of an image whose axes count pixels of ``pixel_size`` metres."""
    from matplotlib.patches import FancyBboxPatch, Rectangle

    (x0, x1), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    width, height = x1 - x0, bottom - top
    length = nice_length(width * pixel_size)
    bar, thick, pad = length / pixel_size, 0.014 * height, 0.02 * max(height, width)
    left, base = x0 + 0.05 * width, bottom - 0.05 * height
    tall = thick + 0.06 * height
    rounded = f"round,pad={pad},rounding_size={pad}"
    axes.add_patch(
        FancyBboxPatch((left, base - tall), bar, tall, boxstyle=rounded, fc=(0, 0, 0, 0.55), ec="none", zorder=3)
    )
    axes.add_patch(Rectangle((left, base - thick), bar, thick, facecolor="white", edgecolor="none", zorder=4))
    label: dict[str, Any] = {
        "color": "white",
        "ha": "center",
        "va": "bottom",
        "fontsize": 11,
        "fontweight": "bold",
        "zorder": 4,
    }
    axes.text(left + bar / 2, base - 1.6 * thick, length_text(length), **label)
