"""Give hostile files of every format to the commands that read files, and count how each ends.

    python -m tests.safety.hostile --count 1000

makes the files from honest ones by a seeded generator, so that the same call makes the same files, and gives each to
the commands for its kind and to one more. A command must end with 0 or with one sentence and 2, within a time and a
memory, without running what a file holds and without reading a file outside of the folder. ``--write FILE`` replaces
the section of the counts in a page of the documentation; ``--only N`` repeats one file and shows what was printed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gc
import io
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptycho import cli
from tests.safety.mutations import Mutator, Outside

MOST_MEMORY = 10**9
"""Bytes that a command may hold at most, what it shares with this process included."""
_NEVER = 4 * 10**9
_SECONDS = 60
_MARKS = ("<!-- hostile files: begin -->", "<!-- hostile files: end -->")
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "socket.connect")
COMMANDS = {
    "scan": (["inspect", "FILE", "--out", "out"], ["convert", "FILE", "out/made.npz"]),
    "model": (["bundle", "info", "FILE"], ["bundle", "import", "FILE", "--out", "out/made"]),
    "result": (["view", "FILE"],),
    "config": (["inspect", "SCAN", "--out", "out", "--config", "FILE"],),
}
MORE = (
    ["inspect", "FILE", "--out", "out"],
    ["convert", "FILE", "out/more.h5"],
    ["convert", "FILE", "out/more.cxi", "--measurement", "counts"],
    ["bundle", "info", "FILE", "--json"],
    ["bundle", "import", "FILE", "--out", "out/more"],
    ["bundle", "import", "ARCHIVE", "--probe", "FILE", "--out", "out/more"],
    ["view", "FILE"],
    ["view", "RESULT", "--scan", "FILE"],
    ["convert", "SCAN", "out/more.npz", "--config", "FILE"],
)


class Ended(NamedTuple):
    """How a command ended."""

    words: list[str]
    code: int
    out: str
    err: str
    memory: int
    seconds: float


def make_samples(folder: Path) -> None:
    """Write one honest file for every format; those of a framework that is not installed are left out."""
    from tests.safety.samples import MODELS, RESULTS, SCANS

    kinds = {"scan": SCANS, "model": MODELS, "result": RESULTS}
    for kind, loaders in kinds.items():
        for name, loader in loaders.items():
            place = folder / kind / name.replace(" ", "_")
            place.mkdir(parents=True)
            with contextlib.suppress(ImportError):
                loader.make(place)
    (folder / "config" / "yaml").mkdir(parents=True)
    (folder / "config" / "yaml" / "settings.yaml").write_text("bin: 1\n")


def samples_in(folder: Path) -> list[tuple[str, str, Path]]:
    """Kind, format and path of every honest file."""
    found = []
    for place in sorted(folder.glob("*/*")):
        made = sorted(path for path in place.iterdir() if not path.name.startswith("."))
        main = [path for path in made if path.name in ("wts.h5.zip", "last.ckpt")] or made
        if main:
            found.append((place.parent.name, place.name, main[0]))
    return found


def in_child(words: list[str], home: Path) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.chdir(home.parent)
        for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, "r"), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding="utf-8")
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (_NEVER, _NEVER))

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event in FORBIDDEN:
                os.write(2, f"\nFORBIDDEN {event} {arguments!r:.200}\n".encode())

        sys.addaudithook(watch)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = cli.main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(words: list[str], home: Path) -> Ended:
    """Run a command in a process of its own; a page is ended as soon as it is served."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        in_child(words, home)
    printed, interrupted = home.parent / "stdout", False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        seconds = time.monotonic() - started
        if not interrupted and words[0] == "view" and printed.exists() and b"page http" in printed.read_bytes():
            time.sleep(0.2)
            os.kill(child, signal.SIGINT)
            interrupted = True
        if seconds > _SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    out, err = ((home.parent / name).read_bytes().decode("utf-8", "replace") for name in ("stdout", "stderr"))
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    code = os.waitstatus_to_exitcode(status)
    if interrupted and code == 130:  # it was interrupted between the first line and the wait
        code, err = 0, err.replace("ptycho: interrupted.\n", "")
    return Ended(words, code, out, err, memory, time.monotonic() - started)


