"""What can be wrong with a scan, looked for in its numbers: one function per kind of trouble."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptycho.data import Scan

_SAMPLE = 64
_LIT = 30
_RASTER = 0.8
_RASTER_TOLERANCE = 0.05
_SAME_PLACE = 0.05
_SCALE = 1.6
_TIGHT = 0.6


@dataclass
class Findings:
    """What a check found.

    Attributes
    ----------
    facts : lines of name and text.
    problems : sentences, each with what to do.
    """

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __iadd__(self, other: Findings) -> Findings:
        """Add another check's findings."""
        self.facts |= other.facts
        self.problems += other.problems
        return self


@dataclass
class PatternSums:
    """What one pass over the patterns leaves.

    Attributes
    ----------
    total : (N, N) counts of every pixel over all patterns.
    brightest : (N, N) largest raw value of every pixel.
    top : the largest raw value at good pixels.
    times_top : how often it is reached.
    patterns_at_top : in how many patterns.
    copies : how many patterns are exact copies of an earlier one.
    """

    total: NDArray[np.float64]
    brightest: NDArray[np.float64]
    top: float
    times_top: int
    patterns_at_top: int
    copies: int


def sum_patterns(scan: Scan) -> PatternSums:
    """Read all patterns once, in bounded memory."""
    total, brightest = np.zeros((scan.N, scan.N)), np.zeros((scan.N, scan.N))
    top, times, patterns_at_top = 0.0, 0, 0
    seen = [np.zeros(0, np.uint64)]
    for part in scan.chunks():
        counts = scan.counts(part)
        total += counts.sum(axis=0, dtype=np.float64)
        brightest = np.maximum(brightest, counts.max(axis=0))
        highest = float(counts.max())
        if highest > top:
            top, times, patterns_at_top = highest, 0, 0
        if highest == top:
            at_top = counts == top
            times += int(at_top.sum())
            patterns_at_top += int(at_top.any(axis=(1, 2)).sum())
        lit = np.count_nonzero(counts, axis=(1, 2)) >= _LIT
        seen.append(np.fromiter((_checksum(pattern) for pattern in counts[lit]), np.uint64))
    keys = np.concatenate(seen)
    copies = keys.size - np.unique(keys).size
    return PatternSums(total, brightest, top, times, patterns_at_top, copies)


def check_measurement(scan: Scan) -> Findings:
    """Counts are whole numbers, and amplitudes their roots; say which of the two the numbers look like."""
    chosen = np.unique(np.linspace(0, len(scan) - 1, min(_SAMPLE, len(scan))).round().astype(np.int64))
    raw = np.asarray(scan.patterns[chosen], np.float64)
    raw = raw[:, scan.mask] if scan.mask is not None else raw
    lit = raw[(raw > 0) & np.isfinite(raw)]
    if lit.size == 0:
        return Findings()
    whole = _whole(lit, 1e-6)
    squares = _whole(lit**2, 1e-5)
    looks = "counts" if whole else "amplitude" if squares else None
    seen = {
        "counts": "whole numbers, as counts are",
        "amplitude": "square roots of whole numbers, as amplitudes of counts are",
        None: "neither whole numbers nor roots of such: scaled, corrected for background, or not photons",
    }[looks]
    findings = Findings({"numbers": f"{seen}; taken for {scan.measurement}"})
    if looks is not None and looks != scan.measurement:
        findings.problems.append(
            f"The patterns are taken for {scan.measurement}, but they are {seen}: use --measurement {looks}."
        )
    return findings


def check_saturation(scan: Scan, sums: PatternSums) -> Findings:
    """A detector that is full shows the same highest value again and again, often the largest of its bits."""
    if scan.measurement != "counts" or sums.top < 100:
        return Findings({"saturation": f"no sign of it; the brightest pixel has {sums.top:.4g} counts"})
    bits = float(np.log2(sums.top + 1))
    full = abs(bits - round(bits)) < 1e-9 and bits >= 8
    if sums.times_top >= 5 and (full or sums.patterns_at_top >= 3):
        kind = f", the most that {round(bits)} bits hold" if full else ""
        return Findings(
            {"saturation": f"{sums.top:.6g} counts are reached {sums.times_top} times"},
            [
                f"The detector is saturated: exactly {sums.top:.6g} counts{kind}, {sums.times_top} times in "
                f"{sums.patterns_at_top} patterns; attenuate the beam, or mask these pixels."
            ],
        )
    return Findings({"saturation": f"no sign of it; {sums.top:.6g} counts are reached {sums.times_top} time(s)"})


