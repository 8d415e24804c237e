"""`ptycho simulate` and `ptycho inspect`."""

import numpy as np
import pytest

from ptycho.data import load_scan

SMALL = ("--size", 96, "--n_positions", 30, "--nphotons", "1e5")


def test_simulate_writes_a_scan_and_its_picture(ptycho):
    outcome = ptycho("simulate", "--out", "sim", *SMALL)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert outcome.figure("patterns") == "30"
    assert float(outcome.figure("photons").split()[0]) == pytest.approx(1e5, rel=0.01)
    assert float(outcome.figure("seconds")) > 0
    assert outcome.figure("saved") == "sim/scan.npz"
    assert sorted(path.name for path in (ptycho.folder / "sim").iterdir()) == [
        ".ptychopinn.json",
        "scan.npz",
        "scan.png",
    ]
    scan = load_scan(ptycho.folder / "sim" / "scan.npz")
    assert (len(scan), scan.N, scan.measurement) == (30, 64, "counts")
    assert scan.object.shape == (96, 96)


def test_seed_and_precedence(ptycho):
    (ptycho.folder / "sim.yaml").write_text("seed: 4\nn_positions: 25\nsize: 96\noutput_dir: first\n")
    for words in (["--config", "sim.yaml"], ["--config", "sim.yaml", "--out", "second"]):
        assert ptycho("simulate", *words).code == 0
    assert ptycho("simulate", "--seed", 5, "--config", "sim.yaml", "--out", "third").code == 0
    prints = [load_scan(ptycho.folder / name / "scan.npz").fingerprint() for name in ("first", "second", "third")]
    assert prints[0] == prints[1] != prints[2]


def test_force_replaces(ptycho):
    assert ptycho("simulate", "--out", "sim", *SMALL).code == 0
    assert ptycho("simulate", "--out", "sim", *SMALL, "--seed", 1).code == 2
    assert ptycho("simulate", "--out", "sim", *SMALL, "--seed", 1, "--force").code == 0
    assert ptycho("simulate", "--out", "sim", *SMALL, "--seed", 1, "--force", "false").code == 2


def test_inspect_says_what_a_file_holds(ptycho, scan_path):
    outcome = ptycho("inspect", scan_path, "--out", "look")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert "64 x 64, uint32, counts" in outcome.out
    for name in ("name", "patterns", "counts", "positions", "probe", "overlap", "mask", "object", "pixel size"):
        assert any(line.startswith(name) for line in outcome.out.splitlines())
    assert (ptycho.folder / "look" / "scan.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_sees_what_run_would_see(ptycho, write_npz):
    outcome = ptycho("inspect", write_npz(size=128, count=5), "--crop", 64, "--measurement", "counts")
    assert "5 of 64 x 64, float32, counts" in outcome.out
    assert (ptycho.folder / "inspection" / "bad.png").exists()


def test_inspect_names_problems(ptycho, write_npz):
    path = write_npz(diff3d=np.ones((9, 96, 96), np.uint16), size=96)
    outcome = ptycho("inspect", path)
    assert outcome.code == 0
    assert "problem" in outcome.out
    assert "not 96: use --crop 64" in outcome.out


def test_inspect_reads_the_measured_scan(ptycho, scan_file):
    outcome = ptycho("inspect", scan_file)
    assert outcome.code == 0, outcome
    assert "516 of 128 x 128, float32, counts" in outcome.out
    assert "none found" in outcome.out


def test_verbose_logs_to_standard_error(ptycho, scan_path):
    outcome = ptycho("inspect", scan_path, "--verbose")
    assert "INFO ptycho" in outcome.err