def faults(ended: Ended, outside: Outside) -> list[str]:
    """What a command did that it may not do."""
    found = []
    sentences = [line for line in ended.err.splitlines() if line.startswith("ptycho: ")]
    if ended.code not in (0, 2):
        found.append(f"ended with {ended.code}")
    elif ended.code == 2 and (len(sentences) != 1 or not ended.err.rstrip("\n").endswith(sentences[0])):
        found.append("ended with 2 without one sentence")
    if "Traceback" in ended.err:
        found.append("printed a traceback")
    if "FORBIDDEN" in ended.err or outside.mark.exists():
        found.append("ran code")
        outside.mark.unlink(missing_ok=True)
    if read := outside.read():
        found.append(f"read {', '.join(read)} outside")
    if "the password" in ended.out + ended.err:
        found.append("printed what stands outside")
    if ended.memory > MOST_MEMORY:
        found.append(f"held {ended.memory / 1e9:.2f} GB")
    if re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ended.out + ended.err):
        found.append("printed control characters")
    return found


class Count(NamedTuple):
    """What one file led to."""

    number: int
    format: str
    change: str
    ends: list[Ended]
    faults: list[str]


def trial(number: int, seed: int, samples: list[tuple[str, str, Path]], folder: Path) -> Count:
    """Make one hostile file and give it to its commands."""
    rng = np.random.default_rng([seed, number])
    kind, format, sample = samples[number % len(samples)]
    home, others = folder / "home", {k.upper(): str(p) for k, _, p in samples if k in ("scan", "result")}
    others["ARCHIVE"] = str(next((p for _, f, p in samples if f.startswith("import")), sample))
    outside = Outside(folder)
    home.mkdir()
    path = home / sample.name
    (shutil.copytree if sample.is_dir() else shutil.copy)(sample, path)
    mutator, change, wrong = Mutator(rng, outside), "bytes", []
    try:
        change = mutator.mutate(path)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, RecursionError, AttributeError):
        if path.is_file():  # HDF5 itself refuses to write what was drawn
            shutil.copy(sample, path)
            path.write_bytes(mutator.damaged(path.read_bytes()))
    ends = []
    for words in [*COMMANDS[kind], MORE[int(rng.integers(len(MORE)))]]:
        (folder / "out").mkdir(exist_ok=True)
        outside.reset()
        ended = run([str(path) if word == "FILE" else others.get(word, word) for word in words], home)
        ends.append(ended)
        wrong += [f"{' '.join(words)}: {fault}" for fault in faults(ended, outside)]
        wrong += [f"{' '.join(words)}: wrote {name}" for name in _leaked(folder / "out")]
        shutil.rmtree(folder / "out", ignore_errors=True)
    return Count(number, format, change, ends, wrong)


def _leaked(folder: Path) -> Iterator[str]:
    """Files with the numbers or the words of those outside."""
    number = np.full(4, 7777, np.uint16).tobytes(), np.full(4, 7777.0).tobytes(), np.full(4, 7777.0, "f4").tobytes()
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 10**8:
            content = path.read_bytes()
            if b"the password" in content or any(part in content for part in number):
                yield path.name


def trials(numbers: Iterable[int], seed: int, honest: Path | None = None, jobs: int = 1) -> Iterator[Count]:
    """The trials of some numbers.

    Parameters
    ----------
    numbers, seed
        Of the files; the same make the same file.
    honest
        Folder of the honest files, which are made there if it does not exist; None makes them anew.
    jobs
        Processes that try files at the same time.
    """
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name).resolve()
        honest = honest or folder / "samples"
        if not honest.exists():
            make = f"from tests.safety.hostile import *; make_samples(Path({str(honest)!r}))"
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run([sys.executable, "-W", "ignore", "-c", make], check=True, env=environment)
        samples = samples_in(honest)
        _load()
        drawn = next(path for kind, _, path in samples if kind == "scan")
        with contextlib.redirect_stdout(io.StringIO()):  # the first figure of a process takes a second
            cli.main(["inspect", str(drawn), "--out", str(folder / "drawn")])
        gc.collect()
        gc.freeze()
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            yield from pool.imap(functools.partial(_tried, seed, samples, folder), numbers)


