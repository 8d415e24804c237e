"""Kill a command at every step that it takes on the disk: `python -m tests.safety.kills COMMAND FOLDER`.

A process is forked for every step; it ends itself, without any cleaning up, just before the step. What the folder holds
then is checked, and put back as it was. The last process is the one that reaches the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ptycho.cli import main

STEPS = ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "shutil.move")
_NEVER, _MOST = 1 << 30, 35
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name; those that are hidden left out, as a kill may leave them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder) for path in files}
    return {
        str(name): path.read_bytes()
        for path, name in names.items()
        if not any(p.startswith(".") for p in name.parts[:1])
    }


def steps_of(act: Callable[[], None], folder: Path) -> int:
    """How many steps a process takes that acts and is not killed."""
    note = folder.with_name("steps")
    killed_at(_NEVER, act, note)
    return int(note.read_text())


def killed_at(step: int, act: Callable[[], None], note: Path | None = None) -> bool:
    """Whether a process that acts was killed before the step of that number; False where it came to its end."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def hook(event: str, arguments: tuple) -> None:
            writes = event == "open" and len(arguments) > 2 and int(arguments[2] or 0) & _WRITES
            if event in STEPS or (writes and str(arguments[0]) != os.devnull):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        code = 9
        try:
            act()
            if note is not None:
                note.write_text(str(step - left[0]))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"the command failed: {status}")
    return False


def killed_after(seconds: float, act: Callable[[], None]) -> bool:
    """The same by the clock, wherever the process is then: in the middle of a write, too."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        code = 9
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def try_all(folder: Path, act: Callable[[], None], whole: Callable[[dict[str, bytes], dict, dict], None]) -> int:
    """Kill at every step and some moments; `whole` judges what is left by what was and what should be."""
    before = contents(folder)
    kept = folder.with_name(f"{folder.name} before")
    shutil.copytree(folder, kept)

    def put_back() -> None:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)

    steps = steps_of(act, folder)
    after = contents(folder)
    if after == before:
        raise RuntimeError("the command changed nothing")
    for step in range(0, steps, steps // _MOST + 1):
        put_back()
        if not killed_at(step, act):
            raise RuntimeError(f"no kill at step {step} of {steps}")
        whole(contents(folder), before, after)
    for number in range(8):
        put_back()
        killed_after(0.004 * 2**number, act)
        whole(contents(folder), before, after)
    return steps


def old_or_new(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Every file that was there is there, whole; no other file is there unless it is whole."""
    lacking = [name for name in before if name not in found]
    broken = [name for name, data in found.items() if data not in (before.get(name), after.get(name))]
    if lacking or broken:
        raise AssertionError(f"lacking {lacking}, broken {broken}")


def folder_old_or_new(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """All files are the old ones, or all are the new ones."""
    if found not in (before, after):
        raise AssertionError(f"neither the old nor the new store: {sorted(found)}")


def command(*words: str) -> Callable[[], None]:
    """The command itself, as the command line runs it."""

    def act() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if main([*words, "--quiet"]) != 0:
            raise RuntimeError(words)

    return act


def convert(folder: Path, ending: str) -> int:
    """`ptycho convert` onto a file, or a store, that is there."""
    from ptycho.data import save_scan
    from tests.support import simulated_scan

    out = folder / "out"
    out.mkdir()
    save_scan(simulated_scan(M=4, N=16, seed=1), out / f"scan{ending}")
    save_scan(simulated_scan(M=12, N=16, seed=2), folder / "new.npz")
    judge = folder_old_or_new if ending == ".zarr" else old_or_new
    return try_all(out, command("convert", str(folder / "new.npz"), str(out / f"scan{ending}"), "--force"), judge)


def simulate(folder: Path) -> int:
    """`ptycho simulate` onto an earlier simulation; its picture is drawn once for all."""
    import ptycho.workflows.inspect as inspecting
    from ptycho.workflows.output_folder import write_bytes

    inspecting.draw_inspection = lambda scan, inspection, path: write_bytes(b"picture %d" % len(scan), path)
    words = ("simulate", "--out", str(folder / "out"), "--size", "96", "--N", "32", "--force", "--n_positions")
    killed_at(_NEVER, command(*words, "4"))
    return try_all(folder / "out", command(*words, "6"), old_or_new)


def run(folder: Path) -> int:
    """`ptycho run` onto an earlier result: everything but the training and the drawing, which are done once for all."""
    import numpy as np

    from ptycho.backends import get_trainer
    from ptycho.data import save_npz
    from ptycho.model import bundle as bundles
    from ptycho.workflows import report
    from ptycho.workflows import run as running
    from ptycho.workflows.results import Reconstruction
    from tests.safety.samples import write_bundle
    from tests.support import simulated_scan

    get_trainer("pytorch")  # imported once, before the forks
    (folder / "made").mkdir()
    model = bundles.load_bundle(write_bundle(folder / "made"))
    scan = simulated_scan(M=30, N=64)
    save_npz(scan, folder / "scan.npz")
    pictures = {name: name.encode() for name in ("amplitude", "phase", "complex", "probe")}
    report.draw_pictures = lambda result: pictures
    report.report_html = lambda result, drawn: f"<p>{result.metrics}</p>"
    bundles.zipfile.ZipFile.writestr = _without_a_clock(bundles.zipfile.ZipFile.writestr)
    number = [1.0]

    def trained(*_, on_trained, **__):
        model.group_canvas_side = int(number[0]) + 100
        image = np.full((20, 20), number[0] + 0j)
        metrics = {"r_factor": number[0]}
        result = Reconstruction(image, np.ones((20, 20)), (0, 0), np.ones((4, 2)), np.ones((1, 8, 8)), metrics=metrics)
        on_trained(model)
        return result, model

    running.run_scan = trained
    words = ("run", str(folder / "scan.npz"), "--out", str(folder / "out"), "--force", "--nepochs", "1")
    killed_at(_NEVER, command(*words))
    number[0] = 2.0
    return try_all(folder / "out", command(*words), old_or_new)


def _without_a_clock(write: Callable[..., None]) -> Callable[..., None]:
    """Members of zip archives without their time, so that the same bundle is the same bytes."""
    import zipfile

    def writestr(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        write(archive, zipfile.ZipInfo(name), data)

    return writestr


COMMANDS = {
    "simulate": simulate,
    "run": run,
    **{f"convert {ending}": (lambda folder, e=ending: convert(folder, e)) for ending in (".npz", ".cxi", ".zarr")},
}

if __name__ == "__main__":
    sys.stdout.write(f"{COMMANDS[sys.argv[1]](Path(sys.argv[2]))}\n")
