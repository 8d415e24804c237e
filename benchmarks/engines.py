"""Iterative engines on a scan file and on a simulated scene with a wrong probe: R-factor and CPU seconds per epoch.

    OMP_NUM_THREADS=1 python -m benchmarks.engines [SCAN] [--engines rpie,epie] [--epochs 20] [--set modes=2 ...]

The scene: a 484 x 484 object from two pictures, amplitude 0.6 to 1, phase -1 to 1 rad, 400 positions whose beams
overlap by 65 %, 1e6 photons per pattern; the engine starts from a probe with 10 % too much defocus and without the true
one's astigmatism and coma. Of it the phase's root mean square error and the mean Fourier ring correlation are printed
too, and the R-factor of the true object and probe, which a reconstruction should reach and not undercut.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from ptycho.config import EngineConfig, config_from_dict
from ptycho.data import Scan, load_scan
from ptycho.engines import State, solve
from ptycho.evaluation import compare
from ptycho.physics import focused_probe, picture_object, raster_positions, simulate
from ptycho.workflows.inference import Stitched
from ptycho.workflows.r_factor import scan_r_factor

_SIDE, _N, _BEAM = 484, 128, 0.42


def scene(seed: int = 0, nphotons: float = 1e6) -> tuple[Scan, np.ndarray]:
    """The simulated scan, which holds the true object and probe, and the wrong probe (1, N, N) to start from."""
    draw_positions, draw_photons = np.random.default_rng(seed).spawn(2)
    image = picture_object("camera", (_SIDE, _SIDE), (0.6, 1.0), (-1.0, 1.0), phase_image="coins")
    step = (_SIDE - _N) / 19 - 1e-9
    positions = raster_positions((_SIDE, _SIDE), _N, step, jitter=2.0, rng=draw_positions)
    scan = simulate(image, focused_probe(_N, size=_BEAM), positions, nphotons, draw_photons, name="pictures")
    return scan, focused_probe(_N, size=1.1 * _BEAM, zernike={})[None]


def placed(state: State) -> Stitched:
    """A state as the evaluation takes it."""
    return Stitched(state.object, state.weight, state.origin, state.probe, None)


def timed(scan: Scan, config: EngineConfig) -> tuple[State, float]:
    """A reconstruction and the CPU seconds that it took."""
    began = time.process_time()
    state = solve(scan, config)
    return state, time.process_time() - began


def figures(scan: Scan, config: EngineConfig, truth: Scan | None = None) -> str:
    """One line about one engine on one scan."""
    state, seconds = timed(scan, config)
    seen = scan.replace(positions=state.positions)
    line = (
        f"{config.engine:15} {config.epochs:3d} epochs  R {scan_r_factor(placed(state), state.probe, seen):.4f}  "
        f"CPU {seconds:6.2f} s, {seconds / config.epochs:.3f} s per epoch"
    )
    if truth is not None:
        found = compare(placed(state), truth.object, truth.object_origin, trim=_N // 4)
        line += (
            f"  phase RMSE {found.metrics['mse_phase'] ** 0.5:.4f} rad  "
            f"mean FRC {np.mean(found.frc['complex'].correlation):.3f}"
        )
    return line


def main() -> None:
    """Run the engines that were asked for and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, help="a measured scan; only the simulated scene without one")
    parser.add_argument("--engines", default="rpie,epie", help="names, with commas between them")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the engines")
    parser.add_argument("--measured-only", action="store_true")
    arguments = parser.parse_args()
    settings = dict(word.split("=", 1) for word in arguments.set) | {"epochs": str(arguments.epochs)}
    configs = [
        config_from_dict(EngineConfig, settings | {"engine": name}, "--set") for name in arguments.engines.split(",")
    ]
    if arguments.scan is not None:
        scan = load_scan(arguments.scan)
        print(f"{scan!r}")
        for config in configs:
            print(figures(scan, config), flush=True)
    if arguments.measured_only:
        return
    truth, wrong = scene()
    exact = Stitched(truth.object, np.ones(truth.object.shape), truth.object_origin, truth.probe, None)
    print(f"{truth!r}; the truth's R {scan_r_factor(exact, truth.probe, truth):.4f}")
    for config in configs:
        print(figures(truth.replace(probe=wrong), config, truth), flush=True)


if __name__ == "__main__":
    main()
