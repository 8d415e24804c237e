"""What is wrong with a scan, before a night is lost: every check, the eight orientations, and one picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import setting
from ptycho.data import Scan
from ptycho.data.lazy import LazyPatterns
from ptycho.errors import DataError
from ptycho.observers import Progress
from ptycho.physics import canvas_for, probe_from_patterns
from ptycho.workflows.doctor_checks import (
    Findings,
    PatternSums,
    check_beam,
    check_dose,
    check_measurement,
    check_pixels,
    check_positions,
    check_saturation,
    check_scale,
    sum_patterns,
)
from ptycho.workflows.doctor_orientation import Orientations, try_orientations

DOCTOR_FILES = ("doctor.json", "doctor.png")
_ENOUGH_OVERLAP = 0.5
_LIT = 0.1
_NEIGHBOURS = 4


@dataclass
class DoctorOptions:
    """What the doctor does, and where the picture goes."""

    orientations: bool = setting(True, "try the eight orientations of the positions with a short reconstruction")
    patterns: int = setting(150, "patterns that are reconstructed for it, from the middle of the scan", at_least=12)
    passes: int = setting(10, "visits of every pattern in it", at_least=1)
    output_dir: Path | None = setting(None, "folder for doctor.json and doctor.png; none writes nothing")


@dataclass
class Diagnosis:
    """What the doctor found.

    Attributes
    ----------
    facts : lines of name and text.
    problems : sentences, each with what to do; empty where nothing is wrong.
    numbers : figures by name.
    orientations : how well each fits; None where they were not tried.
    overlap : (M,) overlap of every position with its neighbours, part of the probe's diameter.
    coverage : (H, W) summed probe intensity, largest 1.
    origin : position (row, col) of `coverage[0, 0]`, pixels.
    mean : (N, N) mean counts of each detector pixel.
    """

    facts: dict[str, str]
    problems: list[str]
    numbers: dict[str, float]
    orientations: Orientations | None
    overlap: NDArray[np.float64] = field(repr=False)
    coverage: NDArray[np.float32] = field(repr=False)
    origin: tuple[float, float]
    mean: NDArray[np.float64] = field(repr=False)

    def lines(self) -> list[str]:
        """The diagnosis as lines of text: facts, R-factors, and the problems last."""
        width = max(len(name) for name in (*self.facts, "orientation"))
        lines = [f"{name:<{width}}  {text}" for name, text in self.facts.items()]
        if self.orientations is not None:
            lines += [
                f"{'orientation':<{width}}  {name:<22} R {value:.4f}{self._mark(name)}"
                for name, value in self.orientations.r_factors.items()
            ]
        if not self.problems:
            return [*lines, f"{'problems':<{width}}  none found"]
        return [*lines, *(f"{'problem':<{width}}  {text}" for text in self.problems)]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain values."""
        orientations = None if self.orientations is None else dataclasses.asdict(self.orientations)
        return {
            "facts": self.facts,
            "problems": self.problems,
            "numbers": self.numbers,
            "orientations": orientations,
        }

    def _mark(self, name: str) -> str:
        found = self.orientations
        if found is None or not found.decided or name not in (found.best, found.twin):
            return ""
        return "  best" if name == found.best else "  its twin"


def diagnose(scan: Scan, options: DoctorOptions | None = None, progress: Progress | None = None) -> Diagnosis:
    """Examine a scan.

    Parameters
    ----------
    scan
        Any valid scan.
    options
        What is done.
    progress
        Called with (orientations tried, 8).

    Returns
    -------
    Diagnosis
        Of counts or amplitudes, saturation, hot and dead pixels, frozen frames, beam centre and fftshift, scale of
        probe and detector, overlap and its map, raster pathology, coinciding positions, dose, and orientation.
    """
    options = options or DoctorOptions()
    findings = Findings(
        {"scan file": f"{scan.name}: {len(scan)} patterns of {scan.N} x {scan.N}, {scan.patterns.dtype}"}
    )
    sums = sum_patterns(scan)
    mean = sums.total / len(scan)
    findings += check_measurement(scan)
    findings += check_saturation(scan, sums)
    findings += check_pixels(scan, sums)
    beam, unshifted = check_beam(scan, sums)
    findings += beam
    lit = sums.total.any()
    scan = _shifted(scan) if unshifted else scan
    probe, guessed = _probe(scan, bool(lit))
    if scan.probe is not None:
        findings += check_scale(scan, scan.probe, np.fft.fftshift(mean) if unshifted else mean)
    findings += check_positions(scan)
    overlap, coverage, origin = overlap_map(scan, probe)
    covered = float((coverage > _LIT * np.median(coverage[coverage > 0.01])).sum()) if coverage.any() else 0.0
    findings += _check_overlap(overlap, guessed)
    findings += check_dose(scan, sums, covered)
    orientations = None
    if options.orientations and lit:
        try:
            orientations = try_orientations(scan, patterns=options.patterns, passes=options.passes, progress=progress)
        except DataError as error:
            findings.problems.append(f"The orientation was not tried: {error}")
        else:
            findings += _check_orientation(orientations, guessed)
    return Diagnosis(
        findings.facts,
        findings.problems,
        _numbers(sums, overlap, covered),
        orientations,
        overlap,
        coverage,
        origin,
        mean,
    )


