"""What a scan holds, in words, numbers and one picture, and what looks wrong about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import setting
from ptycho.data import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NETWORK_SIZES = (64, 128, 256)
_ENOUGH_OVERLAP = 0.5
_LOW_DOSE = 1e3
_SATURATED_PIXELS = 3
_CHUNK_PIXELS = 2**21
_POSITIONS_DRAWN = 20_000
"""More positions would cover each other."""
_MARK = "ptychopinn inspect"
"""In the picture, which may replace an earlier one that has it."""


@dataclass
class InspectOptions:
    """Where the picture goes."""

    output_dir: Path = setting(Path("inspection"), "folder for the picture, created if missing")


@dataclass
class Inspection:
    """What was found in a scan.

    Attributes
    ----------
    facts : lines of name and text, in the order in which they are worth reading.
    numbers : the same as numbers, by name; lengths in pixels unless the name says otherwise.
    problems : sentences, the most serious first; empty where nothing looks wrong.
    mean_counts : (N, N) float64, mean counts of each detector pixel.
    """

    facts: dict[str, str]
    numbers: dict[str, float]
    problems: list[str]
    mean_counts: NDArray[np.float64] = field(repr=False)

    def lines(self) -> list[str]:
        """Return the inspection as lines of text, the problems last."""
        width = max(len(name) for name in self.facts)
        lines = [f"{name:<{width}}  {text}" for name, text in self.facts.items()]
        if not self.problems:
            return [*lines, f"{'problems':<{width}}  none found"]
        return [*lines, *(f"{'problem':<{width}}  {text}" for text in self.problems)]


def inspect_scan(scan: Scan) -> Inspection:
    """Look at a scan: one pass over its patterns, in bounded memory.

    Parameters
    ----------
    scan
        Any valid scan.

    Returns
    -------
    Inspection
        Facts, numbers, and guessed problems: wrong measurement, fftshift, beam off centre, saturation, hot and dead
        pixels, duplicate positions, little overlap, low dose, a probe that does not predict the counts.
    """
    counts = _count_statistics(scan)
    numbers = {key: value for key, value in counts.items() if not isinstance(value, np.ndarray)}
    numbers |= _position_statistics(scan.positions)
    if scan.probe is not None:
        numbers |= _probe_statistics(scan.probe)
        numbers["overlap"] = 1 - numbers["spacing"] / numbers["probe_diameter"]
    mean = counts["mean"]
    problems = [
        *_measurement_problems(scan, numbers),
        *_detector_problems(scan, mean, numbers),
        *_geometry_problems(scan, numbers),
    ]
    return Inspection(_facts(scan, numbers), numbers, problems, mean)


def draw_inspection(scan: Scan, inspection: Inspection, path: str | Path, *, overwrite: bool = False) -> None:
    """Draw mean and brightest pattern, positions and probe into one picture.

    Parameters
    ----------
    scan, inspection
        What was inspected and what was found.
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

    figure = new_figure(13.5, 8.4)
    axes = figure.subplots(2, 3).ravel()
    _draw_pattern(axes[0], inspection.mean_counts, "mean pattern (counts)")
    brightest = int(inspection.numbers["brightest_pattern"])
    _draw_pattern(axes[1], scan.counts([brightest])[0], f"pattern {brightest}, the brightest (counts)")
    _draw_positions(axes[2], scan.positions)
    _draw_probe(axes[3], axes[4], scan.probe)
    axes[5].axis("off")
    axes[5].text(
        -0.1, 1, _wrapped([plain_label(line) for line in inspection.lines()]), va="top", family="monospace", fontsize=7
    )
    figure.suptitle(plain_label(scan.name))
    write_bytes(png_bytes(figure, 110, _MARK), path, overwrite=overwrite)


