"""Which way round the positions are: a short reconstruction with each of their eight orientations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho.data import Scan, crop_detector
from ptycho.data.orientation import ORIENTATIONS, reorient
from ptycho.errors import DataError
from ptycho.observers import Progress
from ptycho.physics import probe_from_patterns, scale_probe_to_counts
from ptycho.workflows.estimate import scan_estimate
from ptycho.workflows.r_factor import scan_r_factor

_DECIDED = 0.01
_FEWEST = 12


@dataclass(frozen=True)
class Orientations:
    """How well each orientation of the positions explains the patterns.

    Attributes
    ----------
    r_factors : by orientation, in the order of `ORIENTATIONS`; small is good.
    best : the orientation of the smallest R-factor; of two twins that fit alike, the one that needs no turning.
    twin : the orientation that fits as well as the best because the probe is symmetrical; None where it does not.
    margin : by how much, relatively, the best other orientation is worse.
    patterns : how many patterns were used.
    """

    r_factors: dict[str, float]
    best: str
    twin: str | None
    margin: float
    patterns: int

    @property
    def decided(self) -> bool:
        """Whether one orientation (or it and its twin) is clearly better than the others."""
        return self.margin > _DECIDED


def try_orientations(
    scan: Scan, *, patterns: int = 150, size: int = 64, passes: int = 10, progress: Progress | None = None
) -> Orientations:
    """Reconstruct a compact part of a scan with its positions in each of their eight orientations.

    Some passes of parallel updates of object and probe on the central pixels of the patterns, from the file's probe or
    else one from the mean pattern. With all axes of the positions reversed the patterns are explained by the object's
    twin, as well as by the object itself if the probe is its own twin (a real symmetrical one, or one that had to be
    guessed from the data): such a pair cannot be told apart, and does not have to be.

    Parameters
    ----------
    scan
        Any scan with the zero frequency in the middle.
    patterns
        At most so many, the nearest to the middle of the scan.
    size
        Detector pixels that are used.
    passes
        Visits of every pattern.
    progress
        Called with (orientations tried, 8).

    Raises
    ------
    DataError
        If there are too few patterns to tell anything.
    """
    part = _compact_part(scan, patterns, size)
    if len(part) < _FEWEST:
        raise DataError(f"{len(part)} patterns are too few to try orientations; at least {_FEWEST} are needed.")
    probe = part.probe
    if probe is None:
        probe = probe_from_patterns(part.patterns, measurement=part.measurement, mask=part.mask)[None]
    else:
        probe = scale_probe_to_counts(probe, part.mean_total_counts())
    photons = part.mean_total_counts()
    r_factors = {}
    for done, name in enumerate(ORIENTATIONS):
        turned = part.replace(positions=reorient(part.positions, name))
        estimate = scan_estimate(turned, probe, photons, passes, refine_probe=True)
        r_factors[name] = scan_r_factor(estimate, estimate.probe, turned)
        if progress is not None:
            progress(done + 1, len(ORIENTATIONS))
    return _judge(r_factors, len(part))


def twin_of(orientation: str) -> str:
    """The orientation with both axes reversed besides."""
    transposed, rows, columns = ORIENTATIONS[orientation]
    return next(name for name, turn in ORIENTATIONS.items() if turn == (transposed, not rows, not columns))


def _judge(r_factors: dict[str, float], patterns: int) -> Orientations:
    best = min(r_factors, key=lambda name: r_factors[name])
    other = twin_of(best)
    alike = r_factors[other] <= (1 + _DECIDED) * r_factors[best]
    if alike and list(ORIENTATIONS).index(other) < list(ORIENTATIONS).index(best):
        best, other = other, best
    rivals = [value for name, value in r_factors.items() if name not in ((best, other) if alike else (best,))]
    margin = min(rivals) / r_factors[best] - 1 if r_factors[best] > 0 else np.inf
    return Orientations(r_factors, best, other if alike else None, float(margin), patterns)


def _compact_part(scan: Scan, patterns: int, size: int) -> Scan:
    """The patterns nearest to the middle of the scan, as a square, with fewer pixels; the same in any orientation."""
    middle = (scan.positions.min(axis=0) + scan.positions.max(axis=0)) / 2
    distance = np.abs(scan.positions - middle).max(axis=1)
    part = scan.subset(np.sort(np.argsort(distance, kind="stable")[:patterns]))
    if size < part.N and part.N % 2 == 0:
        part = crop_detector(part, size)
    return part.replace(object=None, object_origin=None)
