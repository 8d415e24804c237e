"""Scans larger than the memory: train on one that is on no disk, reconstruct all or a part, and watch the memory.

    python -m benchmarks.memory [--gigabytes 60] [--N 64] [--step 1.5] [--region 500:590,500:590] [--epochs 2]
    python -m benchmarks.memory --whole [--gigabytes 60] [--N 64] [--frame 512] [--step 6] [--epochs 2]
    python -m benchmarks.memory --whole --gigabytes 3 --frame 256 --store zarr    the same from disk; or h5

The first scan has patterns as small as the network's, of which a region is reconstructed; the second one has frames of
a detector, which are binned while they are read, and all of it is reconstructed.

The patterns are computed when they are read (benchmarks/virtual.py), through the entry point by which any reader is
found. Prints one line per command: memory at the peak (framework and all), CPU and wall seconds, and beside them what
`--dry-run` said before; the reading includes the simulation of what is read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def run(folder: Path, *words: str) -> tuple[str, float, float, float]:
    """Run `ptycho WORDS...`: its output, bytes at the peak, CPU and wall seconds."""
    path = os.pathsep.join([str(folder / "readers"), str(ROOT), str(ROOT / "shims"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "ptycho", *words, "--quiet"]
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, stdout=out, env={**os.environ, "PYTHONPATH": path})
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        out.seek(0)
        text = out.read()
    if child.returncode:
        raise SystemExit(f"ptycho {' '.join(words)} ended with {child.returncode}")
    return text, used.ru_maxrss * 1024.0, used.ru_utime + used.ru_stime, wall


def quantity(text: str, name: str) -> float:
    """A forecast in bytes or seconds, from the line that begins with its name."""
    found = next(line for line in text.splitlines() if line.startswith(f"{name} ")).split(":")[0]
    return sum(float(value) * _UNITS[unit] for value, unit in re.findall(r"([\d.]+) (GB|MB|kB|min|s|h)\b", found))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file())


def register(folder: Path) -> None:
    """Make the reader of virtual scans known to Pythons that have the folder's `readers` in their path."""
    info = folder / "readers" / "virtual-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: virtual\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ptycho.readers]\nvirtual = benchmarks.virtual:VirtualReader\n")


def measure(folder: Path, commands: Iterable[list[str]]) -> None:
    """Forecast and run one command after the other, and print a line for each."""
    print("| command | memory | forecast | CPU | wall | forecast | R-factor |\n" + "| --- " * 7 + "|")
    for words in commands:
        said, *_ = run(folder, *words, "--dry-run")
        done, peak, cpu, wall = run(folder, *words)
        memory, seconds = quantity(said, "memory"), quantity(said, "time")
        figure = re.search(r"^R-factor ([\d.]+)$", done, re.MULTILINE)
        print(
            f"| {words[0]} | {peak / 1e9:.2f} GB | {memory / 1e9:.2f} GB | {cpu:.0f} s | {wall:.0f} s | "
            f"{seconds:.0f} s | {figure[1] if figure else ''} |",
            flush=True,
        )


def main() -> None:
    """Parse, make the description of the scan, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=60.0)
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument(
        "--step", type=float, help="pixels from one pattern to the next; default 1.5, of a whole scan 6"
    )
    parser.add_argument("--region", default="500:590,500:590", help="what is reconstructed, pixels")
    parser.add_argument("--whole", action="store_true", help="frames larger than N, all of them reconstructed")
    parser.add_argument("--frame", type=int, default=512, help="of a whole scan: side of what the detector counted")
    parser.add_argument("--store", help="write the scan to disk first, with this ending: zarr, h5")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--passes", help="start_iterations; default 10, of a whole scan 3")
    parser.add_argument("--folder", type=Path, help="keep what is made here; default nothing is kept")
    args = parser.parse_args()
    side = args.frame if args.whole else args.N
    count = round(args.gigabytes * 1e9 / (2 * side**2))
    step, passes = args.step or (6 if args.whole else 1.5), args.passes or ("3" if args.whole else "10")
    scan = {"count": count, "N": args.N, "step": step} | ({"frame": side} if args.whole else {})
    training = ["--n_filters_scale", "1", "--nepochs", args.epochs, "--start_iterations", passes]
    commands = [
        ["train", "big.virtual", "--out", "model", *training],
        ["reconstruct", "big.virtual", "model", "--region", args.region, "--out", "part"],
    ]
    if args.whole:
        small = ["--bin", str(side // args.N)]
        commands = [["run", "big.virtual", "--out", "whole", *small, *training, "--frc", "false"]]
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        register(folder)
        (folder / "big.virtual").write_text(json.dumps(scan))
        print(f"{count} frames of {side} x {side}, uint16, {args.gigabytes:g} GB, {step:g} pixels apart")
        if args.store:
            written = f"big.{args.store}"
            _, peak, cpu, _ = run(folder, "convert", "big.virtual", written, "--pixel_size", "1e-8")
            print(f"written as {written}, {size_of(folder / written) / 1e9:.2f} GB: {peak / 1e9:.2f} GB, {cpu:.0f} s")
            commands = [[written if word == "big.virtual" else word for word in words] for words in commands]
        measure(folder, commands)


if __name__ == "__main__":
    main()
