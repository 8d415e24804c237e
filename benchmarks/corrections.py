"""Simulated scans with what is wrong in real ones: positions, an unsteady beam, an object that is sharp or thick.

    OMP_NUM_THREADS=1 python -m benchmarks.corrections [--seeds 3] [--epochs 60]

Positions: 2 pixels RMS of random error, or 1 % of scale and 0.5 degrees of rotation; shown is the RMS error before and
after, the worst of the seeds, only the common shift taken out, with either noise model. Defocus: the probe starts with
10 % too much of it and the positions right; shown is the error that the correction makes, and takes back. Beam:
brightness of 20 %, and 0.7 pixels of wandering; R-factor and errors of the object without and with components of the
beam. Sharp object: patches cut between the pixels by a Fourier shift, reconstructed with either kind of shift. Thick
object: two pictures behind each other, at distances in depths of field, wavelength / NA^2 with the detector's aperture;
R-factors of the truth, of one slice and of two, and the errors of the phase of both slices.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ptycho.config import EngineConfig
from ptycho.data import Scan
from ptycho.engines import State, predictor, solve
from ptycho.evaluation import compare
from ptycho.physics import (
    extract_patches,
    focused_probe,
    fourier_shift,
    lines_object,
    picture_object,
    raster_positions,
    simulate,
)
from ptycho.physics.fourier import fft2, fftshift2
from ptycho.workflows.inference import Stitched

_PHOTONS = 1e6
_WAVELENGTH, _PIXEL = 1e-10, 1e-8
_DEPTH = 4 * _PIXEL**2 / _WAVELENGTH


def lines(N: int, side: int, step: float) -> Scan:
    """Lines, whose beams overlap well."""
    image = lines_object((side, side), 3, amplitude=(0.6, 1.0), phase=(-0.8, 0.8)).astype(np.complex128)
    return scanned(image, N, step)


def pictures(N: int, side: int, step: float) -> Scan:
    """Two photographs, one in the amplitude and one in the phase."""
    return scanned(picture_object("camera", (side, side), (0.6, 1.0), (-1.0, 1.0), phase_image="coins"), N, step)


def scanned(image: np.ndarray, N: int, step: float) -> Scan:
    """A raster over an object, with photon noise."""
    positions = raster_positions(image.shape, N, step, jitter=1.5, rng=1)
    return simulate(image, focused_probe(N, aperture=0.5, size=0.45), positions, _PHOTONS, 5)


SCENES: dict[str, Callable[[], Scan]] = {
    "lines, 32 x 32": lambda: lines(32, 88, 5.5),
    "lines, 64 x 64": lambda: lines(64, 160, 5.5),
    "pictures, 64 x 64": lambda: pictures(64, 160, 5.5),
}


def scattered(positions: np.ndarray, seed: int) -> np.ndarray:
    """Positions with 2 pixels RMS of random error."""
    return positions + np.random.default_rng(seed).normal(0, 2**0.5, positions.shape)


def mapped(positions: np.ndarray, seed: int) -> np.ndarray:
    """Positions off by 1 % and 0.5 degrees; odd seeds the one way, even ones the other."""
    sign = 1 if seed % 2 else -1
    angle, centre = np.deg2rad(0.5 * sign), positions.mean(axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (positions - centre) @ (turn * (1 + 0.01 * sign)).T + centre


def away(positions: np.ndarray, truth: np.ndarray) -> float:
    """RMS distance, pixels, of positions whose common shift is taken out."""
    error = positions - truth
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).sum(axis=1).mean()))


def corrected(seeds: int, epochs: int) -> None:
    """Print the table of the positions."""
    print("| positions | patterns | error | before, px | after, px | with `--noise poisson`, px | CPU s per epoch |")
    print("| --- " * 7 + "|")
    for name, make in SCENES.items():
        scan = make()
        for kind, spoil in (("random", scattered), ("scale and rotation", mapped)):
            before, after, spent = 0.0, {"amplitude": 0.0, "poisson": 0.0}, 0.0
            for seed in range(1, seeds + 1):
                wrong = spoil(scan.positions, seed)
                before = max(before, away(wrong, scan.positions))
                for noise in after:
                    config = EngineConfig(epochs=epochs, correct_positions="gradient", noise=noise)
                    began = time.process_time()
                    done = solve(scan.replace(positions=wrong), config)
                    spent += time.process_time() - began
                    after[noise] = max(after[noise], away(done.positions, scan.positions))
            print(
                f"| {name} | {len(scan)} | {kind} | {before:.2f} | {after['amplitude']:.2f} | {after['poisson']:.2f} | "
                f"{spent / (2 * seeds * epochs):.3f} |",
                flush=True,
            )


class Errors:
    """A callback that keeps the error of the positions after some epochs."""

    def __init__(self, truth: np.ndarray, after: Sequence[int]) -> None:
        self.truth, self.after, self.epoch = truth, after, 0
        self.found: list[float] = []

    def __call__(self, epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
        """Remember which epoch it is."""
        self.epoch = epoch

    def observe(self, make_snapshot: Callable[[], State]) -> None:
        """Measure the error; see :class:`ptycho.observers.Observer`."""
        if self.epoch in self.after:
            self.found.append(away(make_snapshot().positions, self.truth))


def out_of_focus(after: Sequence[int]) -> None:
    """Print how far right positions are moved, after some epochs, where the probe starts out of focus."""
    print(f"\n| 10 % too much defocus, positions right | {' | '.join(f'{epochs} epochs, px' for epochs in after)} |")
    print("| --- " * (1 + len(after)) + "|")
    for name, make in SCENES.items():
        scan = make()
        wrong = focused_probe(scan.N, aperture=0.5, size=1.1 * 0.45)[None]
        errors = Errors(scan.positions, after)
        config = EngineConfig(epochs=max(after), correct_positions="gradient")
        solve(scan.replace(probe=wrong), config, callbacks=[errors])
        print(f"| {name} | {' | '.join(f'{error:.2f}' for error in errors.found)} |", flush=True)


def unsteady(scan: Scan) -> Scan:
    """The scan with a beam whose brightness changes by 20 % and that wanders by 0.7 pixels."""
    rng = np.random.default_rng(0)
    count, probe = len(scan), scan.probe[0].astype(np.complex128)
    brightness = np.exp(rng.normal(0, 0.2, count))[:, None, None]
    moved = fourier_shift(np.broadcast_to(probe, (count, *probe.shape)), rng.normal(0, 0.7 / 2**0.5, (count, 2)))
    field = fftshift2(fft2(extract_patches(scan.object, scan.positions, scan.N) * brightness * moved))
    return scan.replace(patterns=rng.poisson(np.abs(field) ** 2).astype(np.uint32))


def sharp(scan: Scan) -> Scan:
    """The scan of the object as it is between its pixels: patches by Fourier shift, the object taken as periodic."""
    corner = scan.positions - scan.N // 2
    count = len(scan)
    stack = np.broadcast_to(scan.object.astype(np.complex128), (count, *scan.object.shape))
    patches = fourier_shift(stack, corner)[:, : scan.N, : scan.N]
    field = fftshift2(fft2(patches * scan.probe[0]))
    return scan.replace(patterns=np.random.default_rng(0).poisson(np.abs(field) ** 2).astype(np.uint32))


def thick(spacing: float, momentum: float, epochs: int) -> None:
    """Reconstruct two pictures, ``spacing`` depths of field apart, with one slice and with two, and print a row."""
    side, N, gap = 160, 64, spacing * _DEPTH
    truth = np.stack([picture_object(name, (side, side), (0.8, 1.0), (-0.8, 0.8)) for name in ("camera", "coins")])
    positions = raster_positions((side, side), N, 5.5, jitter=1.5, rng=1)
    lengths = {"spacing": gap, "wavelength": _WAVELENGTH, "pixel_size": _PIXEL}
    scan = simulate(truth, focused_probe(N, aperture=0.5, size=0.45), positions, _PHOTONS, 5, **lengths)
    config = EngineConfig(epochs=epochs, momentum=momentum, slices=2, slice_spacing=gap)
    thin = EngineConfig(epochs=epochs, momentum=momentum)
    known = State(truth, (0.0, 0.0), scan.probe, positions, positions, spacing=gap)
    began = time.process_time()
    found = solve(scan, config)
    spent = time.process_time() - began
    r_factors = (fit(known, scan, config), fit(solve(scan, thin), scan, thin), fit(found, scan, config))
    placed = [Stitched(one, found.weight, found.origin, found.probe, None) for one in found.object]
    wrong = [compare(*pair, trim=8).metrics["mse_phase"] ** 0.5 for pair in zip(placed, truth, strict=True)]
    cells = [f"{spacing:g}", f"{momentum:g}", f"{epochs}", *(f"{value:.3f}" for value in (*r_factors, *wrong))]
    print(f"| {' | '.join(cells)} | {spent / epochs:.3f} |", flush=True)


def fit(state: State, scan: Scan, config: EngineConfig) -> float:
    """R-factor of a state over its scan."""
    predicted, measured = predictor(state, scan, config)(slice(None)), scan.amplitude()
    return float(np.abs(predicted - measured).sum() / measured.sum())


def judged(title: str, scan: Scan, config: EngineConfig) -> None:
    """Reconstruct, and print a row."""
    began = time.process_time()
    state: State = solve(scan, config)
    spent = time.process_time() - began
    placed = Stitched(state.object, state.weight, state.origin, state.probe, None)
    found = compare(placed, scan.object, scan.object_origin or (0.0, 0.0), trim=8).metrics
    print(
        f"| {title} | {state.history['r_factor'][-1]:.3f} | {found['mse_phase'] ** 0.5:.3f} rad | "
        f"{found['mse_amplitude'] ** 0.5:.3f} | {spent / config.epochs:.3f} |",
        flush=True,
    )


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    corrected(args.seeds, args.epochs)
    out_of_focus([args.epochs * part // 6 for part in (1, 2, 4, 6, 12)])
    head = "R | phase RMSE | amplitude RMSE | CPU s per epoch |\n" + "| --- " * 5 + "|"
    print(f"\n| unsteady beam | {head}")
    scan = unsteady(SCENES["lines, 64 x 64"]())
    for modes in (0, 1, 3):
        judged(f"`--opr_modes {modes}`", scan, EngineConfig(epochs=args.epochs, opr_modes=modes))
    print(f"\n| object sharper than its pixels | {head}")
    scan = sharp(pictures(32, 88, 5.5))
    for shift in ("bilinear", "fourier"):
        judged(
            f"`--interpolation {shift}`", scan, EngineConfig(epochs=args.epochs, interpolation=shift, noise="poisson")
        )
    print("\n| depths of field | momentum | epochs | R truth | R one | R two | first, rad | second, rad | CPU s |")
    print("| --- " * 9 + "|")
    for spacing in (0.5, 1, 2, 5, 10):
        thick(spacing, 0.8, args.epochs)
    thick(2, 0.0, args.epochs)
    thick(1, 0.8, 4 * args.epochs)


if __name__ == "__main__":
    main()
