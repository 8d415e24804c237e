"""Work that is done stays done: on a full disk, with folders in the way, and when the command is asked to end."""

import contextlib
import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ptycho.cli import main
from ptycho.cli.ending import resuming
from ptycho.cli.options import parse
from ptycho.data import save_npz
from ptycho.files import RECORD
from ptycho.workflows import refine, report, results
from ptycho.workflows.results import load_reconstruction
from tests.backends.alone import can_train
from tests.safety.test_kills import ENVIRONMENT
from tests.support import prepared, simulated_scan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits of POSIX")
COMMAND = [sys.executable, "-m", "ptycho"]
BRIEF = ("--n_filters_scale", "1", "--n_groups", "8", "--batch_size", "4", "--start_iterations", "2", "--device", "cpu")
SIGNALS = {"SIGTERM": 143, "SIGHUP": 129, "SIGINT": 130}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a scan; in this process no pictures are drawn, which takes most of the time."""
    monkeypatch.chdir(tmp_path)
    pictures = [name for name in results.RESULT_FILES if name.endswith((".png", ".html"))]
    monkeypatch.setattr(report, "write_pictures", lambda _, out: [(out / name).write_text(name) for name in pictures])
    save_npz(simulated_scan(M=40, N=32, seed=1), tmp_path / "a scan.npz")
    return tmp_path


@pytest.fixture
def first(folder):
    """A result to refine."""
    assert main(["reconstruct", "a scan.npz", "--epochs", "1", "--out", "first", "--quiet"]) == 0
    return folder / "first"


def started(*words, **options):
    """The command, begun, in a process that takes Ctrl-C even where the tests run in the background."""
    command = [*COMMAND, *map(str, words), "--quiet"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return subprocess.Popen(prepared("signal.signal(signal.SIGINT, signal.SIG_DFL)", command), **pipes, **options)


def ended_by(name, process, exists):
    """Send a signal as soon as a file exists; the last line on standard error."""
    while process.poll() is None and not exists():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=120)
    assert process.returncode == SIGNALS[name], said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("ptycho: ")]
    assert line.startswith("ptycho: interrupted; " if name == "SIGINT" else f"ptycho: ended by {name}; ")
    return line


def pasted(line):
    """Run the command at the end of a sentence, as a shell reads it."""
    before, _, command = line.partition("; go on with: ")
    assert command.startswith("ptycho "), before
    words = shlex.split(command)
    return subprocess.run([*COMMAND, *words[1:]], env=ENVIRONMENT, capture_output=True, text=True, check=False)


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


ITERATIVE = {
    "reconstruct": ("reconstruct", "a scan.npz", "--engine", "rpie", "--out", "the result"),
    "refine": ("refine", "first", "a scan.npz", "--out", "the result"),
}


@pytest.mark.parametrize("command", ITERATIVE)
@pytest.mark.parametrize("name", ["write_hdf5", "write_npz", "write_tiff"])
def test_a_full_disk_leaves_the_state(first, command, name, monkeypatch, capsys):
    words, state = [*ITERATIVE[command], "--epochs", "3"], first.parent / "the result" / "engine-state.npz"
    with monkeypatch.context() as full:
        full.setattr(results, name, no_space)
        assert main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said
    assert sorted(path.name for path in state.parent.iterdir()) == [RECORD, state.name]
    epochs = []
    with monkeypatch.context() as watching:
        watching.setattr("ptycho.engines.engine.Engine.run_epoch", lambda *_: epochs.append(1) or 1.0)
        assert main(shlex.split(said.partition("go on with: ")[2])[1:]) == 0
    assert not epochs  # all of them were done
    assert not state.exists()
    assert load_reconstruction(state.parent).history["r_factor"][2:]


def test_a_limit_on_the_size_of_files(folder):
    """The same in a process of its own: the state finds room, and the report, with its pictures, does not."""
    words = ("reconstruct", "a scan.npz", "--epochs", "3", "--out", "result")
    command = prepared(
        "resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))", [*COMMAND, *words]
    )
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "File too large" in done.stderr
    assert sorted(path.name for path in (folder / "result").iterdir()) == [RECORD, "engine-state.npz"]
    assert pasted(done.stderr.splitlines()[-1]).returncode == 0
    assert load_reconstruction("result").object.ndim == 2
    assert not (folder / "result" / "engine-state.npz").exists()


@pytest.mark.parametrize("name", ["reconstruction.h5", "reconstruction.npz", "phase.tif", "report.html"])
def test_a_folder_that_comes_in_the_way_of_a_result(folder, name, monkeypatch, capsys):
    """It is there when the work is done, and goes on with the command that the sentence names when it is gone."""
    judge, in_the_way = refine.scan_r_factor, folder / "result" / name

    def judged(*arguments, **options):
        (in_the_way / "of somebody").mkdir(parents=True, exist_ok=True)
        return judge(*arguments, **options)

    with monkeypatch.context() as during:
        during.setattr(refine, "scan_r_factor", judged)
        assert main(["reconstruct", "a scan.npz", "--epochs", "2", "--out", "result"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert (in_the_way / "of somebody").is_dir()
    assert sorted(path.name for path in in_the_way.parent.iterdir()) == [RECORD, "engine-state.npz", name]
    (in_the_way / "of somebody").rmdir()
    in_the_way.rmdir()
    assert main(shlex.split(said.partition("go on with: ")[2])[1:]) == 0
    assert not (folder / "result" / "engine-state.npz").exists()


def test_a_result_that_reads_back_differently_leaves_the_state(folder, monkeypatch, capsys):
    write = results.write_hdf5
    monkeypatch.setattr(
        results, "write_hdf5", lambda path, arrays: write(path, arrays | {"probe": 2 * arrays["probe"]})
    )
    assert main(["reconstruct", "a scan.npz", "--epochs", "2", "--out", "result"]) == 2
    assert "does not read back as it was written" in capsys.readouterr().err
    assert (folder / "result" / "engine-state.npz").is_file()


def test_a_state_that_finds_no_room_at_the_end_does_not_cost_the_result(folder, monkeypatch, capsys):
    from ptycho.engines import driver
    from ptycho.errors import OutputError

    save, calls = driver.save_state, []

    def fails_at_the_end(state, *more):
        calls.append(state.epoch)
        if state.epoch == 3:
            raise OutputError("the disk is full")
        save(state, *more)

    monkeypatch.setattr(driver, "save_state", fails_at_the_end)
    assert main(["reconstruct", "a scan.npz", "--epochs", "3", "--out", "result"]) == 0
    assert calls == [1, 3]
    assert load_reconstruction("result").object.ndim == 2


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("command", ITERATIVE)
def test_a_signal_to_an_iterative_run(first, name, command):
    """The command in the sentence reaches the result of a run that nobody interrupted, an earlier one there or not."""
    words = (*ITERATIVE[command], "--epochs", "150")
    state = first.parent / "the result" / "engine-state.npz"
    if command == "refine":
        assert main(["reconstruct", "a scan.npz", "--epochs", "1", "--out", "the result", "--quiet"]) == 0
        words = (*words, "--force")
    line = ended_by(name, started(*words), state.is_file)
    assert "the state is kept in the result/engine-state.npz; go on with: ptycho " in line
    done = pasted(line)
    assert (done.returncode, done.stderr) == (0, "")
    assert not state.exists()
    found = load_reconstruction(state.parent)
    assert main([*words[: words.index("--out")], "--out", "whole", "--epochs", "150", "--quiet"]) == 0
    np.testing.assert_allclose(found.object, load_reconstruction("whole").object, atol=1e-3)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_before_anything_is_kept(folder, name):
    process = started("simulate", "--n_positions", "100000", "--N", "64", "--out", "sim")
    while process.poll() is None and not (folder / "sim").is_dir():
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == SIGNALS[name]
    assert said == ("ptycho: interrupted.\n" if name == "SIGINT" else f"ptycho: ended by {name}.\n")
    assert not (folder / "sim").exists()


def test_a_burst_of_signals_is_one(folder):
    """A closing terminal sends SIGHUP more than once; the sentence is printed and every block left all the same."""
    process = started("reconstruct", "a scan.npz", "--epochs", "100000", "--out", "result")
    state = folder / "result" / "engine-state.npz"
    while process.poll() is None and not state.is_file():
        time.sleep(0.01)
    for _ in range(20):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("ended by SIGHUP"), said.count("Traceback")) == (129, 1, 0)
    assert state.is_file()


def test_a_terminal_that_is_gone(folder):
    """After SIGHUP nothing can be printed; the exit code is the usual one."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "reconstruct", "a scan.npz", "--epochs", "100000", "--out", "result"],
        env=ENVIRONMENT,
        stderr=writer,
    )
    os.close(writer)
    os.close(reader)
    while process.poll() is None and not (folder / "result" / "engine-state.npz").is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 129


