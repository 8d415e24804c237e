"""The command ends with one line and a code, whatever happens; the files of its work are whole when it reports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho.data import Scan, load_scan
from ptycho.errors import DataError
from tests.cli.conftest import COMMAND, ptycho, scan_path, simulation, warm  # noqa: F401
from tests.safety import plugin

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@pytest.fixture
def faulty(tmp_path, ptycho):  # noqa: F811
    """Let a reader fail inside `ptycho inspect`; temporary files go to `temp`."""
    path, temp = plugin.install(tmp_path / "plugin"), tmp_path / "temp"
    temp.mkdir()

    def run(fault, **env):
        scan = ptycho.folder / f"{fault}.faulty"
        scan.touch()
        before = os.environ.get("PYTHONPATH", "")
        places = os.pathsep.join([str(path), *sys.path, before])
        return ptycho("inspect", scan, env={"PYTHONPATH": places, "TMPDIR": str(temp), **env})

    run.temp = temp
    return run


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("KeyError", "KeyError 'x'"),
        ("RecursionError", "RecursionError maximum recursion depth exceeded"),
        ("Own", "Own"),
        ("long", "RuntimeError first second xxx"),
        ("cancelled", "CancelledError gone"),
        ("pipe", "BrokenPipeError [Errno 32] Broken pipe"),
    ],
)
def test_an_internal_error_is_one_line_and_a_file_with_the_traceback(faulty, fault, words):
    ended = faulty(fault)
    assert ended.code == 1
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith(f"ptycho: internal error: {words}")
    assert len(line) < 1000
    path = Path(re.search(r"details in (\S+), please report", line)[1])
    assert path.parent == faulty.temp
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    assert "Traceback (most recent call last)" in text
    assert "faulty_reader.py" in text
    assert "ptycho inspect" in text


def test_the_files_of_two_internal_errors_lie_side_by_side(faulty):
    for _ in range(2):
        faulty("KeyError")
    assert len(list(faulty.temp.iterdir())) == 2


def test_an_internal_error_whose_traceback_cannot_be_written_names_its_place(faulty):
    ended = faulty("KeyError", TMPDIR=str(faulty.temp), PTYCHO_TEST="1")
    for path in faulty.temp.iterdir():
        path.unlink()
    code = (
        "import sys, tempfile\n"
        "def refuse(*_, **__): raise OSError(28, 'No space left on device')\n"
        "tempfile.mkstemp = refuse\n"
        "from ptycho.cli import guard\n"
        "sys.exit(guard.guarded(lambda: {}['x'], ['inspect']))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "KeyError 'x' at" in line
    assert "line 5" in line
    assert "could not be written" in line
    assert "No space left on device" in line


@pytest.mark.parametrize(
    ("fault", "code", "words"), [("memory", 2, "memory"), ("interrupt", 130, "interrupted"), ("exit", 7, None)]
)
def test_what_is_no_internal_error_keeps_its_code(faulty, fault, code, words):
    ended = faulty(fault)
    assert ended.code == code
    assert len(ended.err.splitlines()) == (words is not None)
    assert (words or "") in ended.err
    assert list(faulty.temp.iterdir()) == []


def test_a_caller_of_the_library_gets_the_exception(monkeypatch, tmp_path):
    from ptycho.data.readers import registry

    class Faulty:
        name, description, options = "faulty", "", frozenset()

        def accepts(self, file):
            raise KeyError("x")

    monkeypatch.setattr(registry, "available_readers", lambda: {"faulty": Faulty()})
    (tmp_path / "scan.faulty").touch()
    with pytest.raises(KeyError, match="x"):
        load_scan(tmp_path / "scan.faulty")


def _shell(line, folder, **env):
    words = " ".join(f"'{word}'" for word in COMMAND)
    return subprocess.run(
        ["bash", "-c", line.replace("ptycho", words)],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "unbuffered"), [("--help", "1"), ("inspect SCAN", ""), ("convert SCAN new.npz", "1"), ("--version", "")]
)
def test_a_closed_pipe_ends_quietly_and_the_files_are_whole(tmp_path, scan_path, words, unbuffered):  # noqa: F811
    line = f"(sleep 0.01; ptycho {words.replace('SCAN', str(scan_path))}; echo $? >code) | true"
    ended = _shell(line, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert ended.stderr == ""
    assert (tmp_path / "code").read_text().strip() == "141"
    if "new.npz" in words:
        assert len(load_scan(tmp_path / "new.npz")) == len(load_scan(scan_path))
    if "inspect" in words:
        assert next(tmp_path.rglob("scan.png")).read_bytes().endswith(b"IEND\xaeB`\x82")


@needs_dev_full
@pytest.mark.parametrize(
    ("words", "unbuffered"), [("--help", ""), ("inspect SCAN", "1"), ("convert SCAN new.npz", ""), ("bundle", "1")]
)
def test_a_full_output_is_one_line_and_the_files_are_whole(tmp_path, scan_path, words, unbuffered):  # noqa: F811
    ended = _shell(f"ptycho {words.replace('SCAN', str(scan_path))} >/dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 1
    assert ended.stderr == "ptycho: standard output cannot be written: No space left on device.\n"
    if "new.npz" in words:
        assert len(load_scan(tmp_path / "new.npz")) == len(load_scan(scan_path))


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2> >(true)"])
@pytest.mark.parametrize(("words", "code"), [("convert SCAN new.npz", 0), ("convert missing.npz new.npz", 2)])
def test_closed_streams_change_neither_code_nor_files(tmp_path, scan_path, closed, words, code):  # noqa: F811
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    ended = _shell(f"ptycho {words.replace('SCAN', str(scan_path))} {closed}", tmp_path)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr + ended.stdout
    if code == 0:
        assert len(load_scan(tmp_path / "new.npz")) == len(load_scan(scan_path))


def test_a_refusal_into_a_closed_pipe_keeps_its_code(tmp_path):
    ended = _shell("(ptycho inspect missing.npz; echo $? >code) | true", tmp_path)
    assert (tmp_path / "code").read_text().strip() == "2"
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -100.0])
@pytest.mark.parametrize("view", ["whole", "subset", "binned", "kept", "cropped subset", "shuffled"])
def test_a_bad_value_of_a_lazily_read_file_is_reported_at_its_number_in_the_file(tmp_path, value, view):
    from ptycho.data import bin_detector, crop_detector

    patterns = np.ones((300, 8, 8), np.float32)
    patterns[257, 4, 4] = value
    np.save(tmp_path / "patterns.npy", patterns)
    stored = np.load(tmp_path / "patterns.npy", mmap_mode="r")
    scan = Scan(stored, "counts", np.random.default_rng(0).uniform(0, 30, (300, 2)))
    if view == "subset":
        scan = scan.subset(np.arange(200, 300))
    elif view == "binned":
        scan = bin_detector(scan, 2).subset(np.arange(100, 300))
    elif view == "cropped subset":
        scan = crop_detector(scan.subset(np.arange(250, 260)), 4)
    elif view == "shuffled":
        scan = scan.subset(np.random.default_rng(1).permutation(300))
    elif view == "kept":
        scan = scan.subset(np.arange(200, 300))

    def read():
        if view == "kept":
            scan.in_memory()
        for part in scan.chunks(32):
            scan.counts(part)

    with pytest.raises(DataError, match=r"of pattern 257, .* at pixel \((4, 4|2, 2)\)"):
        read()
