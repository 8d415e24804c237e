"""Compare a saved reconstruction with the truth, or with another reconstruction of the same place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.config.settings import setting
from ptycho.data import load_scan
from ptycho.errors import DataError
from ptycho.evaluation import Comparison, compare

RECONSTRUCTION_FILES = ("reconstruction.h5", "reconstruction.npz")


@dataclass
class EvaluateOptions:
    """How two objects are compared and where the comparison goes."""

    output_dir: Path | None = setting(None, "folder for evaluation.json and evaluation.png; none writes nothing")
    trim: int = setting(0, "pixels left out along the edge of the covered area", unit="pixels", at_least=0)
    max_shift: float | None = setting(
        None, "largest displacement that registration looks for; none looks everywhere", unit="pixels", above=0
    )


def evaluate_result(
    result: str | Path | Any, truth: str | Path | Any, options: EvaluateOptions | None = None
) -> Comparison:
    """Register a reconstruction with the truth and measure how they differ.

    Parameters
    ----------
    result
        Folder or file of a reconstruction, or anything with ``object``, ``weight`` and ``origin``.
    truth
        A scan file that holds its object, a scan, or a reconstruction as ``result``.
    options
        Edge and search range; none uses the defaults.

    Returns
    -------
    Comparison
        The registered pair, the FRC curves, and ``metrics``.

    Raises
    ------
    DataError
        A file cannot be read, holds no object, or the two share too little.
    """
    options = options or EvaluateOptions()
    estimate = _open(result)
    if hasattr(estimate, "patterns"):
        raise DataError(f"{result} is a scan: give the folder of a reconstruction first, then the truth.")
    reference = _open(truth)
    if reference.object is None:
        raise DataError(f"{truth} holds no object to compare with: give a simulated scan or another reconstruction.")
    origin = reference.object_origin if hasattr(reference, "object_origin") else reference.origin
    return compare(
        estimate,
        reference.object,
        (float(origin[0]), float(origin[1])),
        trim=options.trim,
        max_shift=options.max_shift,
    )


def save_evaluation(comparison: Comparison, folder: str | Path) -> None:
    """Write ``evaluation.json`` (the figures) and ``evaluation.png`` (both objects, their difference, the FRC).

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    from ptycho.workflows.output import write_json

    write_json(dict(comparison.metrics), Path(folder) / "evaluation.json")
    draw_comparison(comparison, Path(folder) / "evaluation.png")


def draw_comparison(comparison: Comparison, path: str | Path) -> None:
    """Draw estimate, reference and the FRC curves into one PNG file.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    import matplotlib
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ptycho.data.atomic import written_whole

    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(11, 7), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 3)
        estimate, reference = comparison.estimate, comparison.reference
        rows = {
            "amplitude": ("gray", np.abs(estimate), np.abs(reference)),
            "phase": ("twilight", np.angle(estimate), np.angle(reference)),
        }
        for row, (name, (colours, *pair)) in zip(axes, rows.items(), strict=True):
            low, high = np.percentile(pair[1][comparison.mask], [0.5, 99.5])
            for axis, image, title in zip(row, pair, ("reconstruction", "reference"), strict=False):
                visible = np.where(comparison.mask, image, np.nan)
                drawn = axis.imshow(visible, cmap=colours, vmin=low, vmax=high)
                axis.set(title=f"{name}, {title}", xlabel="column (pixels)", ylabel="row (pixels)")
                figure.colorbar(drawn, ax=axis, shrink=0.8)
            curve = comparison.frc[name]
            row[2].plot(curve.frequency, curve.correlation, label="FRC")
            row[2].plot(curve.frequency, curve.half_bit, "--", label="1/2-bit threshold")
            row[2].axhline(0.5, color="0.6", linewidth=0.8)
            row[2].set(title=name, xlabel="cycles per pixel", ylim=(-0.1, 1.05))
            row[2].legend()
        with written_whole(path) as stream:
            figure.savefig(stream, format="png", dpi=120)


def figure_lines(figures: Mapping[str, float]) -> list[str]:
    """Return figures as lines of text, the ones that are there, in the order in which they matter.

    Parameters
    ----------
    figures
        By name as in :func:`ptycho.evaluation.evaluate`, and ``r_factor``.
    """
    lines = []
    if "r_factor" in figures:
        lines.append(f"R-factor {figures['r_factor']:.3f}")
    against = "against the reference" if "ssim_amplitude" in figures else "between two halves of the scan"
    for name in ("amplitude", "phase"):
        if f"frc_rings_0.5_{name}" in figures:
            rings, strict = figures[f"frc_rings_0.5_{name}"], figures[f"frc_rings_half_bit_{name}"]
            total = figures["frc_n_rings"]
            lines.append(f"FRC {name} {rings:.0f}/{total:.0f} rings above 0.5, {strict:.0f} above 1/2-bit, {against}")
    for label, key, unit in (("SSIM", "ssim", ""), ("PSNR", "psnr", " dB"), ("MAE", "mae", "")):
        if f"{key}_amplitude" in figures:
            amplitude, phase = figures[f"{key}_amplitude"], figures[f"{key}_phase"]
            lines.append(f"{label} {amplitude:.3g}{unit} amplitude, {phase:.3g}{unit} phase")
    return lines


def _open(source: str | Path | Any) -> Any:
    if not isinstance(source, str | Path):
        return source
    from ptycho.workflows.results import load_reconstruction

    path = Path(source)
    if path.is_dir() or path.name in RECONSTRUCTION_FILES or path.suffix in (".h5", ".hdf5"):
        return load_reconstruction(path)
    return load_scan(path)
