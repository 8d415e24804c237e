"""What the parts of the test suite cost: each in a process of its own, with its time and its peak memory.

``python tools/test_costs.py tests/physics tests/data`` prints a row for each path, by default for each folder and file
in ``tests/``; words that start with a dash go to pytest: ``python tools/test_costs.py tests/physics -k numpy``. The CPU
seconds include those of processes that tests start; the peak is that of the largest single process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def cost(path: str, words: list[str]) -> str:
    """A row of the table: tests, seconds, CPU seconds, MiB."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--numprocesses", "0", path, *words]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = process.stdout.read().strip().splitlines()[-1:] or ["no output"]
    _, _, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    summary = last[0].partition(" in ")[0]
    return f"| {path} | {summary} | {wall:.0f} | {used.ru_utime + used.ru_stime:.0f} | {used.ru_maxrss / 1024:.0f} |"


def main(words: list[str]) -> None:
    """Print the table."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    found = [p for p in sorted((ROOT / "tests").iterdir()) if p.is_dir() or p.name.startswith("test_")]
    paths = words[:first] or [p.relative_to(ROOT).as_posix() for p in found if p.name != "__pycache__"]
    print("| part | tests | s | CPU s | peak, MiB |\n| --- | --- | --- | --- | --- |")
    for path in paths:
        print(cost(path, words[first:]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