def overlap_map(
    scan: Scan, probe: NDArray[np.complexfloating]
) -> tuple[NDArray[np.float64], NDArray[np.float32], tuple[float, float]]:
    """How far every position overlaps with its neighbours, and where the probe has shone.

    Parameters
    ----------
    scan
        The scan.
    probe
        (P, N, N) complex modes.

    Returns
    -------
    overlap
        (M,) 1 - (mean distance of the four nearest neighbours) / (diameter of the even disc with the probe's
        participation ratio), at least 0.
    coverage
        (H, W) float32 summed probe intensity at whole-pixel positions, largest 1.
    origin
        Position (row, col) of `coverage[0, 0]`.
    """
    from scipy.spatial import cKDTree

    power = (np.abs(probe) ** 2).sum(axis=0).astype(np.float64)
    diameter = 2 * np.sqrt(power.sum() ** 2 / np.square(power).sum() / np.pi)
    near = min(_NEIGHBOURS, len(scan) - 1)
    distance = cKDTree(scan.positions).query(scan.positions, k=near + 1)[0][:, 1:].mean(axis=1) if near else np.zeros(1)
    shape, origin = canvas_for(scan.positions, scan.N)
    if shape[0] * shape[1] > 2**26:
        return np.maximum(1 - distance / diameter, 0), np.zeros((1, 1), np.float32), origin
    coverage = np.zeros((shape[0] + 1, shape[1] + 1), np.float32)
    corners = np.floor(scan.positions - np.asarray(origin)).astype(np.int64) - scan.N // 2
    for row, column in np.maximum(corners, 0):
        window = coverage[row : row + scan.N, column : column + scan.N]
        window += power[: window.shape[0], : window.shape[1]].astype(np.float32)
    coverage /= max(float(coverage.max()), 1e-30)
    return np.maximum(1 - distance / diameter, 0), coverage, origin


def _shifted(scan: Scan) -> Scan:
    lazy = LazyPatterns.of(scan.patterns)
    mask = None if scan.mask is None else np.fft.fftshift(scan.mask)
    return scan.replace(patterns=dataclasses.replace(lazy, shifted=not lazy.shifted), mask=mask)


def _probe(scan: Scan, lit: bool) -> tuple[NDArray[np.complexfloating], bool]:
    """The scan's probe, or a guess from its patterns; and whether it was guessed."""
    if scan.probe is not None and np.abs(scan.probe).any():
        return scan.probe, False
    if not lit:
        return np.ones((1, scan.N, scan.N), np.complex64), True
    return probe_from_patterns(scan.patterns, measurement=scan.measurement, mask=scan.mask)[None], True


def _check_overlap(overlap: NDArray[np.float64], guessed: bool) -> Findings:
    median, low = float(np.median(overlap)), float((overlap < _ENOUGH_OVERLAP).mean())
    of = "of a probe guessed from the mean pattern" if guessed else "of the probe's diameter"
    findings = Findings(
        {"overlap": f"{median:.0%} {of} in the median, {overlap.min():.0%} at least; {low:.0%} of the positions < 50%"}
    )
    if low > 0.5 and not guessed:
        findings.problems.append(
            f"Neighbouring positions overlap by {median:.0%} of the probe's diameter; ptychography wants 60 % or more: "
            "use smaller steps or a larger beam."
        )
    elif low > 0.1 and not guessed:
        findings.problems.append(
            f"{low:.0%} of the positions overlap by less than 50 % with their neighbours: see the map."
        )
    return findings


def _check_orientation(found: Orientations, guessed: bool) -> Findings:
    """Say which orientation fits, and what to do if it is not the one that was given."""
    if not found.decided:
        why = "there is no probe in the file" if guessed else "too few photons, too little overlap, or a wrong probe"
        return Findings(
            {"positions fit": f"undecided: the best two differ by {found.margin:.2%}"},
            [f"The orientations cannot be told apart ({why}), so the positions are not verified."],
        )
    pair = found.best if found.twin is None else f"{found.best} (or its twin {found.twin})"
    lower = 1 - 1 / (1 + found.margin)  # of the runner-up's R-factor; the margin is a part of the best one's
    facts = {
        "positions fit": f"{pair}, with an R-factor {lower:.0%} lower than any other's, from {found.patterns} patterns"
    }
    if "none" in (found.best, found.twin):
        return Findings(facts)
    also = "" if found.twin is None else f" (with this probe {found.twin} gives the same object as its twin)"
    return Findings(
        facts,
        [
            f"The positions fit the patterns only when they are turned: use --orientation {found.best}, R "
            f"{found.r_factors[found.best]:.3f} instead of {found.r_factors['none']:.3f}{also}."
        ],
    )


def _numbers(sums: PatternSums, overlap: NDArray[np.float64], covered: float) -> dict[str, float]:
    return {
        "pixel_max": sums.top,
        "copies": float(sums.copies),
        "overlap_median": float(np.median(overlap)),
        "overlap_min": float(overlap.min()),
        "object_pixels_lit": covered,
        "photons": float(sums.total.sum()),
    }
