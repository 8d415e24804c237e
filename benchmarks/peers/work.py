"""The work that every program gets, and the one evaluator that judges what they make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines import scene
from ptycho.data import Scan, load_scan
from ptycho.errors import DataError
from ptycho.evaluation import compare
from ptycho.physics import diffraction_amplitude, extract_patches, fourier_shift
from ptycho.physics.reassembly import summed_window
from ptycho.workflows.inference import Stitched
from ptycho.workflows.r_factor import scan_r_factor

__all__ = ["Work", "judged", "measured_work", "simulated_work"]

_SPARE = 4
_BRIGHTEST = 0.95


@dataclass(frozen=True)
class Work:
    """A scan with its corner of the field at (0, 0), the probe to start from, and the truth where it is known."""

    title: str
    scan: Scan
    probe: np.ndarray
    truth: Scan | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """An object that holds every patch."""
        height, width = np.ceil(self.scan.positions.max(axis=0)).astype(int) + self.scan.N // 2 + _SPARE
        return int(height), int(width)

    def write(self, path: Path, epochs: int, seed: int, algorithm: str) -> None:
        """Write the file that an adapter reads; see :func:`benchmarks.peers.adapters.exchange.given`."""
        counts = self.scan.amplitude(slice(None)).astype(np.float32) ** 2
        brightest = np.quantile(counts.sum(axis=(1, 2)), _BRIGHTEST)
        probe = self.probe * np.sqrt(brightest / np.sum(np.abs(self.probe) ** 2))
        arrays = {"counts": counts, "positions": self.scan.positions, "shape": self.shape}
        np.savez(path, **arrays, probe=probe.astype(np.complex64), epochs=epochs, seed=seed, algorithm=algorithm)


def measured_work(path: Path) -> Work:
    """A scan file with its own probe.

    Raises
    ------
    DataError
        It has no probe, or bad pixels, which some of the programs cannot leave out.
    """
    scan = load_scan(path)
    if scan.probe is None or scan.mask is not None:
        raise DataError(f"{path}: expected a scan with a probe and without bad pixels, to compare programs on.")
    return Work(f"measured, {len(scan)} patterns of {scan.N} x {scan.N}, given probe", _moved(scan), scan.probe)


def simulated_work() -> Work:
    """The scene of benchmarks.engines, with its wrong probe."""
    truth, wrong = scene()
    title = f"simulated, {len(truth)} patterns of {truth.N} x {truth.N}, wrong probe"
    return Work(title, _moved(truth), wrong, _moved(truth))


def judged(work: Work, answer: dict[str, Any]) -> dict[str, float]:
    """R-factor of an answer, by the library's evaluator and by the program's own way between the pixels, and errors.

    Parameters
    ----------
    work : what was to be done.
    answer : see :func:`benchmarks.peers.adapters.exchange.answer`.
    """
    image, probe, origin = answer["object"], answer["probe"], np.asarray(answer["origin"])
    scan = work.scan.replace(positions=np.asarray(answer.get("positions", work.scan.positions), float))
    lit = work.probe if work.truth is None else work.truth.probe
    dose = summed_window(np.sum(np.abs(lit) ** 2, axis=0), work.scan.positions - origin, image.shape)
    placed = Stitched(image, dose, (float(origin[0]), float(origin[1])), probe, None)

    def as_it_predicts(part: slice) -> np.ndarray:
        return predicted(image, probe, scan.positions[part] - origin, str(answer["between"]))

    found = {
        "r": scan_r_factor(placed, probe, scan),
        "own": scan_r_factor(placed, probe, scan, predict=as_it_predicts),
    }
    if work.truth is not None:
        against = compare(placed, work.truth.object, work.truth.object_origin, trim=scan.N // 4)
        found["phase"] = float(against.metrics["mse_phase"] ** 0.5)
        found["frc"] = float(np.mean(against.frc["complex"].correlation))
    return found


def predicted(image: np.ndarray, probe: np.ndarray, at: np.ndarray, between: str) -> np.ndarray:
    """Amplitudes (K, N, N) as a program reads the object between its pixels.

    Parameters
    ----------
    image, probe : (H, W) and (P, N, N) complex.
    at : (K, 2) positions on the image.
    between : ``bilinear``, ``integer`` (rounds), ``patch`` (moves the patch by a Fourier shift), ``probe`` (the probe).
    """
    size, whole = probe.shape[-1], np.round(at)
    if between == "bilinear":
        return diffraction_amplitude(extract_patches(image, at, size), probe)
    patches = extract_patches(image, whole, size)
    if between == "integer":
        return diffraction_amplitude(patches, probe)
    if between == "patch":
        return diffraction_amplitude(fourier_shift(patches, at - whole), probe)
    power = np.zeros(patches.shape)
    for mode in probe:
        moved = fourier_shift(np.broadcast_to(mode, patches.shape), whole - at)
        power += diffraction_amplitude(patches * moved, np.ones((1, size, size), moved.dtype)) ** 2
    return np.sqrt(power)


def _moved(scan: Scan) -> Scan:
    """The scan with the corner of its field at (0, 0)."""
    corner = np.floor(scan.positions.min(axis=0)) - scan.N // 2 - _SPARE
    origin = np.asarray(scan.object_origin or (0.0, 0.0)) - corner
    return scan.replace(positions=scan.positions - corner, object_origin=(float(origin[0]), float(origin[1])))
