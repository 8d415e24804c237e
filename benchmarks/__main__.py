"""Run the benchmarks one after the other and write what they print into one page.

    python -m benchmarks [--scan SCAN] [--only backends scaling ...] [--out benchmarks]
                         [--peer PYTHON --checkout FOLDER]

Writes RESULTS.md and its plots: the table of each script with the machine, the versions and the date. Every script also
runs by itself (``python -m benchmarks.backends --help``). Nothing else should run on the machine meanwhile; all takes
more than an hour on two cores. With ``--only`` the page keeps what it says of the others. With a scan file the
iterative engines are measured on it too, with an interpreter and a checkout PtychoPINN's own training beside ours
(benchmarks.training).
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ptycho.files import written_whole

ROOT = Path(__file__).parents[1]
_PACKAGES = ("ptychopinn", "numpy", "scipy", "torch", "tensorflow", "jax")


def scripts(out: Path, scan: str | None, pinn: list[str]) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Name, question, arguments and plots of every benchmark."""
    yield "startup", "How long until it answers?", [], []
    plot = "scaling.png"
    yield "scaling", "Does the cost grow in proportion to the work?", ["--plot", str(out / plot)], [plot]
    plot = "backends.png"
    yield "backends", "How far is each backend from its floor?", ["--plot", str(out / plot)], [plot]
    yield "training", "How long is an epoch of a training?", pinn, []
    engines = [] if scan is None else [scan]
    yield "engines", "How good is an iterative engine after how much work?", engines, []
    yield "peers", "How good are other programs on the same work?", engines, []
    yield "corrections", "What is left of wrong positions and of an unsteady beam?", [], []
    plot = "amortised.png"
    yield (
        "amortised",
        "Does a network pay before an iterative engine?",
        ["--small", *engines, "--plot", str(out / plot)],
        [plot],
    )
    yield "reference", "How good is the network on a part of the object that it never saw?", ["--epochs", "8"], []
    yield "reduction", "What does it cost to sum the canvases of many workers?", ["--real"], []
    yield "forecasts", "Is what is forecast what happens?", engines, []
    yield "memory", "Does a scan of 60 GB fit into two?", [], []


def machine() -> str:
    """What the figures depend on, in a line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores of {cpu}, {platform.system()}, Python "
        f"{platform.python_version()}, {', '.join(found)}"
    )


def sections(page: Path) -> dict[str, str]:
    """What a page that was written before says, by its headings."""
    if not page.is_file():
        return {}
    parts = page.read_text(encoding="utf-8").split("\n## ")[1:]
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def measured(name: str, words: list[str]) -> tuple[str, str]:
    """What a script prints, and a sentence if it ended badly; its progress is shown."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout.strip(), "" if done.returncode == 0 else f"It ended with exit code {done.returncode}."


def main() -> None:
    """Parse, run, write the page after every script, so that nothing measured is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", help="scan file for the iterative engines")
    parser.add_argument("--only", nargs="+", help="names of benchmarks")
    parser.add_argument("--peer", help="interpreter with what PtychoPINN needs")
    parser.add_argument("--checkout", help="folder of PtychoPINN's repository")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of RESULTS.md and its plots")
    args = parser.parse_args()
    if (args.peer is None) != (args.checkout is None):
        parser.error("--peer and --checkout belong together")
    pinn = [] if args.peer is None else ["--peer", args.peer, "--checkout", args.checkout]
    out = args.out.resolve()
    chosen = [each for each in scripts(out, args.scan, pinn) if args.only is None or each[0] in args.only]
    unknown = set(args.only or ()) - {name for name, *_ in chosen}
    if unknown:
        names = ", ".join(name for name, *_ in scripts(out, None, pinn))
        parser.error(f"--only: no benchmark {min(unknown)!r}; there are {names}")
    out.mkdir(parents=True, exist_ok=True)
    page = out / "RESULTS.md"
    kept, order = sections(page), [question for _, question, *_ in scripts(out, None, pinn)]
    for name, question, words, plots in chosen:
        print(f"benchmarks.{name} ...", flush=True)
        printed, trouble = measured(name, words)
        shown = printed if printed.startswith("|") else f"```\n{printed}\n```"
        lines = [f"`python -m benchmarks.{name}`, {machine()}", shown, *([trouble] if trouble else [])]
        lines += [f"![{question}]({plot})" for plot in plots if (out / plot).is_file()]
        kept[question] = "\n" + "\n\n".join(lines) + "\n"
        told = [f"## {question}\n{kept[question]}" for question in order if question in kept]
        with written_whole(page, overwrite=True) as stream:
            stream.write("\n".join(["# Measured\n\nWritten by `python -m benchmarks`.\n", *told]).encode())
    print(f"saved {out / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
