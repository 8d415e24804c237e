"""Does the cost grow in proportion to the work? Simulation, grouping, network and stitching from small to large.

    python -m benchmarks.scaling [--largest 1.0] [--plot FILE.png]

Shown are seconds and, so that a straight line is a constant column, microseconds per pattern, per group and per patch.
The floors are the Fourier transforms alone, one query of the neighbours' tree, the network alone, and copying the
patches. All is numpy's but the network, which is computed by the first framework that is there. ``--largest 0.01`` ends
the rows at a hundredth of the work, to see that it works.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ptycho.backends import available_backends, get_backend
from ptycho.config import ModelConfig
from ptycho.data import Container
from ptycho.data.grouping import group_positions
from ptycho.model.batches import make_batch
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics import Canvas, focused_probe, idealised_probe, random_field_object, simulate
from ptycho.physics.fourier import fft2
from ptycho.physics.photons import intensity_scale
from ptycho.tf_helper import reassemble_position
from ptycho.workflows.inference import Inference


@dataclass
class Point:
    """One measurement of a row."""

    row: str
    unit: str
    size: int
    seconds: float
    floor: float


def simulated(largest: float) -> Iterator[Point]:
    """Patterns by their number, a hundred thousand at most at a time, and by their side."""
    sizes = [(64, count) for count in limited((100, 1000, 10_000, 100_000, 1_000_000), largest)]
    sides = [(N, max(4, round(count * largest))) for N, count in ((128, 2000), (256, 500), (512, 100))]
    for N, count in sizes + sides:
        times, count = -(-count // 100_000), min(count, 100_000)
        rng = np.random.default_rng(0)
        field = random_field_object((N + 200, N + 200), 0)
        positions = rng.uniform(N // 2, N // 2 + 199, (count, 2))
        out = np.empty((count, N, N), np.uint16)
        probe = focused_probe(N)
        waves = np.ones((min(count, 256), N, N), np.complex64)
        floor = timed(lambda waves=waves: fft2(waves)) * count / len(waves)
        took = timed(
            lambda f=field, p=probe, at=positions, o=out: simulate(f, p, at, 1e4, 0, out=o),
            repeat=1 if count > 5000 else 3,
        )
        for _ in range(times - 1):
            took += timed(lambda f=field, p=probe, at=positions, o=out: simulate(f, p, at, 1e4, 0, out=o), repeat=1)
        yield Point(f"simulate with photon noise, {N} x {N}", "pattern", times * count, took, times * floor)


def grouped(largest: float) -> Iterator[Point]:
    """Groups of four among the seven nearest."""
    for count in limited((1000, 10_000, 100_000, 1_000_000), largest):
        positions = np.random.default_rng(0).uniform(0, count**0.5, (count, 2))
        took = timed(lambda p=positions: group_positions(p, 2, 7), repeat=1 if count > 50_000 else 3)
        floor = timed(lambda p=positions: cKDTree(p).query(p, k=8, workers=-1), repeat=1)
        yield Point("group", "group", count, took, floor)


def reconstructed(largest: float) -> Iterator[Point]:
    """A network's patches for a field that grows with the scan, stitched."""
    name = next(each for each in ("pytorch", "tensorflow", "jax", "numpy") if each in available_backends())
    config, probe = ModelConfig(n_filters_scale=1, start_iterations=None), idealised_probe(64)[None]
    params = initial_parameters(config, probe, 1e6, seed=0)
    model = PtychoPINN(config, get_backend(name), intensity_scale(1e6, 64), 64, merge_window=merge_window(probe))
    for count in limited((128, 1024, 8192), largest):
        rng = np.random.default_rng(0)
        container = Container(
            X=rng.random((count, 64, 64, 1), np.float32),
            positions=rng.uniform(0, 8 * count**0.5, (count, 1, 2)),
            indices=np.arange(count)[:, None],
            amplitude_factor=1.0,
        )
        inference = Inference(model, container, model.backend.best_device())
        took = timed(lambda i=inference: i.stitched(params), repeat=2)
        lent = {key: model.backend.asarray(values) for key, values in params.items()}
        at_once = np.arange(min(inference.batch_size, count))
        batch = {k: model.backend.asarray(v) for k, v in make_batch(container, at_once).items()}
        floor = timed(lambda i=inference, w=lent, b=batch: model.backend.to_numpy(i.infer(w, b))) * count / len(at_once)
        yield Point(f"reconstruct by a network, {name}", "pattern", count, took, floor)


