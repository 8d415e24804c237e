"""Kill every writing command at random moments and count what is left: `python -m tests.safety.kill_counts [N]`.

Each command replaces an earlier result with ``--force``. It is killed N times (25 unless given) at a random moment of
its work; then every file must be the old one or the new one, whole, and after the next run nothing else may be there.
What takes long and writes nothing (training, drawing) is left out. The counts are written to docs/safety.md.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ptycho.files import RECORD
from tests.safety import kills

PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
BEGIN, END = "<!-- kills: begin -->", "<!-- kills: end -->"
_PNG = b"\x89PNG Software\0ptychopinn inspect "


class Rehearsal:
    """A folder with the inputs of all commands; what they write differs from one number to the next."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 1

    def stub(self) -> None:
        """Replace what takes long and writes nothing."""
        import numpy as np

        import ptycho.cli.progress_bars  # noqa: F401  imported once, before the forks
        import ptycho.evaluation.figures as figures
        import ptycho.workflows.bundles as bundles
        import ptycho.workflows.doctor_picture as doctor_picture
        import ptycho.workflows.inspect as inspecting
        import ptycho.workflows.report as report
        import ptycho.workflows.run as running
        from ptycho import backends
        from ptycho.model import bundle as models
        from ptycho.workflows.output_folder import write_bytes
        from ptycho.workflows.reconstruction import Reconstruction
        from tests.safety.samples import write_bundle

        backends.get_trainer = lambda name: None  # nothing is trained, and no framework is imported
        model = models.load_bundle(write_bundle(self.folder))
        models.zipfile.ZipFile.writestr = kills._without_a_clock(models.zipfile.ZipFile.writestr)

        def drawn(*_: Any, **__: Any) -> bytes:
            return _PNG + str(self.number).encode()

        def picture(scan: Any, found: Any, path: Path, *, overwrite: bool = False) -> None:
            write_bytes(drawn(), path, overwrite=overwrite)

        inspecting.draw_inspection = doctor_picture.draw_diagnosis = picture
        figures.comparison_figure = figures.frc_figure = lambda *_: None
        figures.png_bytes = drawn
        report.draw_pictures = lambda result: dict.fromkeys(("amplitude", "phase", "complex", "probe"), drawn())
        report.report_html = lambda result, pictures: f"<p>{self.number}</p>"
        bundles._exporter = lambda name: lambda *_: drawn() * 1000

        def trained(*_: Any, **__: Any) -> Any:
            model.group_canvas_side = 100 + self.number
            return model

        def result(*_: Any, **__: Any) -> Any:
            image = np.full((20, 20), self.number + 0j)
            return Reconstruction(image, np.ones((20, 20)), (0, 0), np.ones((4, 2)), np.ones((1, 8, 8)))

        running.train_scan = trained
        running.reconstruct_scan = result
        running.run_scan = lambda *_, on_trained, **__: (result(), on_trained(trained()))
        bundles.import_bundle = trained

    def inputs(self) -> None:
        """Scans, a model and a result to read."""
        from ptycho.data import save_npz
        from tests.support import simulated_scan

        for number in (1, 2):
            save_npz(simulated_scan(M=12, N=64, seed=number), self.folder / f"scan{number}.npz")
        act = kills.command(*self._words("reconstruct --engine", "result", 1))
        act_in_fork(act)

    def _words(self, name: str, out: str, number: int) -> list[str]:
        folder = str(self.folder)
        scan, place = f"{folder}/scan{number}.npz", ["--out", f"{folder}/{out}", "--force"]
        train = ["--nepochs", "1", *place]
        engine = ["--engine", "epie", "--epochs", str(number)]
        export = ["--out", f"{folder}/{out}/model.pt2", "--force"]
        size = ["--size", "96", "--N", "64", "--n_positions", str(3 + number)]
        return {
            "simulate": ["simulate", *size, *place],
            "inspect": ["inspect", scan.replace(f"scan{number}", "scan1"), "--out", f"{folder}/{out}"],
            "doctor": ["doctor", scan, "--orientations", "false", *place],
            "convert .npz": ["convert", scan, f"{folder}/{out}/x.npz", "--force"],
            "convert .cxi": ["convert", scan, f"{folder}/{out}/x.cxi", "--force"],
            "convert .zarr": ["convert", scan, f"{folder}/{out}/x.zarr", "--force"],
            "train": ["train", scan, *train],
            "pretrain": ["pretrain", scan, "--n_groups", "16", "--n_objects", "1", *train],
            "run": ["run", scan, *train],
            "demo": ["demo", *size, *train],
            "reconstruct": ["reconstruct", scan, f"{folder}/wts.h5.zip", *place],
            "reconstruct --engine": ["reconstruct", scan, *engine, *place],
            "refine": ["refine", f"{folder}/result", f"{folder}/scan1.npz", *engine, *place],
            "evaluate": ["evaluate", f"{folder}/result", f"{folder}/scan1.npz", "--trim", str(number), *place],
            "bundle import": ["bundle", "import", f"{folder}/wts.h5.zip", *place],
            "bundle export": ["bundle", "export", f"{folder}/wts.h5.zip", "--to", "torch", *export],
        }[name]

    def acts(self, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """The command that makes the earlier result and the one that replaces it."""

        def act(number: int) -> Callable[[], None]:
            def run() -> None:
                self.number = number
                kills.command(*self._words(name, "out", number))()

            return run

        return act(1), act(2)


COMMANDS = (
    "simulate",
    "inspect",
    "doctor",
    "convert .npz",
    "convert .cxi",
    "convert .zarr",
    "train",
    "pretrain",
    "run",
)
COMMANDS += ("demo", "reconstruct", "reconstruct --engine", "refine", "evaluate", "bundle import", "bundle export")


def act_in_fork(act: Callable[[], None]) -> float:
    """Act in a process of its own, to its end; seconds that it took.

    Raises
    ------
    RuntimeError
        The command failed: a kill of it would prove nothing.
    """
    started = time.monotonic()
    kills.killed_at(kills._NEVER, act)
    return time.monotonic() - started


def killed(seconds: float, act: Callable[[], None]) -> bool:
    """Whether a process that acts was killed after some seconds; False where it came to its end before.

    Raises
    ------
    RuntimeError
        The command failed by itself.
    """
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the command failed: {status}")
    return os.WIFSIGNALED(status)


def sizes(folder: Path) -> dict[str, int]:
    """Every name below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.is_file() for path in folder.rglob("*")}


def count(name: str, rehearsal: Rehearsal, times: int, rng: random.Random) -> Iterator[str]:
    """Kill one command; for each kill what was found: "old", "new", or "mixed" of whole files of both."""
    out, kept = rehearsal.folder / "out", rehearsal.folder / "kept"
    for path in (out, kept):
        shutil.rmtree(path, ignore_errors=True)
    out.mkdir()
    first, second = rehearsal.acts(name)
    act_in_fork(first)
    before = kills.contents(out)
    shutil.copytree(out, kept)
    seconds = act_in_fork(second)
    after, names = kills.contents(out), sizes(out)
    changing = {key for key in after if before.get(key) != after[key]}
    if not changing:
        raise RuntimeError(f"{name} changed nothing, so that its kills would prove nothing")
    done = 0
    while done < times:
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        if not killed(rng.uniform(0.0, seconds), second):
            continue  # it was faster this time
        done += 1
        found = kills.contents(out)
        judge(name, found, before, after)
        yield _kind(found, before, after, changing)
        act_in_fork(second)
        left = {key for key in sizes(out) if key not in names and not key.endswith(RECORD)}
        if left:
            raise AssertionError(f"{name}: the next run left {sorted(left)}")


def judge(name: str, found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Raise AssertionError unless every file is the old one or the new one, and none is missing.

    A result holds when it was made and how long that took, so that its files are new where they are read as whole.
    """
    if name == "convert .zarr":
        kills.folder_old_or_new(found, before, after)
        return
    lacking = [key for key in before if key not in found]
    broken = [
        key for key, data in found.items() if data not in (before.get(key), after.get(key)) and not whole(key, data)
    ]
    if lacking or broken:
        raise AssertionError(f"{name}: lacking {lacking}, broken {broken}")


def whole(name: str, data: bytes) -> bool:
    """Whether a file of a result, which differs from run to run, reads as complete."""
    from ptycho.model.bundle import load_bundle
    from ptycho.workflows.results import load_reconstruction

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(data)
        if path.stem == "reconstruction":
            return load_reconstruction(path).object.ndim == 2
        if path.name == "wts.h5.zip":
            return bool(load_bundle(path).params)
        return path.name == "engine-state.npz"  # of a run that was killed, which the next one replaces


def _kind(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes], changing: set[str]) -> str:
    old = [key for key in changing if found.get(key) == before.get(key)]
    return "old" if len(old) == len(changing) else "new" if not old else "mixed"


def main(times: int) -> None:
    """Count, and write the table."""
    rng = random.Random(7)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(Path(folder))
        rehearsal.stub()
        rehearsal.inputs()
        for name in COMMANDS:
            kinds = list(count(name, rehearsal, times, rng))
            rows.append((name, *(kinds.count(kind) for kind in ("old", "new", "mixed"))))
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
    total = sum(sum(row[1:]) for row in rows)
    lines = [
        BEGIN,
        f"{total} kills at random moments, by `python -m tests.safety.kill_counts {times}`. Every file was the",
        "old one or the new one, whole; after the next run nothing else was left.",
        "",
        "| command | all files old | all files new | some of each, all whole |",
        "| --- | --- | --- | --- |",
        *(f"| `{name}` | {old} | {new} | {mixed} |" for name, old, new, mixed in rows),
        END,
    ]
    write_section("\n".join(lines))


def write_section(section: str) -> None:
    """Replace the section of the page that the markers enclose."""
    text = PAGE.read_text() if PAGE.exists() else "# Safety\n"
    start, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{start.rstrip()}\n\n{section}{rest.partition(END)[2] if rest else chr(10)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
