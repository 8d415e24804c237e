"""The same work on every backend, with the least that it could cost beside it.

    python -m benchmarks.backends [--backends numpy pytorch tensorflow jax] [--repeat 5] [--scale 1.0]
                                  [--plot FILE.png] [--table FILE.md]

Each backend runs in a process of its own, one after the other, on the threads that the environment allows. Shown is the
median time of a call after two that compile and warm up, its CPU time over all threads, the time of the first call of
all, the floor in the same framework (the Fourier transforms alone, reading or copying the patches alone, the
convolutions alone), and the ratio to it; last, the memory of the process at its peak. ``--scale 0.05`` makes everything
smaller, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptycho.backends import Backend, available_backends, get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data.readers.limits import peak_memory, readable
from ptycho.model.batches import make_batch
from ptycho.model.network import apply_cnn
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics.fourier import fft2
from ptycho.physics.patches import accumulate_patches, extract_patches
from ptycho.physics.photons import intensity_scale
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import diffraction_intensity
from ptycho.physics.reassembly import group_canvas_size, reassemble

Work = tuple[str, Callable[[], Any], Callable[[], Any]]
Measured = dict[str, Any]

_FIELD = 600
_WARM = 2


def forward(backend: Backend, N: int, count: int) -> Work:
    """Illumination and far field of ``count`` patterns; the floor is their Fourier transform alone."""
    rng = np.random.default_rng(0)
    patches = backend.asarray(complex_normal(rng, (count, N, N)))
    probe = backend.asarray(idealised_probe(N)[None].astype(np.complex64))
    whole, transform = backend.jit(diffraction_intensity), backend.jit(fft2)
    return f"forward, {count} of {N} x {N}", lambda: whole(patches, probe), lambda: transform(patches)


def windows(backend: Backend, count: int) -> Iterator[Work]:
    """Patches out of a field, into it, and averaged on it; the floor copies or reads the patches once."""
    rng = np.random.default_rng(0)
    N, shape = 64, (_FIELD, _FIELD)
    places = rng.uniform(N // 2, _FIELD - N // 2 - 1, (count, 2)).astype(np.float32)
    positions = backend.asarray(places)
    image, patches = (backend.asarray(complex_normal(rng, s)) for s in (shape, (count, N, N)))
    xp = backend.xp
    copy, read = backend.jit(lambda a: a * 1.5), backend.jit(xp.sum)
    extract = backend.jit(lambda a, p: extract_patches(a, p, N))
    accumulate = backend.jit(lambda a, p: accumulate_patches(a, p, shape))
    average = backend.jit(lambda a, p: reassemble(a, p, shape=shape, origin=(0.0, 0.0)).object)
    size = f"{count} of {N} x {N} and {_FIELD} x {_FIELD}"
    yield f"extract, {size}", lambda: extract(image, positions), lambda: copy(patches)
    yield f"accumulate, {size}", lambda: accumulate(patches, positions), lambda: read(patches)
    yield f"reassemble, {size}", lambda: average(patches, positions), lambda: read(patches)
    if backend.name != "numpy":
        slope = backend.jit(backend.value_and_grad(lambda a, p: energy(xp, accumulate_patches(a, p, shape))))
        yield f"accumulate with gradient, {size}", lambda: slope(patches, positions)[1], lambda: copy(patches)


def network(backend: Backend, gridsize: int, groups: int) -> Iterator[Work]:
    """Inference, loss and gradient of the cnn at N = 64; the floor is the network alone."""
    config = ModelConfig(N=64, gridsize=gridsize, n_filters_scale=1)
    container = groups_of_noise(config, groups)
    host = make_batch(container, np.arange(groups))
    batch = {name: backend.asarray(values) for name, values in host.items()}
    probe = idealised_probe(64)[None]
    params = {k: backend.asarray(v) for k, v in initial_parameters(config, probe, 1e6, seed=0).items()}
    side = group_canvas_size(container.relative, 64, gridsize)
    model = PtychoPINN(config, backend, intensity_scale(1e6, 64), side, merge_window=merge_window(probe))
    seen = backend.asarray(np.random.default_rng(1).normal(size=(groups, 64, 64, 4 * gridsize**2)).astype(np.float32))

    def heads(weights: dict[str, Any], x: Any) -> Any:
        return backend.xp.concat(apply_cnn(weights, x, backend, "correction", "correction", "correction"), axis=-1)

    infer, bare = backend.jit(model.patches), backend.jit(heads)
    size = f"{groups} groups, gridsize {gridsize}"
    yield f"inference, {size}", lambda: infer(params, batch), lambda: bare(params, seen)
    if backend.name == "numpy":
        return
    weights = {k: v for k, v in params.items() if "/" in k and not k.startswith("probe/")}
    rest = {k: v for k, v in params.items() if k not in weights}
    training = TrainingConfig(model=config)
    loss = backend.jit(backend.value_and_grad(lambda w: model.loss({**w, **rest}, batch, training)[0]))
    slope = backend.jit(backend.value_and_grad(lambda w: backend.xp.sum(heads(w, seen) ** 2)))
    yield f"loss and gradient, {size}", lambda: loss(weights)[0], lambda: slope(weights)[0]


def energy(xp: Any, values: Any) -> Any:
    """Sum of squares, real."""
    real, imaginary = xp.real(values), xp.imag(values)
    return xp.sum(real * real + imaginary * imaginary)


def groups_of_noise(config: ModelConfig, groups: int) -> Any:
    """A container of random patterns with an estimate, for timing alone."""
    from ptycho.data import Container
    from ptycho.workflows.estimate import Estimate

    rng = np.random.default_rng(0)
    channels = config.gridsize**2
    centres = rng.uniform(80, 200, (groups, 1, 2))
    container = Container(
        X=np.abs(rng.normal(size=(groups, 64, 64, channels))).astype(np.float32),
        positions=centres + rng.uniform(-4, 4, (groups, channels, 2)),
        indices=np.arange(groups * channels).reshape(groups, channels),
        amplitude_factor=1.0,
    )
    flat = np.ones((300, 300), np.complex64)
    container.estimate = Estimate(flat, flat.real, (0.0, 0.0), idealised_probe(64)[None].astype(np.complex64))
    return container


def complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Complex64 noise."""
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def everything(backend: Backend, scale: float) -> Iterator[Work]:
    """All work of the table; each piece is made when it is asked for, so that its memory is free again after."""
    patterns, patches = max(4, round(2048 * scale)), max(4, round(4096 * scale))
    yield forward(backend, 64, patterns)
    yield forward(backend, 128, patterns)
    yield from windows(backend, patches)
    for gridsize in (1, 2):
        yield from network(backend, gridsize, 16)