def stitched(largest: float) -> Iterator[Point]:
    """Patches of 64 x 64 onto a field that grows with them: all at once, and streamed."""
    for count in limited((128, 512, 2048, 8192), largest):
        rng = np.random.default_rng(0)
        side = 8 * count**0.5
        positions = rng.uniform(0, side, (count, 2))
        patches = rng.normal(size=(count, 64, 64, 2)).astype(np.float32).view(np.complex64)[..., 0]
        floor = timed(lambda p=patches: p.copy())
        offsets = positions[:, ::-1].reshape(count, 1, 2, 1)
        took = timed(lambda p=patches, o=offsets: reassemble_position(p[..., None], o, M=64))
        yield Point("reassemble_position, M = 64", "patch", count, took, floor)

        def stream(p: np.ndarray = patches, at: np.ndarray = positions) -> None:
            canvas = Canvas.covering(at, 64)
            for first in range(0, len(p), 64):
                canvas.add(p[first : first + 64], at[first : first + 64])
            canvas.result()

        yield Point("Canvas, 64 patches a time", "patch", count, timed(stream), floor)


def limited(counts: tuple[int, ...], largest: float) -> list[int]:
    """Rising counts, cut at the given part of the largest."""
    most = max(16, round(counts[-1] * largest))
    return sorted({min(count, most) for count in counts})


def timed(work: Callable[[], object], repeat: int = 3) -> float:
    """Least wall time of a few runs, after one that warms up where there are several."""
    times = []
    for _ in range(repeat + (repeat > 1)):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def table(points: list[Point]) -> str:
    """Markdown, a line a measurement."""
    lines = ["| work | number | seconds | microseconds each | floor, s | ratio |", "| --- " * 6 + "|"]
    lines += [
        f"| {p.row} | {p.size} | {p.seconds:.3g} | {p.seconds / p.size * 1e6:.3g} per {p.unit} | {p.floor:.3g} | "
        f"x {p.seconds / p.floor:.1f} |"
        for p in points
    ]
    return "\n".join(lines)


def plot(points: list[Point], path: str) -> None:
    """Seconds against number, both logarithmic: what is proportional has slope one. Beside it time against N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    by_number, by_side = figure.subplots(1, 2, width_ratios=(2, 1))
    sides = {}
    for row in dict.fromkeys(p.row for p in points):
        here = [p for p in points if p.row == row]
        if row.startswith("simulate"):
            sides[int(row.split()[-1])] = here[0].seconds / here[0].size
        if len(here) > 1:
            by_number.loglog([p.size for p in here], [p.seconds for p in here], "o-", label=row)
    by_number.set_xlabel("number of patterns, groups or patches")
    by_number.set_ylabel("seconds")
    by_number.legend(fontsize="small")
    pixels = np.asarray(sorted(sides), float) ** 2
    seconds = np.asarray([sides[side] for side in sorted(sides)])
    by_side.loglog(np.sqrt(pixels), seconds, "o-", label="simulate with photon noise")
    by_side.loglog(np.sqrt(pixels), seconds[0] * pixels / pixels[0], "k:", label="pixels")
    by_side.set_xticks(sorted(sides), [str(side) for side in sorted(sides)])
    by_side.minorticks_off()
    by_side.set_xlabel("N")
    by_side.set_ylabel("seconds per pattern of N x N")
    by_side.legend(fontsize="small")
    figure.savefig(path)


def main() -> None:
    """Measure everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1.0, help="part of the largest sizes")
    parser.add_argument("--plot", help="PNG to write")
    args = parser.parse_args()
    points = [point for rows in (simulated, grouped, reconstructed, stitched) for point in rows(args.largest)]
    print(table(points))
    if args.plot:
        plot(points, args.plot)


if __name__ == "__main__":
    main()
