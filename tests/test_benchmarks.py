"""The benchmark scripts run and print what they promise; what they measure is nobody's test."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_an_epoch_is_timed():
    pytest.importorskip("lightning")
    words = ["--backends", "pytorch", "--groups", "16", "--epochs", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rows = [row.split(" | ") for row in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| floor: the convolutions in float32", "| pytorch, 32", "| pytorch, bf16"]
    assert all(float(row[1]) > 0 for row in rows)
