"""Two runs do not write to one place at once."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptycho.errors import OutputError
from ptycho.files import only_writer, require_unlocked, written_whole
from ptycho.workflows.output_folder import output_folder
from tests.safety.test_kills import ENVIRONMENT

HOLD = """
import sys, time
from pathlib import Path
from ptycho.files import only_writer
with only_writer(Path(sys.argv[1]), inside=sys.argv[2] == "inside"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """A process that holds the lock of a path."""
    processes = []

    def hold(path: Path, inside: bool) -> subprocess.Popen:
        words = [sys.executable, "-c", HOLD, str(path), "inside" if inside else "whole"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=ENVIRONMENT)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_run_is_refused_while_the_first_lives(tmp_path, holder):
    process = holder(tmp_path, True)
    told = f"is being written by another run \\(process {process.pid} on "
    with pytest.raises(OutputError, match=told), output_folder(tmp_path, ["a"]):
        pass
    with pytest.raises(OutputError, match=told):
        require_unlocked(tmp_path, inside=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with output_folder(tmp_path, ["a"]):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.npz", "a.zarr", "x" * 250, "\udcff.npz"])
def test_a_target_is_locked_by_its_name(tmp_path, holder, name):
    process = holder(tmp_path / name, False)
    with pytest.raises(OutputError, match="another run"), only_writer(tmp_path / name, inside=False):
        pass
    with only_writer(tmp_path / "other", inside=False):
        pass
    process.kill()
    process.wait()
    with only_writer(tmp_path / name, inside=False), written_whole(tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == ["b"]


def test_further_processes_of_a_run_share_its_lock(tmp_path, holder, monkeypatch):
    holder(tmp_path, True)
    (tmp_path / "a").write_text("of the first process")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with output_folder(tmp_path, ["a"]) as out:
        assert out == tmp_path


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog, number):
    import fcntl

    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING), output_folder(tmp_path, ["a"]) as out, written_whole(out / "a", own=True):
        pass
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be locked" in caplog.text
    assert (tmp_path / "a").is_file()


@pytest.mark.parametrize("content", [b"mine", b"\0" * 100])
def test_a_file_of_others_with_the_locks_name(tmp_path, content):
    (tmp_path / ".ptychopinn.lock").write_bytes(content)
    with pytest.raises(OutputError, match="is not a lock of ptychopinn"), output_folder(tmp_path, ["a"]):
        pass
    assert (tmp_path / ".ptychopinn.lock").read_bytes() == content


def test_a_link_with_the_locks_name(tmp_path):
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / ".ptychopinn.lock").symlink_to("theirs")
    with pytest.raises(OutputError, match="is not a lock of ptychopinn"), output_folder(tmp_path, ["a"]):
        pass
    assert (tmp_path / "theirs").read_text() == "mine"


@pytest.mark.parametrize("words", [["simulate", "--n_positions", "4"], ["train", "scan.npz"], ["run", "scan.npz"]])
def test_a_refusal_is_quick(tmp_path, words):
    """No framework is imported to find that something is in the way."""
    (tmp_path / "out").mkdir()
    for name in ("scan.npz", "wts.h5.zip"):
        (tmp_path / "out" / name).write_text("earlier")
    code = "import sys, ptycho.cli; code = ptycho.cli.main(sys.argv[1:]); print(sorted(sys.modules)); sys.exit(code)"
    started = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--out", "out"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "exists already" in done.stderr
    assert not {f"'{name}'" for name in ("torch", "lightning", "tensorflow", "jax")} & set(
        done.stdout.strip("[]\n").split(", ")
    )
    assert time.process_time() - started < 1