def is_inspection(path: Path) -> bool:
    """Whether a file is a picture that :func:`draw_inspection` drew, as its text ``Software`` says."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(4096)
    return start.startswith(b"\x89PNG") and b"Software\0" + _MARK.encode() in start


def _count_statistics(scan: Scan) -> dict[str, Any]:
    total = np.zeros((scan.N, scan.N))
    per_pattern, highest, whole, zeros = [], 0.0, True, 0
    top: dict[float, NDArray[np.bool_]] = {}
    for part in scan.chunks(max(1, _CHUNK_PIXELS // scan.N**2)):
        counts = scan.counts(part, np.float64)
        total += counts.sum(axis=0)
        per_pattern.append(counts.sum(axis=(1, 2)))
        zeros += int(np.count_nonzero(counts == 0))
        whole = whole and bool(np.all(np.abs(counts - np.rint(counts)) <= 1e-3 * np.maximum(counts, 1)))
        chunk_top = float(counts.max())
        if chunk_top >= highest:
            highest = chunk_top
            at_top = (counts == chunk_top).any(axis=0)
            top = {chunk_top: at_top | top.get(chunk_top, np.zeros_like(at_top))}
    sums = np.concatenate(per_pattern)
    good = scan.N**2 if scan.mask is None else int(np.count_nonzero(scan.mask))
    return {
        "mean": total / len(scan),
        "counts_mean": float(sums.mean()),
        "counts_min": float(sums.min()),
        "counts_max": float(sums.max()),
        "pixel_max": highest,
        "pixels_at_max": int(np.count_nonzero(next(iter(top.values())))),
        "zeros": (zeros - len(scan) * (scan.N**2 - good)) / (len(scan) * good),
        "whole": float(whole),
        "brightest_pattern": int(np.argmax(sums)),
        "dark_patterns": int(np.count_nonzero(sums == 0)),
        "bad_pixels": scan.N**2 - good,
    }


def _position_statistics(positions: NDArray[np.float64]) -> dict[str, float]:
    from scipy.spatial import cKDTree

    low, high = positions.min(axis=0), positions.max(axis=0)
    numbers = dict(zip(("row_min", "col_min"), low.tolist(), strict=True))
    numbers |= dict(zip(("row_max", "col_max"), high.tolist(), strict=True))
    if len(positions) < 2:
        return numbers | {"spacing": 0.0, "duplicates": 0.0}
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    return numbers | {"spacing": float(np.median(nearest)), "duplicates": float(np.count_nonzero(nearest < 1e-6))}


def _probe_statistics(probe: NDArray[np.complexfloating]) -> dict[str, float]:
    intensity = (np.abs(probe) ** 2).astype(np.float64)
    power = intensity.sum(axis=(1, 2))
    total = intensity.sum(axis=0)
    # The disc of even intensity with the same participation ratio: (sum I)^2 / sum I^2 = pi d^2 / 4.
    area = total.sum() ** 2 / np.square(total).sum()
    rows, cols = (float((np.arange(total.shape[0]) * total.sum(axis=axis)).sum() / total.sum()) for axis in (1, 0))
    return {
        "probe_power": float(power.sum()),
        "probe_first_mode": float(power[0] / power.sum()),
        "probe_diameter": float(2 * np.sqrt(area / np.pi)),
        "probe_centre_row": rows,
        "probe_centre_col": cols,
    }


def _measurement_problems(scan: Scan, numbers: dict[str, float]) -> list[str]:
    problems = []
    if numbers["dark_patterns"]:
        problems.append(f"{numbers['dark_patterns']:.0f} patterns hold no photon at all.")
    if scan.measurement == "amplitude" and scan.patterns.dtype.kind in "iu":
        problems.append(
            f"The patterns are stored as {scan.patterns.dtype} and taken for amplitudes: whole numbers are usually "
            "counts, so try --measurement counts."
        )
    if scan.measurement == "counts" and not numbers["whole"]:
        problems.append(
            "The counts are no whole numbers, so the photon noise is not known: they may be scaled, background-"
            "corrected, or amplitudes (--measurement amplitude)."
        )
    if 0 < numbers["counts_mean"] < _LOW_DOSE:
        problems.append(
            f"A pattern holds {numbers['counts_mean']:.3g} photons on average, too few to resolve much: if the scan "
            "is normalised, the numbers are no counts."
        )
    return problems


def _detector_problems(scan: Scan, mean: NDArray[np.float64], numbers: dict[str, float]) -> list[str]:
    problems, n = [], scan.N
    total = mean.sum()
    if total <= 0:
        return ["Every pattern is dark."]
    quarter = n // 4
    centre = mean[quarter : n - quarter, quarter : n - quarter].sum() / total
    shifted = np.fft.fftshift(mean)
    corners = shifted[quarter : n - quarter, quarter : n - quarter].sum() / total
    if corners > 2 * centre:
        problems.append("Most light lies in the corners: the patterns look stored with the zero frequency at [0, 0].")
    else:
        axis = np.arange(n) - n // 2
        off = [float((axis * mean.sum(axis=1 - k)).sum() / total) for k in (0, 1)]
        if max(abs(value) for value in off) > n / 32:
            problems.append(
                f"The beam lies {off[0]:+.1f} rows and {off[1]:+.1f} columns off the detector's centre [{n // 2}, "
                f"{n // 2}]: recentre the patterns before cropping."
            )
    if scan.measurement == "counts" and numbers["pixel_max"] > 100 and numbers["pixels_at_max"] >= _SATURATED_PIXELS:
        problems.append(
            f"{numbers['pixels_at_max']:.0f} pixels reach exactly the same maximum of {numbers['pixel_max']:.0f} "
            "counts: the detector seems saturated."
        )
    hot = _hot_pixels(mean, scan.mask)
    if hot:
        problems.append(f"{len(hot)} pixels outshine their neighbours by far, e.g. {hot[0]}: mask them as bad.")
    return problems


def _hot_pixels(mean: NDArray[np.float64], mask: NDArray[np.bool_] | None) -> list[tuple[int, int]]:
    """Pixels more than ten times as bright as the brightest of their eight neighbours, and bright at all."""
    from scipy.ndimage import maximum_filter

    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    neighbours = maximum_filter(mean, footprint=ring, mode="nearest")
    hot = (mean > 10 * neighbours) & (mean > max(1.0, 0.01 * float(mean.max())))
    if mask is not None:
        hot &= mask
    return [(int(row), int(col)) for row, col in np.argwhere(hot)]


def _geometry_problems(scan: Scan, numbers: dict[str, float]) -> list[str]:
    problems = []
    if numbers["duplicates"]:
        problems.append(f"{numbers['duplicates']:.0f} positions coincide with another one.")
    if scan.N not in _NETWORK_SIZES:
        smaller = [size for size in _NETWORK_SIZES if size < scan.N]
        advice = f": use --crop {smaller[-1]}" if smaller else ""
        problems.append(f"The networks take patterns of 64, 128 or 256 pixels, not {scan.N}{advice}.")
    if scan.probe is None:
        problems.append("There is no probe; one is estimated from the mean pattern.")
        return problems
    if numbers["overlap"] < _ENOUGH_OVERLAP:
        problems.append(
            f"Neighbouring positions overlap by {max(numbers['overlap'], 0):.0%} of the probe's diameter; ptychography "
            "wants 60 % or more."
        )
    off = max(abs(numbers[f"probe_centre_{axis}"] - scan.N // 2) for axis in ("row", "col"))
    if off > scan.N / 8:
        problems.append(f"The probe lies {off:.1f} pixels off the centre of its window.")
    return problems


def _facts(scan: Scan, numbers: dict[str, float]) -> dict[str, str]:
    pixel = scan.object_pixel_size
    facts = {
        "name": scan.name,
        "patterns": f"{len(scan)} of {scan.N} x {scan.N}, {scan.patterns.dtype}, {scan.measurement}",
        "counts": f"{numbers['counts_mean']:.4g} per pattern ({numbers['counts_min']:.3g} to "
        f"{numbers['counts_max']:.3g}), at most {numbers['pixel_max']:.4g} in a pixel, {numbers['zeros']:.0%} zeros",
        "positions": f"rows {numbers['row_min']:.1f} to {numbers['row_max']:.1f}, columns {numbers['col_min']:.1f} to "
        f"{numbers['col_max']:.1f} pixels, median nearest neighbour {numbers['spacing']:.2f} pixels",
    }
    if scan.probe is None:
        facts["probe"] = "none"
    else:
        modes = scan.probe.shape[0]
        several = f", {numbers['probe_first_mode']:.0%} of it in the first of {modes} modes" if modes > 1 else ""
        ratio = numbers["probe_power"] / numbers["counts_mean"] if numbers["counts_mean"] > 0 else float("inf")
        facts["probe"] = (
            f"{numbers['probe_diameter']:.1f} pixels wide, power {numbers['probe_power']:.4g}{several} "
            f"({ratio:.3g} times the mean counts)"
        )
        facts["overlap"] = f"{max(numbers['overlap'], 0):.0%} of the probe's diameter between nearest neighbours"
    facts["mask"] = f"{numbers['bad_pixels']:.0f} bad pixels" if scan.mask is not None else "none, every pixel is used"
    if scan.object is not None:
        facts["object"] = f"{scan.object.shape[0]} x {scan.object.shape[1]} pixels, origin {scan.object_origin}"
    else:
        facts["object"] = "none"
    facts["pixel size"] = f"{pixel * 1e9:.4g} nm" if pixel is not None else "unknown"
    return facts


def _draw_pattern(axes: Axes, counts: NDArray[np.floating], title: str) -> None:
    from matplotlib.colors import LogNorm

    bright = float(counts.max())
    positive = counts[counts > 0]
    dim = max(float(positive.min()), bright * 1e-6) if positive.size else 1.0
    norm = LogNorm(vmin=dim, vmax=max(bright, dim * 10))
    image = axes.imshow(np.maximum(counts, dim), norm=norm, cmap="magma")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _label(axes, title)


def _draw_positions(axes: Axes, positions: NDArray[np.float64]) -> None:
    positions = positions[:: -(-len(positions) // _POSITIONS_DRAWN)]
    axes.plot(positions[:, 1], positions[:, 0], "-", color="0.85", linewidth=0.3)
    axes.scatter(positions[:, 1], positions[:, 0], s=4, c=np.arange(len(positions)), cmap="viridis")
    axes.set(aspect="equal")
    axes.invert_yaxis()
    _label(axes, "positions, first to last")


def _draw_probe(left: Axes, right: Axes, probe: NDArray[np.complexfloating] | None) -> None:
    if probe is None:
        for axes in (left, right):
            axes.text(0.5, 0.5, "no probe in the file", ha="center", va="center")
            axes.axis("off")
        return
    amplitude, phase = np.abs(probe[0]), np.angle(probe[0])
    image = left.imshow(amplitude, cmap="magma")
    left.figure.colorbar(image, ax=left, shrink=0.8)
    _label(left, "probe amplitude, first mode")
    visible = np.clip(amplitude / max(float(amplitude.max()), 1e-30) * 3, 0, 1)
    image = right.imshow(phase, cmap="twilight", vmin=-np.pi, vmax=np.pi, alpha=visible)
    right.figure.colorbar(image, ax=right, shrink=0.8)
    _label(right, "probe phase (rad)")


def _label(axes: Axes, title: str) -> None:
    from ptycho.evaluation.drawing import style

    axes.set(xlabel="column (pixels)", ylabel="row (pixels)")
    style(axes, title)


def _wrapped(lines: list[str], width: int = 54) -> str:
    import textwrap

    return "\n".join(part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="    "))