def test_a_signal_that_the_caller_ignores_stays_ignored(folder):
    """As `nohup` asks for."""
    command = [*COMMAND, "reconstruct", "a scan.npz", "--epochs", "60", "--out", "result", "--quiet"]
    process = subprocess.Popen(
        prepared("signal.signal(signal.SIGHUP, signal.SIG_IGN)", command), env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not (folder / "result" / "engine-state.npz").is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(120) == 0


def test_resume_and_force_contradict_each_other(folder, capsys):
    assert main(["reconstruct", "a scan.npz", "--epochs", "2", "--out", "r", "--resume", "--force"]) == 2
    assert "give one of the two" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="pasted into bash")
@pytest.mark.parametrize("name", [b"o\xff", b"a b", b"it's\x1b", b"\\\xe2\x80\xae\x07f", b"\n1", b"$x`y`", b"\xc3\xa9"])
def test_the_command_is_pasted_as_it_was_given(name):
    call = parse("reconstruct", ["scan.npz", "--epochs", "2", "--out", os.fsdecode(name), "--force"])
    line = resuming(call)
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    words = [b"ptycho", b"reconstruct", b"scan.npz", b"--epochs", b"2", b"--out", name, b"--resume"]
    assert said.split(b"\0")[:-1] == words


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP"])
def test_a_signal_to_the_refinement_of_a_run(folder, name):
    backend = next((each for each in ("jax", "pytorch", "tensorflow") if can_train(each)), None)
    if backend is None:
        pytest.skip("no backend can train here")
    save_npz(simulated_scan(M=40, N=64, seed=1), folder / "a scan.npz", overwrite=True)
    words = ("run", "a scan.npz", *BRIEF, "--nepochs", "1", "--refine", "100", "--backend", backend, "--out", "the run")
    state = folder / "the run" / "engine-state.npz"
    line = ended_by(name, started(*words, "--force"), state.is_file)
    assert "the state is kept in the run/engine-state.npz; go on with: ptycho " in line
    bundle = (folder / "the run" / "wts.h5.zip").read_bytes()
    done = pasted(line)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "the run" / "wts.h5.zip").read_bytes() == bundle  # nothing was trained again
    assert not state.exists()
    assert len(load_reconstruction(state.parent).history["r_factor"]) == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "name"), [("pytorch", "SIGTERM"), ("pytorch", "SIGINT"), ("tensorflow", "SIGTERM"), ("jax", "SIGINT")]
)
def test_a_signal_to_a_training(folder, backend, name):
    if not can_train(backend):
        pytest.skip(f"{backend} cannot train here")
    save_npz(simulated_scan(M=40, N=64, seed=1), folder / "a scan.npz", overwrite=True)
    words = ("train", "a scan.npz", *BRIEF, "--nepochs", "8", "--backend", backend, "--out", "the model")
    checkpoints = folder / "the model" / "checkpoints"
    line = ended_by(name, started(*words), lambda: any(checkpoints.glob("last.*")))
    assert "the checkpoints up to the last whole epoch are kept in the model/checkpoints; go on with: ptycho " in line
    done = pasted(line)
    assert done.returncode == 0, done.stderr
    assert (folder / "the model" / "wts.h5.zip").is_file()
