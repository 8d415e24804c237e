"""Hostile files of every format, given to the commands; ``python -m tests.safety.hostile`` does the same with 1,000."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.safety import hostile
from tests.safety.mutations import Outside

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("PTYCHO_HOSTILE_FILES", "34"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each command runs in a fork")
def test_hostile_files_end_with_0_or_a_sentence():
    """In a process of its own, since the memory of a fork includes that of the process that made it."""
    words = [sys.executable, "-m", "tests.safety.hostile", "--count", str(COUNT), "--seed", "1", "--jobs", "1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


class TestFaults:
    """What is a fault is seen, or the test above would prove nothing."""

    @pytest.fixture
    def outside(self, tmp_path):
        made = Outside(tmp_path)
        made.reset()
        return made

    def ended(self, code=0, out="", err="", memory=10**8):
        return hostile.Ended([], code, out, err, memory, 1.0)

    @pytest.mark.parametrize(
        ("how", "fault"),
        [
            ({"code": 1, "err": "ptycho: internal error\n"}, "ended with 1"),
            ({"code": -11}, "ended with -11"),
            ({"code": 2}, "without one sentence"),
            ({"code": 2, "err": "ptycho: one\nptycho: two\n"}, "without one sentence"),
            ({"err": "Traceback (most recent call last):\n"}, "printed a traceback"),
            ({"err": "FORBIDDEN os.system\n"}, "ran code"),
            ({"out": "name the password\n"}, "stands outside"),
            ({"out": "name \x1b[2J\n"}, "control characters"),
            ({"out": "name ‮x\n"}, "control characters"),
            ({"memory": 2 * 10**9}, "held 2.00 GB"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_by_what_is_printed(self, how, fault, outside):
        assert [found for found in hostile.faults(self.ended(**how), outside) if fault in found]
        assert not hostile.faults(self.ended(), outside)
        assert not hostile.faults(self.ended(code=2, err="WARNING: x\nptycho: one sentence.\n"), outside)

    def test_by_what_is_read_or_made(self, outside):
        (outside.folder / "secret.txt").read_text()
        if not outside.read():
            pytest.skip("this file system keeps no access times")
        outside.mark.write_text("")
        found = hostile.faults(self.ended(), outside)
        assert found == ["ran code", "read secret.txt outside"]
