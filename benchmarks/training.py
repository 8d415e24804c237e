"""An epoch of a training on every backend, in both precisions, and of PtychoPINN itself where it is at hand.

    python -m benchmarks.training [--backends pytorch tensorflow jax] [--groups 512] [--epochs 4]
                                  [--peer PYTHON --checkout FOLDER]

The cnn at N = 64 and n_filters_scale 1 on groups of 2 x 2 neighbours, 16 at a time, from a simulated scan. Shown is the
median epoch after the first, which compiles. PYTHON is an interpreter that has what PtychoPINN needs, FOLDER a checkout
of it; its epoch goes without the twentieth of the groups that it holds back. The floor is the arithmetic of the
convolutions, forward and backward, at the rate of a large matrix product in PyTorch on the same threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.backends import groups_of_noise
from ptycho.backends import available_backends
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import load_scan, save_npz
from ptycho.model.network import cnn_shapes
from ptycho.physics import idealised_probe, picture_object, raster_positions, simulate

ROOT = Path(__file__).parents[1]
_N, _SIDE, _BATCH = 64, 260, 16
Epochs = list[tuple[float, float]]


def config(backend: str, precision: str, groups: int, epochs: int) -> TrainingConfig:
    """The training that is timed."""
    model = ModelConfig(N=_N, gridsize=2, n_filters_scale=1)
    return TrainingConfig(
        model=model, backend=backend, precision=precision, nepochs=epochs, n_groups=groups, batch_size=_BATCH
    )


def epochs_of(path: str, settings: TrainingConfig) -> Epochs:
    """Wall and CPU seconds of every epoch of a training on a scan file."""
    from ptycho.workflows.train import train

    marks = [(time.perf_counter(), time.process_time())]
    with tempfile.TemporaryDirectory() as folder:
        train(load_scan(path), settings, [lambda *_: marks.append((time.perf_counter(), time.process_time()))], folder)
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(marks)]


def convolutions(groups: int) -> float:
    """Floating-point operations of the cnn's convolutions for that many groups, forward and backward."""
    channels = groups_of_noise(config("pytorch", "32", 1, 1).model, 1).X.shape[-1]
    shapes = cnn_shapes(_N, 1, 4 * channels, channels, pad_object=True, probe_big=True)
    total = 0
    for name, shape in shapes.items():
        if name.endswith("/kernel"):
            part, _, layer = name.partition("/")
            if part == "encoder":
                side = _N >> int(layer[5])
            elif layer.startswith("block"):
                side = 8 << int(layer[5])
            else:
                side = _N if layer.startswith("border") else _N // 2
            total += 2 * side**2 * int(np.prod(shape))
    return 3.0 * total * groups


def rate() -> float:
    """Floating-point operations per second of a large product of matrices."""
    import torch

    a = torch.rand(2048, 2048)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(times)


def run(words: list[str], folder: Path | None = None) -> Epochs | None:
    """Seconds that a process prints; None where it fails, with its last line on the error stream."""
    environment = {**os.environ, **({} if folder is None else {"PYTHONPATH": str(folder)})}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(words[:3])}: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
        return None
    found: Epochs = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Time everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=[name for name in available_backends() if name != "numpy"])
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--peer", help="interpreter with what PtychoPINN needs")
    parser.add_argument("--checkout", type=Path, help="folder of PtychoPINN")
    parser.add_argument("--one", nargs=3, metavar=("SCAN", "BACKEND", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(epochs_of(args.one[0], config(*args.one[1:], args.groups, args.epochs))))
        return
    sizes = ["--groups", str(args.groups), "--epochs", str(args.epochs)]
    rng = np.random.default_rng(0)
    picture = picture_object("camera", (_SIDE, _SIDE), (0.6, 1.0), (-1.0, 1.0), phase_image="coins")
    positions = raster_positions((_SIDE, _SIDE), _N, 8.0, jitter=1.0, rng=rng)
    floor = convolutions(args.groups) / rate()
    print("| training | epoch, s | CPU s | to the floor | to PtychoPINN |\n| --- | --- | --- | --- | --- |")
    print(f"| floor: the convolutions in float32 | {floor:.2f} | | | |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.npz"
        save_npz(simulate(picture, idealised_probe(_N), positions, 1e6, rng), path)
        peer = None
        if args.peer:
            script = str(Path(__file__).with_name("training_peer.py"))
            peer = run([args.peer, script, str(path), str(args.groups), str(args.epochs)], args.checkout)
        works = [("PtychoPINN, TensorFlow", peer)] if peer else []
        for backend in args.backends:
            for precision in ("32", "bf16"):
                words = [sys.executable, "-m", "benchmarks.training", "--one", str(path), backend, precision, *sizes]
                works.append((f"{backend}, {precision}", run(words)))
    theirs = statistics.median(wall for wall, _ in peer[1:]) if peer else None
    for name, found in works:
        if not found:
            print(f"| {name} | failed | | | |")
            continue
        wall, cpu = (statistics.median(values) for values in zip(*found[1:], strict=True))
        ratio = f"{theirs / wall:.2f} x faster" if theirs else ""
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | x {wall / floor:.1f} | {ratio} |")


if __name__ == "__main__":
    main()
