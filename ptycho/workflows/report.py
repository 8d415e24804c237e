"""The report of a reconstruction: one HTML file with its pictures inside, without scripts, links or outside fonts."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError
from ptycho.visible import visible
from ptycho.workflows.reconstruction import Reconstruction

__all__ = ["draw_pictures", "headline_metrics", "provenance_rows", "report_html", "write_pictures"]

_SECTIONS = (
    ("Object", "two", ("amplitude", "phase", "complex", "probe")),
    ("Slices", "one", ("slices",)),
    ("Beside the truth", "one", ("truth",)),
    ("Scan, resolution, training", "three", ("positions", "frc", "history")),
    ("Patterns", "one", ("patterns",)),
)
_CAPTIONS = {
    "amplitude": "Amplitude of the object. Colours span the 0.5 to 99.5 percentiles of the covered area; grey is not "
    "covered.",
    "phase": "Phase of the object without its global value and its linear ramp, which no reconstruction knows.",
    "complex": "The complex object: the hue is the phase, the brightness the amplitude.",
    "probe": "The illumination: the hue is the phase, the brightness the amplitude of each mode.",
    "slices": "The slices in the order in which the beam meets them, amplitude above phase, each without its own phase "
    "ramp; their product is the object.",
    "truth": "The reconstruction laid on the true object, shift, ramp, phase and scale taken off, in the same colours.",
    "positions": "Where the scan measured, over the coverage of the object.",
    "patterns": "Measured patterns above those that object and probe predict, in photons on one logarithmic scale, and "
    "the difference of their amplitudes.",
    "history": "The loss after each epoch, on the patterns that were learned from and on those kept back.",
    "frc": "Fourier ring correlation with the 1/2-bit and the 0.5 threshold; dots mark the first crossing of 1/2 bit.",
}
_AGAINST = {
    True: " The object is compared with the true one.",
    False: " Two halves of the scan, reconstructed apart, are compared. Both went through one network, so this shows "
    "noise, and not an error that is made twice.",
}
_LONG_TABLE = 14
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { --ink: #1c2733; --faint: #5b6773; --line: #dfe4ea; --tint: #f4f6f9; --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--tint); color: var(--ink); font: 17px/1.5 "Segoe UI", Roboto, "Helvetica Neue",
  Arial, "DejaVu Sans", sans-serif; }
header { background: var(--ink); color: #fff; padding: 1.4rem max(2rem, calc((100% - 1680px) / 2 + 2rem)) 1.2rem; }
header h1 { margin: 0; font-size: 1.7rem; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: .3rem 0 0; color: #c3ccd6; } header code { color: #fff; overflow-wrap: anywhere; }
main { max-width: 1680px; margin: 0 auto; padding: 1.2rem 2rem 3rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .8rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .4rem; color: var(--faint); text-transform: uppercase; letter-spacing: .05em; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(14.2rem, 1fr)); gap: 1rem; margin: 0;
  padding: 0; list-style: none; }
.headline li { background: #fff; border: 1px solid var(--line); border-top: 4px solid var(--mark); border-radius: 6px;
  padding: .7rem 1rem .8rem; }
.headline span { display: block; color: var(--faint); }
.headline b { display: block; font-size: 1.75rem; line-height: 1.3; font-weight: 600; white-space: nowrap; }
.headline small { color: var(--faint); font-size: .85rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; }
.pictures.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.pictures.one { grid-template-columns: 1fr; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .9rem;
  display: flex; flex-direction: column; }
figure div { flex: 1; display: flex; align-items: center; justify-content: center; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .7rem; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
section.table { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .9rem 1rem; }
section.long { grid-column: 1 / -1; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2.5rem;
  align-items: start; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; padding: .22rem .5rem .22rem 0; border-bottom: 1px solid #eef1f4; vertical-align: top; }
th { font-weight: 400; color: var(--faint); width: 45%; } td { overflow-wrap: anywhere; }
td, code { font-family: ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", Consolas, monospace; }
@media print { body { background: #fff; } figure, li { break-inside: avoid; } }
"""


