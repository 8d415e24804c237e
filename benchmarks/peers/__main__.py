"""The same work here and in other programs of the field: quality by one evaluator, CPU seconds on one core, memory.

    python -m benchmarks.peers --install                   # an environment for each peer, one after the other
    python -m benchmarks.peers [SCAN] [--epochs 30] [--only ptycho phaser ...] [--pictures FOLDER]

Every program gets the patterns, the positions, the same starting probe and a flat object, in a process of its own on
one core, with the settings that its adapter names (benchmarks/peers/adapters). What it makes is judged by the R-factor
of this library, which reads the object bilinearly between its pixels; beside it stands the R-factor with the program's
own way of reading it. CPU seconds of an epoch are the median after the first, which compiles; in all means everything
but the imports. The floor is a Fourier transform forth and back of every pattern, and the R-factor of the truth. A
program that is not installed, or fails, is a row that says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import ptycho
from benchmarks.peers.environments import FOLDER, PEERS, install
from benchmarks.peers.work import Work, judged, measured_work, simulated_work

ROOT = Path(__file__).parents[2]
RUNS = (
    ("ptycho", "rpie"),
    ("ptycho", "epie"),
    ("phaser", "epie"),
    ("ptychi", "rpie"),
    ("ptychi", "autodiff"),
    ("ptyrad", "adam"),
    ("ptylab", "epie"),
    ("cdtools", "adam"),
)
"""Program and algorithm; the first is what the others are compared with."""
_PATIENCE = 1800.0
_ALONE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "Agg",
}


class PeerError(Exception):
    """A program did not come to its end; says why."""


def reconstructed(work: Work, python: Path, name: str, algorithm: str, epochs: int) -> dict[str, Any]:
    """What a program makes of the work, in a process of its own.

    Raises
    ------
    PeerError
        It is not installed, ended badly, or took too long.
    """
    if not python.is_file():
        raise PeerError("not installed")
    adapter = Path(__file__).parent / "adapters" / f"with_{name}.py"
    ours = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "shims")))} if name == "ptycho" else {}
    there = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | _ALONE | ours
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        work.write(given, epochs, 0, algorithm)
        words = [str(python), str(adapter), str(given), str(made)]
        try:
            done = subprocess.run(
                words,
                cwd=folder,
                env=there,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"stopped after {_PATIENCE:g} s") from None
        if done.returncode or not made.is_file():
            said = done.stderr.strip().splitlines()
            raise PeerError(said[-1] if said else f"ended with exit code {done.returncode}")
        with np.load(made, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}


def floor(work: Work) -> tuple[float, float]:
    """CPU seconds of a Fourier transform forth and back of every pattern, and the truth's R-factor (NaN without)."""
    from scipy import fft

    waves = np.ones((len(work.scan), work.scan.N, work.scan.N), np.complex64)
    spent = []
    for _ in range(5):
        began = time.process_time()
        fft.ifft2(fft.fft2(waves, workers=1), workers=1)
        spent.append(time.process_time() - began)
    if work.truth is None:
        return float(np.median(spent)), float("nan")
    exact = {"object": work.truth.object, "probe": work.truth.probe, "origin": work.truth.object_origin}
    return float(np.median(spent)), judged(work, exact | {"between": "bilinear"})["r"]


def row(work: Work, label: str, answer: dict[str, Any], least: float, reference: float | None) -> tuple[str, float]:
    """A line of the table, and the CPU seconds in all."""
    found = judged(work, answer)
    epoch = float(np.median(answer["epochs"])) if answer["epochs"].size else float(answer["first"])
    whole = float(answer["first"] + answer["epochs"].sum())
    errors = f" {found['phase']:.3f} | {found['frc']:.3f} |" if work.truth is not None else ""
    ratio = whole / (reference or whole)
    times = f"{answer['started']:.1f} | {epoch:.2f} | {epoch / least:.1f} | {whole:.1f} | {ratio:.1f}"
    return f"| {label} | {found['r']:.3f} | {found['own']:.3f} |{errors} {times} | {answer['peak']:.0f} |", whole


def table(work: Work, folder: Path, only: list[str] | None, epochs: int, pictures: Path | None) -> None:
    """Print the rows of one piece of work."""
    errors = " phase RMSE, rad | mean FRC |" if work.truth is not None else ""
    costs = "imports, CPU s | CPU s per epoch | x floor | CPU s in all | x ours | MiB |"
    head = f"| {work.title}, {epochs} epochs | R | R, own reading |{errors} {costs}"
    print(f"{head}\n{'| --- ' * (head.count('|') - 1)}|")
    least, exact = floor(work)
    nothing = " - | - |" if work.truth is not None else ""
    print(f"| floor | {'-' if np.isnan(exact) else f'{exact:.3f}'} | - |{nothing} - | {least:.3f} | 1 | - | - | - |")
    reference = None
    for name, algorithm in RUNS:
        if only is not None and name not in only:
            continue
        peer = next((peer for peer in PEERS if peer.name == name), None)
        python = Path(sys.executable) if peer is None else peer.python(folder)
        told = ptycho.__version__ if peer is None else peer.version(folder)
        label = f"{name if peer is None else peer.distribution} {told or ''} `{algorithm}`".replace("  ", " ")
        try:
            answer = reconstructed(work, python, name, algorithm, epochs)
        except PeerError as reason:
            print(f"| {label}: {reason} |{' - |' * (head.count('|') - 2)}", flush=True)
            continue
        line, whole = row(work, label, answer, least, reference)
        reference = reference or whole
        print(line, flush=True)
        if pictures is not None:
            draw(answer, pictures / f"{name}-{algorithm}-{work.title.split(',')[0]}.png")


def draw(answer: dict[str, Any], path: Path) -> None:
    """Amplitude and phase of an object, and the size of the first mode of its probe."""
    from matplotlib.figure import Figure

    image = answer["object"]
    phase = np.angle(image * np.exp(-1j * np.angle(image.mean())))
    figure = Figure(figsize=(12, 4), layout="constrained")
    for number, values in enumerate((np.abs(image), phase, np.abs(answer["probe"][0])), 1):
        axes = figure.add_subplot(1, 3, number)
        axes.imshow(values, cmap="gray", vmin=np.quantile(values, 0.02), vmax=np.quantile(values, 0.98))
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Install, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, help="a measured scan; only the simulated scene without one")
    parser.add_argument("--install", action="store_true", help="make the environments that are missing, and end")
    parser.add_argument("--where", type=Path, default=FOLDER, help="folder of the environments")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(dict(RUNS))}")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--measured-only", action="store_true")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each result")
    args = parser.parse_args()
    unknown = set(args.only or ()) - set(dict(RUNS))
    if unknown:
        parser.error(f"--only: no program {min(unknown)!r}; there are {', '.join(dict(RUNS))}")
    chosen = [peer for peer in PEERS if args.only is None or peer.name in args.only]
    if args.install:
        for peer in chosen:
            trouble = "" if peer.version(args.where) else install(peer, args.where)
            print(f"{peer.distribution}: {trouble or peer.version(args.where)}", flush=True)
        return
    if args.only is None and not any(peer.version(args.where) for peer in PEERS):
        print("No peer is installed; `python -m benchmarks.peers --install` makes an environment for each.")
        return
    work = [] if args.scan is None else [measured_work(args.scan)]
    for number, each in enumerate(work if args.measured_only else [*work, simulated_work()]):
        if number:
            print()
        table(each, args.where, args.only, args.epochs, args.pictures)


if __name__ == "__main__":
    main()
