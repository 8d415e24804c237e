"""The doctor's picture: mean pattern, overlap of the positions, coverage, and the R-factors of the orientations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho.data import Scan
from ptycho.workflows.doctor import Diagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_diagnosis(scan: Scan, diagnosis: Diagnosis, path: str | Path, *, overwrite: bool = False) -> None:
    """Draw what the doctor found into one picture.

    Parameters
    ----------
    scan, diagnosis
        What was examined and what was found.
    path
        PNG file, which appears whole or not at all.
    overwrite
        Replace a file that is there.

    Raises
    ------
    OutputError
        The file is in the way or cannot be written.
    """
    from ptycho.evaluation.drawing import new_figure, plain_label, png_bytes
    from ptycho.workflows.output_folder import write_bytes

    figure = new_figure(11.0, 9.0)
    axes = figure.subplots(2, 2).ravel()
    _draw_mean(axes[0], diagnosis)
    _draw_overlap(axes[1], scan, diagnosis)
    _draw_coverage(axes[2], diagnosis)
    _draw_orientations(axes[3], diagnosis)
    figure.suptitle(plain_label(scan.name))
    write_bytes(png_bytes(figure, 110), path, overwrite=overwrite)


def _draw_mean(axes: Axes, diagnosis: Diagnosis) -> None:
    image = axes.imshow(np.log10(diagnosis.mean + max(float(diagnosis.mean.max()) * 1e-6, 1e-12)), cmap="magma")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _label(axes, "mean pattern (log10 counts)")


def _draw_overlap(axes: Axes, scan: Scan, diagnosis: Diagnosis) -> None:
    drawn = axes.scatter(
        scan.positions[:, 1], scan.positions[:, 0], s=9, c=diagnosis.overlap, cmap="viridis", vmin=0, vmax=1
    )
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    axes.set(aspect="equal")
    axes.invert_yaxis()
    _label(axes, "overlap with the four nearest positions")


def _draw_coverage(axes: Axes, diagnosis: Diagnosis) -> None:
    rows, columns = diagnosis.coverage.shape
    row, column = diagnosis.origin
    image = axes.imshow(
        diagnosis.coverage,
        cmap="viridis",
        extent=(column - 0.5, column + columns - 0.5, row + rows - 0.5, row - 0.5),
    )
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _label(axes, "where the probe has shone (largest 1)")


def _draw_orientations(axes: Axes, diagnosis: Diagnosis) -> None:
    found = diagnosis.orientations
    if found is None:
        axes.text(0.5, 0.5, "orientations not tried", ha="center", va="center")
        axes.axis("off")
        return
    names = list(found.r_factors)
    chosen = [name in (found.best, found.twin) and found.decided for name in names]
    axes.barh(names, list(found.r_factors.values()), color=["tab:blue" if best else "0.75" for best in chosen])
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    axes.set(xlabel="R-factor of a short reconstruction (small is good)")
    axes.set_title("orientation of the positions")


def _label(axes: Axes, title: str) -> None:
    from ptycho.evaluation.drawing import style

    axes.set(xlabel="column (pixels)", ylabel="row (pixels)")
    style(axes, title)
