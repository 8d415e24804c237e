"""The report of a reconstruction: one HTML file with its pictures inside, without scripts and links."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ptycho.workflows.results import Reconstruction

__all__ = ["draw_pictures", "headline_figures", "report_html"]

_CAPTIONS = {
    "amplitude": "Amplitude of the object. Limits are the 0.5 and 99.5 percentiles inside the covered area; grey was "
    "not measured.",
    "phase": "Phase of the object, after its global phase and linear ramp in the covered area were removed.",
    "complex": "The complex object: the hue is the phase, the brightness the amplitude.",
    "probe": "Illumination: the hue is the phase, the brightness the modulus of each mode.",
    "positions": "Scan positions over the coverage of the object.",
    "patterns": "Some patterns as measured, what object and probe predict on the same logarithmic scale, and the "
    "difference of the amplitudes.",
    "history": "Losses of training and validation.",
    "frc": "Fourier ring correlation of the two halves of the scan, reconstructed apart, with the 1/2-bit and the 0.5 "
    "threshold. Both halves went through one network, so this shows noise and not an error made twice.",
    "frc_truth": "Fourier ring correlation with the truth, after registration, with the 1/2-bit and the 0.5 threshold.",
}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.sub { color: #666; margin-top: 0; }
.headline { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; padding: 0; list-style: none; }
.headline li { border: 1px solid #ddd; border-radius: 6px; padding: .5rem .9rem; min-width: 7rem; }
.headline b { display: block; font-size: 1.35rem; } .headline span { color: #666; font-size: .85rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #e4e4e4; border-radius: 6px; padding: .6rem; }
figure.wide { grid-column: 1 / -1; } img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #555; font-size: .85rem; margin-top: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #eee; vertical-align: top; }
th { font-weight: 500; color: #555; width: 17rem; }
td { overflow-wrap: anywhere; font-family: ui-monospace, monospace; }
"""


def draw_pictures(result: Reconstruction) -> dict[str, bytes]:
    """Draw everything that a reconstruction holds.

    Parameters
    ----------
    result : with or without patterns, losses and FRC curves.

    Returns
    -------
    PNG files by name: ``amplitude``, ``phase``, ``complex``, ``probe``, ``positions`` and, where there is something to
    draw, ``patterns``, ``history``, ``frc``.

    Raises
    ------
    DataError
        Nothing is covered, or the object is not finite where it is.
    """
    from ptycho.evaluation import figures

    place: dict[str, Any] = {"weight": result.weight, "pixel_size": result.pixel_size, "origin": result.origin}
    drawn = {
        "amplitude": figures.amplitude_figure(result.object, **place),
        "phase": figures.phase_figure(result.object, **place),
        "complex": figures.complex_figure(result.object, **place),
        "probe": figures.probe_figure(result.probe, pixel_size=result.pixel_size),
        "positions": figures.positions_figure(result.positions, **place),
    }
    if result.measured is not None and result.predicted is not None and len(result.measured):
        drawn["patterns"] = figures.patterns_figure(result.measured, result.predicted)
    if any(len(values) for values in result.history.values()):
        drawn["history"] = figures.loss_figure(result.history)
    if result.frc:
        drawn["frc"] = figures.frc_figure(result.frc)
    return {name: figures.png_bytes(figure) for name, figure in drawn.items()}


def headline_figures(result: Reconstruction) -> list[tuple[str, str]]:
    """What a reader wants to know first, as (name, value) with units; only what is known.

    Parameters
    ----------
    result : its figures, FRC curves and sizes are read.
    """
    from ptycho.evaluation.drawing import length_text

    lines: list[tuple[str, str]] = []
    numbers = result.figures
    if "r_factor" in numbers:
        lines.append(("R-factor", f"{numbers['r_factor']:.4f}"))
    for name, curve in result.frc.items():
        resolution = curve.resolution("half-bit")
        if resolution is not None:
            rounded = float(f"{resolution:.3g}")
            text = f"{rounded:g} pixels" if curve.pixel_size is None else length_text(rounded)
            lines.append((f"half period at 1/2 bit, {name}", text))
    for key, label, unit in (("ssim", "SSIM", ""), ("psnr", "PSNR", " dB"), ("mae", "MAE", "")):
        for part in ("amplitude", "phase"):
            if f"{key}_{part}" in numbers:
                lines.append((f"{label} {part}", f"{numbers[f'{key}_{part}']:.3g}{unit}"))
    for name, values in result.history.items():
        if "loss" in name and len(values):
            lines.append((f"last {name.replace('_', ' ')}", f"{values[-1]:.4g}"))
    lines.append(("patterns", f"{len(result.positions)}"))
    lines.append(("object, pixels", f"{result.object.shape[0]} × {result.object.shape[1]}"))
    if result.pixel_size is not None:
        lines.append(("pixel", length_text(float(f"{result.pixel_size:.4g}"))))
    return lines


def report_html(result: Reconstruction, pictures: Mapping[str, bytes] | None = None) -> str:
    """The report as one HTML document in UTF-8 that refers to nothing outside itself.

    Parameters
    ----------
    result : what is reported.
    pictures : PNG files by name as :func:`draw_pictures` makes them; drawn if not given.

    Raises
    ------
    DataError
        As in :func:`draw_pictures`.
    """
    pictures = draw_pictures(result) if pictures is None else pictures
    name = str(result.provenance.get("data", {}).get("name", "")) or "a scan"
    title = html.escape(f"Reconstruction of {name}")
    headline = "".join(
        f"<li><b>{html.escape(value)}</b><span>{html.escape(label)}</span></li>"
        for label, value in headline_figures(result)
    )
    captions = dict(_CAPTIONS)
    if "ssim_amplitude" in result.figures:  # only a comparison with the truth has it
        captions["frc"] = captions["frc_truth"]
    figures = "".join(_figure(key, picture, captions.get(key, key)) for key, picture in pictures.items())
    numbers = _table((key, _number(value)) for key, value in sorted(result.figures.items()))
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="sub">{html.escape(str(result.provenance.get("created", "")))}</p>',
        f'<ul class="headline">{headline}</ul>',
        f'<div class="figures">{figures}</div>',
        f"<h2>Figures of merit</h2>{numbers}" if result.figures else "",
        f"<h2>Provenance</h2>{_table(_flat(result.provenance))}" if result.provenance else "",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _figure(name: str, picture: bytes, caption: str) -> str:
    wide = ' class="wide"' if name == "patterns" else ""
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure{wide}><img alt="{html.escape(name)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in rows)
    return f"<table>{body}</table>"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as rows, names joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    number = float(np.asarray(value))
    return f"{number:.6g}" if math.isfinite(number) else str(number)