def draw_pictures(result: Reconstruction) -> dict[str, bytes]:
    """Draw everything that a reconstruction holds.

    Parameters
    ----------
    result : with or without patterns, losses, FRC curves and a truth.

    Returns
    -------
    dict
        PNG files by name: ``amplitude``, ``phase``, ``complex``, ``probe``, ``positions`` and, where there is something
        to draw, ``slices``, ``truth``, ``patterns``, ``history``, ``frc``.

    Raises
    ------
    DataError
        Nothing is covered, or the object is not finite where it is.
    """
    from ptycho.evaluation import compare, figures

    place: dict[str, Any] = {"weight": result.weight, "pixel_size": result.pixel_size, "origin": result.origin}
    png = figures.png_bytes  # at once, so that one figure after the other takes memory
    drawn = {
        "amplitude": png(figures.amplitude_figure(result.object, **place)),
        "phase": png(figures.phase_figure(result.object, **place)),
        "complex": png(figures.complex_figure(result.object, **place)),
        "probe": png(figures.probe_figure(result.probe, pixel_size=result.pixel_size)),
        "positions": png(figures.positions_figure(result.positions, **place)),
    }
    if result.slices is not None:
        drawn["slices"] = png(figures.slices_figure(result.slices, result.weight, pixel_size=result.pixel_size))
    if result.truth is not None:
        try:
            comparison = compare(result, result.truth, result.origin)
        except DataError:  # they share too little to be laid on each other, which the figures say already
            pass
        else:
            drawn["truth"] = png(figures.comparison_figure(comparison, pixel_size=result.pixel_size))
    if result.measured is not None and result.predicted is not None and len(result.measured):
        drawn["patterns"] = png(figures.patterns_figure(result.measured, result.predicted, mask=result.mask))
    if any(len(values) for values in result.history.values()):
        drawn["history"] = png(figures.loss_figure(result.history))
    if result.frc:
        drawn["frc"] = png(figures.frc_figure(result.frc))
    return drawn


def write_pictures(result: Reconstruction, folder: Path) -> None:
    """Write pictures of the object and the probe, and the report, into a folder that is there.

    Parameters
    ----------
    result : as for :func:`draw_pictures`.
    folder : files of the same names in it are replaced.

    Raises
    ------
    DataError
        As in :func:`draw_pictures`.
    """
    pictures = draw_pictures(result)
    for name in ("amplitude", "phase", "complex", "probe"):
        (folder / f"{name}.png").write_bytes(pictures[name])
    (folder / "report.html").write_text(report_html(result, pictures), encoding="utf-8")


def headline_metrics(result: Reconstruction) -> list[tuple[str, str, str]]:
    """What a reader wants to know first, as (name, value, remark); only what is known.

    Parameters
    ----------
    result : its figures, FRC curves and sizes are read.
    """
    from ptycho.evaluation.drawing import length_text

    numbers = result.metrics
    tiles: list[tuple[str, str, str]] = []
    if "r_factor" in numbers:
        remark = "Σ |s A − √I| / Σ √I, all patterns"
        if "r_factor_estimate" in numbers:
            remark += f"; physics estimate alone {numbers['r_factor_estimate']:.3f}"
        tiles.append(("R-factor", f"{numbers['r_factor']:.3f}", remark))
    if "r_factor_before" in numbers:
        tiles.append(("Before the refinement", f"{numbers['r_factor_before']:.3f}", _before(numbers)))
    if "seconds_engine" in numbers:
        remark = f"{numbers['epochs']:.0f} epochs of the iterative engine"
        tiles.append(("Engine", duration(numbers["seconds_engine"]), remark))
    if result.frc:
        name = next((key for key in ("complex", "phase") if key in result.frc), next(iter(result.frc)))
        curve = result.frc[name]
        rings = f"{curve.rings('half-bit')} of {len(curve)} rings above 1/2 bit, {curve.rings(0.5)} above 0.5"
        half_period = curve.resolution("half-bit")
        if half_period is None:
            value = "none"
        elif curve.pixel_size is None:
            value = f"{half_period:.3g} pixels"
        else:
            value = length_text(float(f"{half_period:.3g}"))
        tiles.append(("FRC half period", value, f"{name}: {rings}"))
    for key, label, unit in (("ssim", "SSIM", ""), ("psnr", "PSNR", " dB")):
        if f"{key}_amplitude" in numbers and f"{key}_phase" in numbers:
            places = 1 if unit else 3
            value = f"{numbers[f'{key}_amplitude']:.{places}f} / {numbers[f'{key}_phase']:.{places}f}{unit}"
            tiles.append((label, value, "amplitude / phase, against the true object"))
    if "seconds" in numbers:
        tiles.append(("Time", duration(numbers["seconds"]), _epochs(result.history)))
    (height, width), size = result.object.shape, result.probe.shape[-1]
    pixel = "" if result.pixel_size is None else f" of {length_text(float(f'{result.pixel_size:.4g}'))}"
    tiles.append(("Patterns", f"{len(result.positions)}", f"{size} × {size}; object {height} × {width} pixels{pixel}"))
    return tiles


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
    source = result.provenance.get("data") or {}
    title = _escaped(str(source.get("name") or "") or "Reconstruction")
    created, command = (_escaped(str(result.provenance.get(key) or "")) for key in ("created", "command"))
    tiles = "".join(
        f"<li><span>{_escaped(label)}</span><b>{_escaped(value)}</b><small>{_escaped(remark)}</small></li>"
        for label, value, remark in headline_metrics(result)
    )
    body = "".join(
        _section(heading, columns, names, pictures, result.truth is not None) for heading, columns, names in _SECTIONS
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: ptychographic reconstruction</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<header><h1>{title}</h1><p>Ptychographic reconstruction{', ' + created if created else ''}</p>"
        f"{'<p><code>' + command + '</code></p>' if command else ''}</header>\n<main>"
        f'<ul class="headline">{tiles}</ul>\n{body}{_numbers(result)}{_provenance(result.provenance)}'
        "</main>\n</body></html>\n"
    )


