"""The page of a run while it works, in a real browser: the command from its first epoch to its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptycho.data import save_npz
from tests.support import simulated_scan

ROOT = Path(__file__).parents[2]


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.03)


@pytest.fixture
def started(tmp_path):
    """Start `ptycho WORDS... --live` in an empty folder; the process and the address that it prints."""
    running = []

    def start(*words):
        path = os.pathsep.join([str(ROOT), str(ROOT / "shims"), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "ptycho", *map(str, words), "--live"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        line = process.stdout.readline()
        assert line.startswith("page http://127.0.0.1:"), (line, process.stderr.read() if not line else "")
        return process, line.split()[1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def scan_file(tmp_path):
    path = tmp_path / "scan.npz"
    save_npz(simulated_scan(M=300, N=32, photons=1e4), path)
    return path


def r_factor(tab):
    found = re.search(r"[Rr][ -]factor ([\d.]+)", tab.locator("#figures").inner_text())
    return float(found.group(1)) if found else None


def test_a_run_from_its_first_epoch_to_its_end(tab, started, scan_file):
    process, url = started("reconstruct", scan_file, "--engine", "rpie", "--epochs", 80, "--out", "result")
    tab.goto(url)
    until(lambda: tab.locator("#pill").inner_text() == "running")
    until(lambda: r_factor(tab) is not None)
    first, title = r_factor(tab), tab.title()
    assert re.match(r"\d+ % .*rpie: ", title), title
    until(lambda: "rpie" in tab.locator("#object-title").inner_text().lower())
    picture = tab.evaluate("document.getElementById('view').toDataURL()")
    until(lambda: r_factor(tab) != first)
    until(lambda: tab.evaluate("document.getElementById('view').toDataURL()") != picture)
    assert tab.locator("#charts .curve").count() >= 1
    until(lambda: tab.locator("#pill").inner_text() == "finished")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    final = re.search(r"^R-factor ([\d.]+)", out, re.MULTILINE).group(1)
    assert f"R-factor\n{float(final):.3f}" in tab.locator("#headline").inner_text()
    assert tab.locator("#step").inner_text() == "Saved in result."
    assert tab.locator("#banner").is_hidden()
    tab.locator("#view").focus()  # it can still be looked around in
    before = tab.evaluate("document.getElementById('view').toDataURL()")
    tab.keyboard.press("+")
    until(lambda: tab.evaluate("document.getElementById('view').toDataURL()") != before)


def test_a_run_that_is_killed_says_so(tab, started, scan_file):
    process, url = started("reconstruct", scan_file, "--engine", "rpie", "--epochs", 10000, "--out", "result")
    tab.goto(url)
    until(lambda: r_factor(tab) is not None)
    process.kill()
    until(lambda: tab.locator("#banner").is_visible())
    assert "does not answer any more" in tab.locator("#banner").inner_text()
    assert tab.locator("#pill").inner_text() == "connection lost"


def test_a_run_that_is_interrupted_says_so(tab, started, scan_file):
    process, url = started("reconstruct", scan_file, "--engine", "rpie", "--epochs", 10000, "--out", "result")
    tab.goto(url)
    until(lambda: r_factor(tab) is not None)
    process.send_signal(2)
    until(lambda: tab.locator("#pill").inner_text() == "interrupted")
    process.communicate(timeout=60)
    assert process.returncode == 130
