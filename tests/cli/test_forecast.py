"""`--dry-run`: what is said beforehand is what happens, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho.data import save_npz
from ptycho.data.readers.limits import readable

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
QUICK = ["--n_filters_scale", "1", "--nepochs", "2", "--n_groups", "48", "--start_iterations", "3", "--quiet"]
WATCHED = """
import sys
from ptycho.backends import get_trainer
from ptycho.data.readers.limits import peak_memory
from ptycho.cli import main

get_trainer("pytorch")
before = peak_memory()
code = main(sys.argv[1:])
print("watched", code, before, peak_memory())
"""


def watched(folder, *words):
    """Run the command in a process of its own; its output, and the memory before and at the peak."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "shims"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    *lines, last = done.stdout.splitlines()
    code, before, peak = (int(number) for number in last.split()[1:])
    assert code == 0, done.stderr
    return lines, before, peak


def in_bytes(text):
    value, unit = text.split()[:2]
    return float(value) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


@pytest.mark.slow
def test_what_is_forecast_is_what_happens(tmp_path, simulation):
    """Memory over that of the framework, and disk, to a factor of 1.5; time is nobody's test."""
    save_npz(simulation.replace(object=None, object_origin=None, metadata={}), tmp_path / "scan.npz")
    lines, _, _ = watched(tmp_path, "run", "scan.npz", "--out", "result", *QUICK, "--dry-run")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]
    said = dict(line.split(" ", 1) for line in lines)
    assert said["patterns"] == f"{len(simulation)} of 64 x 64, counts"
    assert said["groups"] == "48, of 1 pattern each"
    assert int(said["parameters"]) > 1e5
    assert "training" in said["time"]
    _, before, peak = watched(tmp_path, "run", "scan.npz", "--out", "result", *QUICK)
    disk = sum(path.stat().st_size for path in (tmp_path / "result").rglob("*") if path.is_file())
    assert disk / 1.5 < in_bytes(said["disk"]) < disk * 1.5, readable(disk)
    memory = in_bytes(said["memory"]) - before
    assert (peak - before) / 1.5 < memory < (peak - before) * 1.5, readable(peak - before)


@pytest.mark.slow
def test_a_dry_training_and_a_dry_reconstruction_write_nothing(ptycho, tmp_path, simulation):
    save_npz(simulation, tmp_path / "scan.npz")
    dry = ptycho("train", tmp_path / "scan.npz", "--out", "model", *QUICK, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert list(ptycho.folder.iterdir()) == []
    assert "network" not in dry.figure("time")
    assert "48, of 1" in dry.figure("groups")
    made = ptycho("train", tmp_path / "scan.npz", "--out", "model", *QUICK)
    assert made.code == 0, made.err
    dry = ptycho("reconstruct", tmp_path / "scan.npz", "model", "--out", "result", "--dry_run")
    assert (dry.code, dry.err) == (0, "")
    assert not (ptycho.folder / "result").exists()
    assert "training" not in dry.figure("time")
    assert "B at the peak" in dry.figure("memory")


def unchanged(ptycho, *words):
    """Run a command that must leave every folder and file as they are, to the time of their last change."""
    before = {path: path.stat().st_mtime_ns for path in (ptycho.folder, *ptycho.folder.rglob("*"))}
    done = ptycho(*words)
    assert {path: path.stat().st_mtime_ns for path in (ptycho.folder, *ptycho.folder.rglob("*"))} == before
    return done


@pytest.mark.parametrize("engine", ["rpie", "lsqml", "difference_map"])
def test_a_dry_run_of_an_engine_writes_nothing(ptycho, scan_path, engine):
    words = ["reconstruct", scan_path, "--engine", engine, "--epochs", "600", "--out", "result", "--quiet"]
    dry = unchanged(ptycho, *words, "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.figure("epochs") == f"600 of {engine}"
    assert engine in dry.figure("time")
    assert "B at the peak" in dry.figure("memory")


@pytest.mark.slow
def test_dry_runs_of_refinements_write_nothing_and_forecast_them(ptycho, scan_path):
    made = ptycho("reconstruct", scan_path, "--epochs", "2", "--out", "result", "--quiet")
    assert made.code == 0, made.err
    dry = unchanged(ptycho, "refine", "result", scan_path, "--epochs", "4", "--out", "result", "--dry-run", "--quiet")
    assert dry.code == 0, dry.err
    assert dry.figure("epochs") == "4 of rpie"
    dry = unchanged(ptycho, "run", scan_path, *QUICK, "--refine", "400", "--out", "new", "--dry-run")
    assert dry.code == 0, dry.err
    assert dry.figure("refinement") == "400 of rpie"
    assert "rpie" in dry.figure("time")
    assert "training" in dry.figure("time")


@pytest.mark.parametrize("command", ["simulate", "inspect", "convert", "doctor", "evaluate", "demo", "bundle info"])
def test_a_command_that_cannot_forecast_refuses_to_run_dry(ptycho, command):
    done = unchanged(ptycho, *command.split(), "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert "--dry_run" in done.err or "--dry-run" in done.err