def check_pixels(scan: Scan, sums: PatternSums) -> Findings:
    """Dead pixels stay dark where their neighbours are lit; hot ones outshine them."""
    from scipy.ndimage import maximum_filter, median_filter

    ring = np.ones((5, 5), dtype=bool)
    ring[2, 2] = False
    around = median_filter(sums.total, footprint=ring, mode="nearest")
    good = np.ones_like(sums.total, dtype=bool) if scan.mask is None else scan.mask
    dead = (sums.total == 0) & (around >= _LIT) & good
    nearest = np.ones((3, 3), dtype=bool)
    nearest[1, 1] = False
    brightest = maximum_filter(sums.total, footprint=nearest, mode="nearest")
    hot = (sums.total > 10 * brightest) & (sums.total > max(_LIT, len(scan), 0.01 * sums.total.max())) & good
    findings = Findings({"pixels": f"{int(dead.sum())} dead, {int(hot.sum())} hot, {int((~good).sum())} masked"})
    if dead.any():
        findings.problems.append(
            f"{int(dead.sum())} pixels never count although their neighbours do, e.g. {_example(dead)}: mask "
            "them as bad."
        )
    if hot.any():
        findings.problems.append(
            f"{int(hot.sum())} pixels outshine their neighbours by far, e.g. {_example(hot)}: mask them as bad."
        )
    if sums.copies:
        findings.problems.append(
            f"{sums.copies} patterns are exact copies of another one: the detector or the file writer has hung."
        )
    return findings


