"""Compare a saved reconstruction with the truth, or with another reconstruction of the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.config.settings import data_dirs_setting, setting
from ptycho.data import load_scan
from ptycho.errors import DataError
from ptycho.evaluation import Comparison, compare
from ptycho.files import saved_together

EVALUATION_FILES = ("evaluation.json", "evaluation.png", "frc.png")
RECONSTRUCTION_FILES = ("reconstruction.h5", "reconstruction.npz")


@dataclass
class EvaluateOptions:
    """How two objects are compared and where the comparison goes."""

    output_dir: Path | None = setting(
        None, "folder for evaluation.json, evaluation.png and frc.png; none writes nothing"
    )
    trim: int = setting(0, "pixels left out along the edge of the covered area", unit="pixels", at_least=0)
    max_shift: float | None = setting(
        None, "largest displacement that registration looks for; none looks everywhere", unit="pixels", above=0
    )
    data_dirs: tuple[Path, ...] = data_dirs_setting()


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
    reference = _open(truth, options.data_dirs)
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


def save_evaluation(comparison: Comparison, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write the files of :data:`EVALUATION_FILES`: the figures, both objects with their difference, the FRC curves.

    Parameters
    ----------
    comparison
        From :func:`evaluate_result`.
    folder
        Made with its parents if it does not exist.
    overwrite
        Replace those of an earlier comparison, as far as this library wrote them.

    Raises
    ------
    OutputError
        A file is in the way or cannot be written.
    """
    from ptycho.evaluation.figures import comparison_figure, frc_figure, png_bytes
    from ptycho.workflows.output_folder import write_bytes, write_json

    drawn = [comparison_figure(comparison), frc_figure(comparison.frc)]
    with saved_together(folder, overwrite=overwrite) as stage:
        write_json(dict(comparison.metrics), stage / EVALUATION_FILES[0])
        for name, figure in zip(EVALUATION_FILES[1:], drawn, strict=True):
            write_bytes(png_bytes(figure), stage / name)


def metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """Return metrics as lines of text, the ones that are there, in the order in which they matter.

    Parameters
    ----------
    metrics
        By name as in :func:`ptycho.evaluation.evaluate`, ``r_factor`` and ``r_factor_estimate``.
    """
    lines = []
    if "r_factor" in metrics:
        lines.append(f"R-factor {metrics['r_factor']:.3f}")
    if "r_factor_estimate" in metrics:
        lines.append(f"R-factor {metrics['r_factor_estimate']:.3f} of the physics estimate alone, without the network")
    if "r_factor_before" in metrics:
        took = f", in {metrics['seconds_before']:.1f} s" if "seconds_before" in metrics else ""
        lines.append(f"R-factor {metrics['r_factor_before']:.3f} before the refinement{took}")
    if "seconds_engine" in metrics:
        epochs, seconds = metrics["epochs"], metrics["seconds_engine"]
        lines.append(f"engine {seconds:.1f} s for {epochs:.0f} epochs, {seconds / epochs:.3f} s each")
    if "position_shift_rms" in metrics:
        moved, most = metrics["position_shift_rms"], metrics["position_shift_largest"]
        lines.append(
            f"positions moved by {moved:.3g} pixels RMS, at most {most:.3g}; scale "
            f"{metrics['position_scale_row']:.5f} {metrics['position_scale_column']:.5f}, rotation "
            f"{metrics['position_rotation_degrees']:.3f} degrees, shear {metrics['position_shear']:.5f}"
        )
    against = "against the reference" if "ssim_amplitude" in metrics else "between two halves of the scan"
    for name in ("amplitude", "phase"):
        if f"frc_rings_0.5_{name}" in metrics:
            rings, strict = metrics[f"frc_rings_0.5_{name}"], metrics[f"frc_rings_half_bit_{name}"]
            total = metrics["frc_n_rings"]
            lines.append(f"FRC {name} {rings:.0f}/{total:.0f} rings above 0.5, {strict:.0f} above 1/2-bit, {against}")
        if f"frc_rings_0.5_{name}_before" in metrics:
            rings, strict = (metrics[f"frc_rings_{level}_{name}_before"] for level in ("0.5", "half_bit"))
            total = metrics["frc_n_rings_before"]
            lines.append(f"FRC {name} {rings:.0f}/{total:.0f} rings above 0.5, {strict:.0f} above 1/2-bit, before")
    for label, key, unit in (("SSIM", "ssim", ""), ("PSNR", "psnr", " dB"), ("MAE", "mae", "")):
        if f"{key}_amplitude" in metrics:
            amplitude, phase = metrics[f"{key}_amplitude"], metrics[f"{key}_phase"]
            lines.append(f"{label} {amplitude:.3g}{unit} amplitude, {phase:.3g}{unit} phase")
    return lines


def _open(source: str | Path | Any, data_dirs: Sequence[str | Path] = ()) -> Any:
    if not isinstance(source, str | Path):
        return source
    from ptycho.workflows.results import load_reconstruction

    path = Path(source)
    if path.is_dir() or path.name in RECONSTRUCTION_FILES or path.suffix in (".h5", ".hdf5"):
        return load_reconstruction(path)
    return load_scan(path, data_dirs=data_dirs)
