"""Does a network pay? An iterative engine from its result, from the estimate alone and from a flat object.

    OMP_NUM_THREADS=1 python -m benchmarks.amortised [SCAN] [--small --photons 1e3 --step 12] [--plot FILE.png]
        [--set nepochs=6 n_groups=512 ...] [--tune 2] [--engine-set noise=poisson ...] [--epochs 1,2,3,5,7,10,15,20,30]

A network is pretrained on simulated objects under the beam of the scan (``ptycho pretrain``), then fine-tuned on the
scan (``--from``). rpie starts from a flat object, from the physics estimate that the network is shown, from the
pretrained network's result (zero-shot) and from the fine-tuned one's. Every number of epochs is a run of its own, since
the last epochs of a run average over the whole scan; 0 epochs is the start itself. Of every start two tables tell R,
mean Fourier ring correlation against the truth and CPU seconds, and after how many epochs it is where the flat start is
after its: epochs alone, with the passes of the estimate, and in CPU seconds without and with training.

Scenes: a measured scan if one is given; the pictures of ``benchmarks.engines``, whose probe is wrong; or, with
``--small``, the same pictures on 224 x 224 pixels under 64 x 64 patterns with the true probe.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.engines import placed, scene
from ptycho.config import EngineConfig, TrainingConfig, config_from_dict
from ptycho.data import Scan, load_scan
from ptycho.engines import solve
from ptycho.evaluation import compare
from ptycho.model.bundle import Bundle
from ptycho.physics import focused_probe, picture_object, raster_positions, simulate
from ptycho.workflows.inference import Stitched
from ptycho.workflows.pretrain import PretrainOptions, pretrain_scan
from ptycho.workflows.r_factor import scan_r_factor
from ptycho.workflows.reconstruct import stitch
from ptycho.workflows.refine import state_of_result
from ptycho.workflows.results import Reconstruction
from ptycho.workflows.run import save_training, train_scan
from ptycho.workflows.train import beam_of

_SMALL = {"n_filters_scale": "1", "nepochs": "6", "device": "cpu", "checkpoint": "false"}
_CONTRAST = PretrainOptions(amplitude_min=0.6, phase=1.0)
_SAME_R, _SAME_FRC = 0.0005, 0.001
"""What counts as reached."""


@dataclasses.dataclass
class Start:
    """Where the engine starts, and what it took to come there."""

    name: str
    result: Reconstruction | None = None
    passes: int = 0
    seconds: float = 0.0
    training: float = 0.0


@dataclasses.dataclass
class Point:
    """How good a start is after some epochs."""

    epochs: int
    r_factor: float
    seconds: float
    frc: float = math.nan
    phase: float = math.nan


def small_scene(nphotons: float, step: float, size: int = 64, side: int = 224) -> Scan:
    """The pictures of ``benchmarks.engines`` on a smaller object, with the true probe."""
    rng = np.random.default_rng(0)
    image = picture_object("camera", (side, side), (0.6, 1.0), (-1.0, 1.0), phase_image="coins")
    positions = raster_positions((side, side), size, step, jitter=1.0, rng=rng)
    return simulate(image, focused_probe(size, size=0.42), positions, nphotons, rng, name="small pictures")


def starts(scan: Scan, config: TrainingConfig, tune: int, folder: Path | None) -> Iterator[Start]:
    """Every start; training is counted apart."""
    yield Start("flat")
    passes = config.model.start_iterations or 0
    if passes:
        began = time.process_time()
        estimate = beam_of(scan, config).estimate
        yield Start("estimate", _result(scan, estimate), passes, time.process_time() - began)
    began = time.process_time()
    bundle = pretrain_scan(scan, config, _CONTRAST)
    pretraining = time.process_time() - began
    _tell("pretraining", pretraining, bundle)
    yield _from_network("zero-shot", scan, bundle, passes, pretraining)
    if tune:
        save_training(bundle, folder)
        began = time.process_time()
        tuned = train_scan(scan, dataclasses.replace(config, start_model=folder, nepochs=tune))
        tuning = time.process_time() - began
        _tell("fine-tuning", tuning, tuned)
        yield _from_network("fine-tuned", scan, tuned, 2 * passes, pretraining + tuning)


def _tell(what: str, seconds: float, bundle: Bundle) -> None:
    losses = bundle.history["loss"]
    print(f"{what}: CPU {seconds:.0f} s, loss {losses[0]:.6g} to {losses[-1]:.6g}", flush=True)


def _from_network(name: str, scan: Scan, bundle: Bundle, passes: int, training: float) -> Start:
    began = time.process_time()
    stitched = stitch(scan, bundle)
    return Start(name, _result(scan, stitched), passes, time.process_time() - began, training)


def _result(scan: Scan, found: object) -> Reconstruction:
    return Reconstruction(
        object=found.object, weight=found.weight, origin=found.origin, positions=scan.positions, probe=found.probe
    )


def curve(scan: Scan, truth: Scan | None, start: Start, ladder: list[int], engine: dict[str, str]) -> list[Point]:
    """The engine from one start, for every number of epochs."""
    points = []
    if start.result is not None:
        points.append(_judged(start.result, scan, truth, 0, 0.0))
    for epochs in ladder:
        config = config_from_dict(EngineConfig, {"engine": "rpie", **engine, "epochs": epochs}, "--engine-set")
        began = time.process_time()
        state = solve(scan, config, None if start.result is None else state_of_result(start.result, scan, config))
        seconds = time.process_time() - began
        points.append(_judged(placed(state), scan, truth, epochs, seconds))
    return points


def _judged(found: object, scan: Scan, truth: Scan | None, epochs: int, seconds: float) -> Point:
    point = Point(epochs, scan_r_factor(found, found.probe, scan), seconds)
    if truth is not None:
        held = Stitched(found.object, found.weight, found.origin, found.probe, None)
        compared = compare(held, truth.object, truth.object_origin, trim=scan.N // 4)
        point.frc = float(np.mean(compared.frc["complex"].correlation))
        point.phase = compared.metrics["mse_phase"] ** 0.5
    return point


def curve_lines(start: Start, points: list[Point]) -> Iterator[str]:
    """Rows of the table of all that was measured."""
    for point in points:
        seconds = start.seconds + point.seconds
        yield (
            f"| {start.name} | {point.epochs} | {point.epochs + start.passes} | {point.r_factor:.4f} | "
            f"{point.frc:.3f} | {point.phase:.3f} | {seconds:.1f} | {seconds + start.training:.0f} |"
        )


def reached_lines(curves: list[tuple[Start, list[Point]]]) -> Iterator[str]:
    """Rows: after how many epochs each start is where the flat one is after its."""
    for goal in curves[0][1]:
        for start, points in curves[1:]:
            there = (
                p
                for p in points
                if p.r_factor <= goal.r_factor + _SAME_R and (math.isnan(goal.frc) or p.frc >= goal.frc - _SAME_FRC)
            )
            found = next(there, None)
            begin = f"| flat, {goal.epochs} epochs, {goal.seconds:.1f} s | {start.name} | "
            if found is None:
                yield begin + f"not in {points[-1].epochs} | | | |"
                continue
            seconds = start.seconds + found.seconds
            yield begin + (
                f"{found.epochs} | {found.epochs + start.passes} | {seconds:.1f} | {seconds + start.training:.0f} |"
            )


def save_plot(path: Path, cases: dict[str, list[tuple[Start, list[Point]]]]) -> None:
    """R and FRC over epochs, R over epochs and passes and over CPU seconds, with training dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.2 * len(cases)), layout="constrained")
    grid = figure.subplots(len(cases), 4, squeeze=False)
    for row, (name, curves) in zip(grid, cases.items(), strict=True):
        for number, (start, points) in enumerate(curves):
            colour, mark, epochs = f"C{number}", "osv^"[number], np.array([p.epochs for p in points])
            r_factors, frc = ([getattr(p, kind) for p in points] for kind in ("r_factor", "frc"))
            seconds = np.array([p.seconds for p in points]) + start.seconds
            row[0].plot(epochs, r_factors, mark + "-", color=colour, alpha=0.7, label=start.name)
            row[1].plot(epochs + start.passes, r_factors, mark + "-", color=colour, alpha=0.7)
            row[2].plot(seconds, r_factors, mark + "-", color=colour, alpha=0.7)
            if start.training:
                row[2].plot(seconds + start.training, r_factors, mark + "--", color=colour, mfc="none")
            row[3].plot(epochs, frc, mark + "-", color=colour, alpha=0.7)
        best = min(point.r_factor for _, points in curves for point in points)
        for axes in row[:3]:
            axes.set_ylim(0.99 * best, 1.25 * best)
        row[0].legend()
        row[2].set_xscale("log")
        row[3].set_visible(not np.isnan(curves[0][1][0].frc))
        titles = ("epochs", "epochs and passes of the estimate", "CPU s, dashed with training", "epochs")
        for axes, label, what in zip(row, titles, ("R", "R", "R", "mean FRC"), strict=True):
            axes.set(xlabel=label, ylabel=what, title=name)
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Parse, train, start the engine from everywhere, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, help="a measured scan; only a simulated scene without one")
    parser.add_argument("--small", action="store_true", help="the smaller scene")
    parser.add_argument("--photons", type=float, default=1e6)
    parser.add_argument("--step", type=float, default=12.0, help="of the smaller scene, pixels")
    parser.add_argument("--epochs", default="1,2,3,5,7,10,15,20,30")
    parser.add_argument("--tune", type=int, default=2, help="epochs of fine-tuning; 0 leaves it out")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the training")
    parser.add_argument("--engine-set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the engine")
    parser.add_argument("--measured-only", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--keep", type=Path, default=Path("amortised"), help="folder of the pretrained bundles")
    arguments = parser.parse_args()
    engine, settings = (dict(word.split("=", 1) for word in words) for words in (arguments.engine_set, arguments.set))
    ladder = [int(number) for number in arguments.epochs.split(",")]
    cases = {}
    for name, scan, truth in _scenes(arguments):
        config = config_from_dict(TrainingConfig, {**_SMALL, "N": scan.N, **settings}, "--set")
        print(f"\n{name}: {scan!r}\n", flush=True)
        curves = []
        for start in starts(scan, config, arguments.tune, arguments.keep / name):
            curves.append((start, curve(scan, truth, start, ladder, engine)))
            print("\n".join(curve_lines(*curves[-1])), flush=True)
        cases[name] = curves
        print(
            "\n| goal | start | epochs | with passes | CPU s | with training |\n| --- | --- | --- | --- | --- | --- |"
        )
        print("\n".join(reached_lines(curves)), flush=True)
        if arguments.plot is not None:
            save_plot(arguments.plot, cases)


def _scenes(arguments: argparse.Namespace) -> Iterator[tuple[str, Scan, Scan | None]]:
    if arguments.scan is not None:
        yield "measured", load_scan(arguments.scan), None
    if arguments.small:
        scan = small_scene(arguments.photons, arguments.step)
        yield "small pictures", scan, scan
    elif not arguments.measured_only:
        truth, wrong = scene(nphotons=arguments.photons)
        yield "pictures", truth.replace(probe=wrong, object=None, object_origin=None), truth


if __name__ == "__main__":
    main()