def _escaped(text: str) -> str:
    """Text for HTML, which shows direction marks and control codes too."""
    return html.escape(visible(text))


def _section(heading: str, columns: str, names: Sequence[str], pictures: Mapping[str, bytes], truth_known: bool) -> str:
    present = [name for name in names if name in pictures]
    if not present:
        return ""
    figures = "".join(_figure(name, pictures[name], truth_known) for name in present)
    return f'<h2>{_escaped(heading)}</h2>\n<div class="pictures {columns}">{figures}</div>\n'


def _figure(name: str, picture: bytes, truth_known: bool) -> str:
    data = base64.b64encode(picture).decode("ascii")
    caption = _escaped(_CAPTIONS[name] + (_AGAINST[truth_known] if name == "frc" else ""))
    return (
        f'<figure><div><img alt="{_escaped(name)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _numbers(result: Reconstruction) -> str:
    if not result.metrics:
        return ""
    rows = [(key.replace("_", " "), _number(value)) for key, value in sorted(result.metrics.items())]
    return f'<h2>All figures</h2>\n<section class="table">{_table(rows)}</section>\n'


def _provenance(provenance: Mapping[str, Any]) -> str:
    """Tables of the groups of values, the single values first."""
    tables = provenance_rows(provenance)
    if not tables:
        return ""
    sections = "".join(
        f'<section class="table{" long" if len(rows) > _LONG_TABLE else ""}">'
        f"<h3>{_escaped(name)}</h3>{_table(rows)}</section>"
        for name, rows in sorted(tables.items(), key=lambda table: len(table[1]) > _LONG_TABLE)
    )
    return f'<h2>Provenance</h2>\n<div class="tables">{sections}</div>\n'


def provenance_rows(provenance: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Where a result came from as rows of name and value, by group; the single values are the group ``run``.

    Parameters
    ----------
    provenance : of a reconstruction.
    """
    groups: dict[str, Mapping[str, Any]] = {"run": {k: v for k, v in provenance.items() if not isinstance(v, Mapping)}}
    groups |= {key: value for key, value in provenance.items() if isinstance(value, Mapping)}
    return {name: list(_flat(values)) for name, values in groups.items() if values}


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Rows of name and value; a long table is cut into three that stand side by side."""
    length = math.ceil(len(rows) / 3) if len(rows) > _LONG_TABLE else len(rows)
    parts = [rows[first : first + length] for first in range(0, len(rows), max(length, 1))]
    tables = "".join(
        "<table>"
        + "".join(f"<tr><th>{_escaped(key)}</th><td>{_escaped(value)}</td></tr>" for key, value in part)
        + "</table>"
        for part in parts
    )
    return f'<div class="columns">{tables}</div>' if len(parts) > 1 else tables


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as rows, names joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", "not given" if value is None else str(value)


def _number(value: float) -> str:
    return f"{float(np.asarray(value)):.6g}"


def duration(seconds: float) -> str:
    """``48.2 s``, ``5 min 12 s``, ``2 h 05 min``."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _before(numbers: Mapping[str, float]) -> str:
    """What else is known of the result that was refined."""
    known = ["R-factor"]
    if "seconds_before" in numbers:
        known[0] += f", after {duration(numbers['seconds_before'])}"
    if "frc_rings_half_bit_complex_before" in numbers:
        rings, total = numbers["frc_rings_half_bit_complex_before"], numbers["frc_n_rings_before"]
        known.append(f"FRC {rings:.0f} of {total:.0f} rings above 1/2 bit")
    return "; ".join(known)


def _epochs(history: Mapping[str, Sequence[float]]) -> str:
    longest = max((len(values) for values in history.values()), default=0)
    return f"{longest} epochs of training" if longest else "reconstruction"
