"""How long until the library and its command answer, beside an interpreter that does nothing.

python -m benchmarks.startup [--repeat 9]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

WORK = {
    "python, nothing": ["-c", "pass"],
    "import ptycho": ["-c", "import ptycho"],
    "ptycho --help": ["-m", "ptycho", "--help"],
    "ptycho run --help": ["-m", "ptycho", "run", "--help"],
}


def seconds(words: list[str], repeat: int) -> float:
    """Median wall time of a process, the files in the system's cache."""
    times = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9)
    args = parser.parse_args()
    print("| start | seconds |\n| --- | --- |")
    for name, words in WORK.items():
        print(f"| {name} | {seconds(words, args.repeat):.3f} |")


if __name__ == "__main__":
    main()