def _tried(seed: int, samples: list[tuple[str, str, Path]], folder: Path, number: int) -> Count:
    place = folder / f"trial{number}"
    place.mkdir()
    try:
        return trial(number, seed, samples, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _load() -> None:
    """Import what the commands import, so that a fork has it."""
    import importlib

    for name in ("cli.command", "cli.live_page", "data", "viewer", "workflows.inspect", "workflows.convert"):
        importlib.import_module(f"ptycho.{name}")
    for name in ("workflows.bundles", "workflows.results", "workflows.run", "evaluation.figures"):
        importlib.import_module(f"ptycho.{name}")
    for name in ("h5py", "hdf5plugin", "matplotlib.figure", "matplotlib.backends.backend_agg", "yaml", "zarr", "scipy"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def table(counts: list[Count], command: str) -> str:
    """The counts as a section of Markdown."""
    formats: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for count in counts:
        row = formats[count.format]
        row["files"] += 1
        row[count.change.partition(":")[0]] += 1
        for ended in count.ends:
            row["runs"] += 1
            row["read" if ended.code == 0 else "refused" if ended.code == 2 else "failed"] += 1
        row["faults"] += bool(count.faults)
    kinds = ("links", "sizes", "types", "nesting", "names", "values", "bytes")
    lines = [
        f"| format | files | commands | read, 0 | one sentence, 2 | another end | {' | '.join(kinds)} |",
        f"| --- |{' ---: |' * (5 + len(kinds))}",
    ]
    total: collections.Counter[str] = sum(formats.values(), collections.Counter())
    for name, row in [*sorted(formats.items()), ("all", total)]:
        numbers = [row[key] for key in ("files", "runs", "read", "refused", "failed", *kinds)]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    memory = max(ended.memory for count in counts for ended in count.ends)
    seconds = max(ended.seconds for count in counts for ended in count.ends)
    return "\n".join(
        [
            *(f"`{command}` made {total['files']} files and ran {total['runs']} commands.", ""),
            *lines,
            "",
            f"{total['faults']} files broke a rule: code ran, a file outside was read, or another end came. "
            f"The most memory that a command held was {memory / 1e6:.0f} MB, the most time {seconds:.0f} s.",
        ]
    )


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the trials; 1 if a file broke a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first file")
    parser.add_argument("--only", type=int, help="number of a single file, for which everything is shown")
    parser.add_argument("--honest", type=Path, help="folder of the honest files, made there if it does not exist")
    parser.add_argument("--write", type=Path, help="page of the documentation whose section is replaced")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    counts = []
    numbers = range(options.first, options.count) if options.only is None else [options.only]
    for count in trials(numbers, options.seed, options.honest, options.jobs):
        counts.append(count)
        if len(counts) % 50 == 0:
            say(f"{len(counts)} files")
        for fault in count.faults:
            say(f"{count.number} {count.format} ({count.change}): {fault}")
        if options.only is not None:
            for ended in count.ends:
                say(f"$ ptycho {' '.join(ended.words)}\n{ended.out}{ended.err}[{ended.code}]")
    section = table(counts, f"python -m tests.safety.hostile --count {options.count} --seed {options.seed}")
    say(section)
    if options.write is not None:
        before, _, rest = options.write.read_text().partition(_MARKS[0])
        after = rest.partition(_MARKS[1])[2]
        options.write.write_text(f"{before}{_MARKS[0]}\n{section}\n{_MARKS[1]}{after}")
    return int(any(count.faults for count in counts))


if __name__ == "__main__":
    sys.exit(main())
