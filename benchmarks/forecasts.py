"""Is what `--dry-run` says beforehand what happens? The real command, forecast and run, one after the other.

    OMP_NUM_THREADS=1 python -m benchmarks.forecasts [SCAN] [--size 212] [--epochs 3]

On a simulated scan with every backend that is installed, and on a measured one. Prints seconds and gigabytes of memory
at the peak, each beside its forecast.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory import quantity, run
from ptycho.backends import available_backends


def commands(scan: Path | None, epochs: int) -> Iterator[tuple[str, list[str]]]:
    """What a command is called and its words; a run leaves the model for the reconstruction after it."""
    small = ["--n_filters_scale", "1"]
    backends = [name for name in available_backends() if name != "numpy"]
    for name in backends:
        words = ["run", "sim/scan.npz", "--out", name, "--backend", name, "--nepochs", str(epochs), *small]
        yield f"`run`, simulated, {epochs} epochs, {name}", words
    for name in backends:
        words = ["train", "sim/scan.npz", "--out", f"{name}-model", "--backend", name, "--nepochs", str(epochs), *small]
        yield f"`train`, the same, {name}", words
        yield f"`reconstruct`, the same, {name}", ["reconstruct", "sim/scan.npz", name, "--out", f"{name}-again"]
    if scan is not None:
        yield "`run`, measured, 5 epochs", ["run", str(scan), "--out", "measured", "--nepochs", "5", *small]


def main() -> None:
    """Parse, simulate, forecast, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, help="a measured scan")
    parser.add_argument("--size", default=212, type=int, help="side of the simulated object in pixels")
    parser.add_argument("--epochs", default=3, type=int)
    args = parser.parse_args()
    scan = None if args.scan is None else args.scan.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raster = ["--size", str(args.size), "--N", "64", "--positions", "raster", "--step", "6", "--nphotons", "1e5"]
        run(folder, "simulate", *raster, "--out", "sim")
        print("| command | s | forecast | ratio | memory, GB | forecast | ratio |\n" + "| --- " * 7 + "|")
        for label, words in commands(scan, args.epochs):
            said, *_ = run(folder, *words, "--dry-run")
            _, peak, _, wall = run(folder, *words)
            seconds, memory = quantity(said, "time"), quantity(said, "memory")
            print(
                f"| {label} | {wall:.0f} | {seconds:.0f} | {seconds / wall:.2f} | {peak / 1e9:.2f} | "
                f"{memory / 1e9:.2f} | {memory / peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
