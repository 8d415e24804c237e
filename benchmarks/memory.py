"""Scans larger than the memory: train on all of one that is on no disk, reconstruct a region, and watch the memory.

    python -m benchmarks.memory [--gigabytes 60] [--N 64] [--step 1.5] [--region 500:590,500:590] [--epochs 2]

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


def main() -> None:
    """Parse, make the description of the scan, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=60.0)
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--step", type=float, default=1.5, help="pixels from one pattern to the next")
    parser.add_argument("--region", default="500:590,500:590", help="what is reconstructed, pixels")
    parser.add_argument("--epochs", default="2")
    parser.add_argument("--passes", default="10", help="estimate_passes")
    args = parser.parse_args()
    count = round(args.gigabytes * 1e9 / (2 * args.N**2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = folder / "readers" / "virtual-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: virtual\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[ptycho.readers]\nvirtual = benchmarks.virtual:VirtualReader\n")
        (folder / "big.virtual").write_text(json.dumps({"count": count, "N": args.N, "step": args.step}))
        print(f"{count} patterns of {args.N} x {args.N}, uint16, {args.gigabytes:g} GB, {args.step:g} pixels apart")
        print("| command | memory | forecast | CPU | wall | forecast |\n| --- | --- | --- | --- | --- | --- |")
        training = ["--n_filters_scale", "1", "--nepochs", args.epochs, "--estimate_passes", args.passes]
        for words in (
            ["train", "big.virtual", "--out", "model", *training],
            ["reconstruct", "big.virtual", "model", "--region", args.region, "--out", "part"],
        ):
            said, *_ = run(folder, *words, "--dry-run")
            _, peak, cpu, wall = run(folder, *words)
            memory, seconds = quantity(said, "memory"), quantity(said, "time")
            print(
                f"| {words[0]} | {peak / 1e9:.2f} GB | {memory / 1e9:.2f} GB | {cpu:.0f} s | {wall:.0f} s | "
                f"{seconds:.0f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
