"""The benchmark scripts run and print what they promise; what they measure is nobody's test."""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import forecasts, gpu, training
from ptycho.backends import get_backend
from ptycho.config import ModelConfig

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_backends_are_compared_in_one_table(tmp_path):
    words = ["--backends", "numpy", "nonsense", "--scale", "0.002", "--repeat", "1"]
    files = ["--plot", str(tmp_path / "plot.png"), "--table", str(tmp_path / "table.md")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.backends", *words, *files], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "nonsense: not measured" in done.stderr
    rows = done.stdout.splitlines()
    assert rows[0] == "| work | numpy |"
    work = ["forward", "forward", "extract", "accumulate", "reassemble", "inference", "inference", "memory"]
    assert [row.split()[1].rstrip(",") for row in rows[2:]] == work
    assert all("floor" in row and "CPU" in row for row in rows[2:-1])
    assert (tmp_path / "table.md").read_text() == done.stdout
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_costs_by_size(tmp_path):
    plot = tmp_path / "plot.png"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", "--largest", "0.0002", "--plot", str(plot)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    rows = done.stdout.splitlines()
    assert {row.split(" | ")[0] for row in rows[2:]} >= {"| group", "| reassemble_position, M = 64"}
    assert all(float(row.split(" | ")[2]) > 0 for row in rows[2:])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_results_are_written_into_one_page(tmp_path):
    before = "# Measured\n\n## How long until it answers?\n\nage\n\n## Does a scan of 60 GB fit into two?\n\nyes\n"
    (tmp_path / "RESULTS.md").write_text(before)
    words = [sys.executable, "-m", "benchmarks", "--out", str(tmp_path), "--only"]
    done = subprocess.run([*words, "startup"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "RESULTS.md").read_text()
    assert "`python -m benchmarks.startup`" in page
    assert "| import ptycho | 0." in page
    assert "age\n" not in page
    assert page.endswith("## Does a scan of 60 GB fit into two?\n\nyes\n")
    refused = subprocess.run([*words, "nonsense"], capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 2
    assert "no benchmark 'nonsense'; there are startup," in refused.stderr


def test_forecasts_stand_beside_what_happened(monkeypatch, capsys):
    """Every command is forecast before it runs; the numbers are those of both."""
    ran = []

    def run(folder, *words):
        ran.append(words)
        return "memory 2.0 GB at the peak: all\ntime 1 min 30 s: all\n", 1e9, 50.0, 60.0

    monkeypatch.setattr(forecasts, "run", run)
    monkeypatch.setattr(sys, "argv", ["forecasts", "scan.npz"])
    forecasts.main()
    (made, *rest), rows = ran, capsys.readouterr().out.splitlines()[2:]
    assert made[0] == "simulate"
    assert [words[0] for words in rest[-2:]] == ["run", "run"]
    assert [(*words, "--dry-run") for words in rest[1::2]] == rest[::2]
    assert rows[-1] == "| `run`, measured, 5 epochs | 60 | 90 | 1.50 | 1.00 | 2.00 | 2.00 |"
    assert len(rows) == len(rest) / 2


@pytest.mark.slow
def test_an_epoch_is_timed(monkeypatch, capsys):
    """In this process: the benchmark itself gives every training one of its own."""
    pytest.importorskip("lightning")

    def here(words, folder=None):
        path, backend, precision = words[4:7]
        return training.epochs_of(path, training.config(backend, precision, 16, 2))

    monkeypatch.setattr(training, "run", here)
    monkeypatch.setattr(sys, "argv", ["training", "--backends", "pytorch"])
    training.main()
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| floor: the convolutions in float32", "| pytorch, 32", "| pytorch, bf16"]
    assert all(float(row[1]) > 0 for row in rows)


@pytest.mark.slow
def test_a_device_is_checked_and_measured():
    pytest.importorskip("lightning")
    words = ["--device", "cpu", "--small", "--backends", "pytorch", "--precision", "bf16"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines() if row.startswith("|")]
    assert [row[0] for row in rows[2:8]] == [f"pytorch, {what}" for what in gpu.LIMITS]
    assert all(row[3] == "yes" for row in rows[2:8])
    assert [row[0].split(",")[0] for row in rows[10:]] == [
        "limit: copy", *["limit: matrix product"] * 2, *["fft", "patterns"] * 2, "gather", "scatter", "inference",
        "training",
    ]  # fmt: skip
    assert all(float(row[2].split()[0]) > 0 and float(row[3]) > 0 for row in rows[10:])


def test_a_device_that_computes_otherwise_is_told(tmp_path, monkeypatch, capsys):
    def run(name, args, device, write):
        off = 1.0 if device == "cpu" else 1.002
        np.savez(write, **{what: np.full(3, off) for what in gpu.LIMITS})

    monkeypatch.setattr(gpu, "run", run)
    there = argparse.Namespace(device="cuda")
    bad = gpu.parity("pytorch", there, {"patches": np.ones(3)}, tmp_path)
    assert bad == [f"pytorch: {what}" for what in gpu.LIMITS if what != "gradient"]
    assert capsys.readouterr().out.count("NO") == 5


def test_what_is_compiled_is_the_network():
    """Traced by PyTorch's compiler, which is spared the rest."""
    pytest.importorskip("torch")
    pytest.importorskip("lightning")
    from benchmarks import compiled

    passed = compiled.passes(ModelConfig(N=64, n_filters_scale=1), 1, "cpu", half=False)
    network = compiled.CompiledGenerator(compiled.CnnGenerator(), backend="eager")
    spent, *_, off = compiled.measure(passed, network, "cpu", 1)
    assert spent > 0
    assert off < 1e-5


def test_operations_of_convolutions_are_counted():
    counter = gpu.Counter(get_backend("numpy"))
    found = counter.conv2d(np.zeros((2, 4, 6, 3)), np.zeros((3, 3, 3, 5)), np.zeros(5))
    assert found.shape == (2, 4, 6, 5)
    assert counter.operations == 2 * (2 * 4 * 6) * (3 * 3 * 3) * 5
    assert counter.name == "numpy"


def test_the_ways_to_one_canvas():
    words = ["--patterns", "1e6", "--workers", "16", "--overlap", "0.9"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reduction", *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    head, _, row = done.stdout.splitlines()
    cells = [float(cell) for cell in row.strip("| ").split(" | ")]
    canvas, tree, flat, run = cells[3], *cells[5::3]
    assert head.count("GB sent") == 3
    assert canvas == pytest.approx(24 * (1000 * 6.4 + 64) ** 2 / 1e9, rel=0.01)
    assert canvas < run < flat < tree