class Cost(NamedTuple):
    """Seconds of a call: the median of wall and of CPU time once it is warm, and the first one of all."""

    wall: float
    cpu: float
    first: float


def cost(backend: Backend, call: Callable[[], Any], repeat: int) -> Cost:
    """What a call takes, until its result is there."""
    wall, cpu = [], []
    for _ in range(_WARM + repeat):
        began, worked = time.perf_counter(), time.process_time()
        result = call()
        first = next(iter(result.values())) if isinstance(result, dict) else result
        backend.to_numpy(first[0, ...] if first.ndim else first)  # waits for what was started
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
    return Cost(statistics.median(wall[_WARM:]), statistics.median(cpu[_WARM:]), wall[0])


def measure(name: str, repeat: int, scale: float) -> Measured:
    """The cost of the work and of its floor, by the name of the work, and the memory at the peak."""
    backend = get_backend(name)
    costs = {
        title: (cost(backend, work, repeat), cost(backend, floor, repeat))
        for title, work, floor in everything(backend, scale)
    }
    return {"costs": costs, "memory": peak_memory()}


def all_titles(found: dict[str, Measured]) -> list[str]:
    """Every piece of work, in the order of the backend that does the most."""
    longest = sorted((each["costs"] for each in found.values()), key=len, reverse=True)
    return list(dict.fromkeys(title for rows in longest for title in rows))


def table(found: dict[str, Measured]) -> str:
    """Markdown: a row a piece of work, a column a backend; milliseconds, floor, ratio."""
    titles = all_titles(found)
    lines = ["| work | " + " | ".join(found) + " |", "| --- " * (len(found) + 1) + "|"]
    for title in titles:
        cells = []
        for each in found.values():
            if title not in each["costs"]:
                cells.append("-")
                continue
            work, floor = (Cost(*values) for values in each["costs"][title])
            cells.append(
                f"{work.wall * 1e3:.3g} ms (CPU {work.cpu * 1e3:.3g}, first {work.first * 1e3:.3g}; "
                f"floor {floor.wall * 1e3:.3g}, x {work.wall / floor.wall:.1f})"
            )
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines.append("| memory | " + " | ".join(readable(each["memory"]) for each in found.values()) + " |")
    return "\n".join(lines)


def plot(found: dict[str, Measured], path: str) -> None:
    """Bars of the time by work and backend, the floor as a line across each."""
    from matplotlib.figure import Figure

    titles = all_titles(found)
    figure = Figure(figsize=(9, 0.9 * len(titles) + 1), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(found)
    for i, (name, each) in enumerate(found.items()):
        rows = {title: [Cost(*values).wall for values in pair] for title, pair in each["costs"].items()}
        at = [k + i * height for k, title in enumerate(titles) if title in rows]
        axes.barh(at, [rows[t][0] * 1e3 for t in titles if t in rows], height * 0.9, label=name)
        for y, title in zip(at, (t for t in titles if t in rows), strict=True):
            axes.plot([rows[title][1] * 1e3] * 2, [y - height / 2, y + height / 2], color="black", linewidth=1.5)
    axes.set_yticks([k + 0.4 - height / 2 for k in range(len(titles))], titles)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (black: floor in the same framework)")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure each backend in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=available_backends())
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the work")
    parser.add_argument("--plot", help="PNG to write")
    parser.add_argument("--table", help="Markdown file to write")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_this_process:
        print(json.dumps(measure(args.backends[0], args.repeat, args.scale)))
        return
    found: dict[str, Measured] = {}
    for name in args.backends:
        words = ["--backends", name, "--repeat", str(args.repeat), "--scale", str(args.scale), "--in-this-process"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.backends", *words], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            print(f"{name}: not measured", file=sys.stderr)
            continue
        found[name] = json.loads(done.stdout.splitlines()[-1])
    print(table(found))
    if args.table:
        Path(args.table).write_text(table(found) + "\n", encoding="utf-8")
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