def check_beam(scan: Scan, sums: PatternSums) -> tuple[Findings, bool]:
    """Where the beam hits the detector, and whether the zero frequency is stored at [0, 0].

    Returns
    -------
    The findings, and whether the patterns look unshifted.
    """
    n, total = scan.N, sums.total.sum()
    if total <= 0:
        return Findings({}, ["Every pattern is dark."]), False
    quarter = n // 4
    middle = slice(quarter, n - quarter)
    inside = sums.total[middle, middle].sum() / total
    shifted = np.fft.fftshift(sums.total)
    corners = shifted[middle, middle].sum() / total
    unshifted = bool(corners > 2 * inside)
    row, column = _centre(shifted if unshifted else sums.total)
    where = f"row {row:.1f}, column {column:.1f} of {n} (the middle is {n // 2})"
    if unshifted:
        return Findings(
            {"beam": f"in the corners; after an fftshift at {where}"},
            ["Most light lies in the corners, so the zero frequency is stored at [0, 0]: use --fftshift."],
        ), True
    findings = Findings({"beam": f"at {where}; the patterns are not fftshifted"})
    if max(abs(row - n // 2), abs(column - n // 2)) > n / 32:
        findings.problems.append(
            f"The beam's centre is at ({row:.1f}, {column:.1f}) instead of ({n // 2}, {n // 2}): cut the frames around "
            f"it with --beam-centre {row:.0f},{column:.0f}."
        )
    return findings, False


def check_scale(scan: Scan, probe: NDArray[np.complexfloating], mean: NDArray[np.float64]) -> Findings:
    """The probe's far field is about as wide as the mean pattern, if both are on the same pixels."""
    far = np.fft.fftshift(np.abs(np.fft.fft2(probe, norm="ortho")) ** 2, axes=(-2, -1)).sum(axis=0)
    measured, predicted = _width(mean), _width(far)
    ratio = measured / predicted
    findings = Findings(
        {"scale": f"the mean pattern is {measured:.1f} pixels wide, the probe's far field {predicted:.1f}"}
    )
    # an object makes the patterns wider than the probe's far field, not narrower
    if not 1 / _SCALE < ratio < _SCALE**2:
        findings.problems.append(
            f"The mean pattern is {ratio:.2g} times as wide as the probe's far field: the probe is on pixels of "
            "another size than the patterns are (a wrong distance, wavelength, detector pixel, or probe)."
        )
    size = _width((np.abs(probe) ** 2).sum(axis=0).astype(np.float64))
    if size > _TIGHT * scan.N:
        findings.problems.append(
            f"The probe is {size:.0f} of the window's {scan.N} pixels wide, so that the patterns are sampled too "
            "coarsely: move the detector away, or use less binning."
        )
    return findings


def check_positions(scan: Scan) -> Findings:
    """Positions that coincide, lie on a regular grid, or cannot be pixels."""
    from scipy.spatial import cKDTree

    positions = scan.positions
    span = positions.max(axis=0) - positions.min(axis=0)
    if len(positions) < 2 or not span.any():
        return Findings({}, ["All positions are the same: the object is seen at one place only."])
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    step = float(np.median(nearest))
    findings = Findings({"scan": f"{span[0]:.1f} x {span[1]:.1f} pixels, typical step {step:.3g} pixels"})
    same = int((nearest < _SAME_PLACE).sum())
    if span.max() < 1:
        findings.problems.append(
            f"The positions span {span.max():.3g} pixels in all: they are probably in metres; read the file with its "
            "geometry, or give --pixel-size."
        )
    elif same:
        findings.problems.append(f"{same} positions coincide with another one: repeated or unread motor positions.")
    regular = raster_fraction(positions)
    findings.facts["raster"] = f"{regular:.0%} of the positions lie on a regular grid"
    if regular > _RASTER:
        findings.problems.append(
            f"{regular:.0%} of the positions lie on a regular grid, which repeats itself as an artefact in the object "
            "(raster pathology): add a random offset of a tenth of a step or more, or scan a spiral."
        )
    return findings


def raster_fraction(positions: NDArray[np.float64]) -> float:
    """Share of the positions that have both neighbours along the two directions of the scan's own lattice.

    The lattice is found from the differences of neighbours; 0 for a spiral or positions with an offset of a tenth of
    the step, 1 for a perfect raster of any shape and orientation.
    """
    from scipy.spatial import cKDTree

    if len(positions) < 9:
        return 0.0
    tree = cKDTree(positions)
    distance, index = tree.query(positions, k=5)
    step = float(np.median(distance[:, 1]))
    if step <= _SAME_PLACE:
        return 0.0
    ways = (positions[index[:, 1:]] - positions[:, None, :]).reshape(-1, 2)
    length = np.linalg.norm(ways, axis=1)
    ways = ways[(length > _SAME_PLACE) & (length < 3 * step)]
    ways = np.where((ways[:, :1] < -1e-9) | ((np.abs(ways[:, :1]) <= 1e-9) & (ways[:, 1:] < 0)), -ways, ways)
    first = _commonest(ways, _RASTER_TOLERANCE * step)
    across = np.abs(ways[:, 0] * first[1] - ways[:, 1] * first[0]) / np.linalg.norm(first)
    rest = ways[across > 0.5 * step]
    if not len(rest):
        return 0.0
    second = _commonest(rest, _RASTER_TOLERANCE * step)
    found = [
        np.minimum(*(tree.query(positions + sign * way)[0] for sign in (1, -1))) < _RASTER_TOLERANCE * step
        for way in (first, second)
    ]
    return float((found[0] & found[1]).mean())


def check_dose(scan: Scan, sums: PatternSums, area: float) -> Findings:
    """Photons per pattern and per object pixel that was lit.

    Parameters
    ----------
    scan, sums
        The scan and what one pass over it left.
    area
        Object pixels that were lit.
    """
    photons = float(sums.total.sum())
    dose = photons / max(area, 1.0)
    text = f"{photons / len(scan):.4g} photons per pattern, {dose:.3g} per pixel of the object"
    pixel = scan.object_pixel_size
    if pixel is not None:
        text += f", {dose / (pixel * 1e9) ** 2:.3g} per square nanometre"
    findings = Findings({"dose": text})
    if 0 < dose < 10:
        findings.problems.append(f"{dose:.2g} photons per object pixel are too few for a sharp picture: expose longer.")
    return findings


def _checksum(pattern: NDArray[np.floating]) -> int:
    data = np.ascontiguousarray(pattern).data
    return zlib.crc32(data) << 32 | zlib.adler32(data)


def _whole(values: NDArray[np.float64], tolerance: float) -> bool:
    """Whether nearly all values are whole numbers, to a relative rounding."""
    close = np.abs(values - np.rint(values)) <= np.maximum(tolerance * values, 1e-6)
    return bool(close.mean() > 0.999 and np.rint(values).max() >= 1)


def _centre(image: NDArray[np.float64]) -> tuple[float, float]:
    """Centre of mass of what is brighter than a tenth of the (smoothed) maximum."""
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(image, 3, mode="nearest")
    bright = np.where(smooth > 0.1 * smooth.max(), smooth, 0)
    row, column = ((np.arange(image.shape[axis]) * bright.sum(axis=1 - axis)).sum() / bright.sum() for axis in (0, 1))
    return float(row), float(column)


def _width(image: NDArray[np.float64]) -> float:
    """Diameter of the even disc with the same participation ratio: (sum I)^2 / sum I^2 = pi d^2 / 4."""
    total = float(image.sum())
    return float(2 * np.sqrt(total**2 / max(float(np.square(image).sum()), 1e-300) / np.pi))


def _commonest(ways: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """The difference that has the most others within the tolerance, averaged with them."""
    from scipy.spatial import cKDTree

    sample = ways[:: max(1, len(ways) // 2000)]
    near = cKDTree(sample).query_ball_point(sample, tolerance)
    return np.asarray(sample[max(near, key=len)].mean(axis=0))


def _example(where: NDArray[np.bool_]) -> tuple[int, int]:
    row, column = np.argwhere(where)[0]
    return int(row), int(column)
