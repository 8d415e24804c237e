"""The scene of the benchmark is the one that its description promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reference_scene import reference_scene
from ptycho.data import load_scan


@pytest.fixture(scope="module")
def scene():
    return reference_scene(n_train=60, n_test=40)


def test_object_and_photons(scene):
    for scan, count in zip(scene, (60, 40), strict=True):
        assert scan.patterns.shape == (count, 64, 64)
        assert (scan.measurement, scan.patterns.dtype) == ("counts", np.uint32)
        assert scan.object.shape == (392, 392)
        assert np.abs(scan.object).min() == pytest.approx(0.3, abs=1e-5)
        assert np.abs(scan.object).max() == pytest.approx(1.0, abs=1e-5)
        assert np.abs(np.angle(scan.object)).max() == pytest.approx(0.8, abs=1e-5)
    mean = np.mean([scan.counts().sum(axis=(1, 2)).mean() * len(scan) / 50 for scan in scene])
    assert mean == pytest.approx(1e6, rel=2e-3)


def test_halves_share_the_probe_and_no_pixel(scene):
    train, test = scene
    np.testing.assert_array_equal(train.probe, test.probe)
    assert train.positions[:, 1].max() + 32 <= 196
    assert test.positions[:, 1].min() - 32 >= 196
    for scan in scene:
        assert np.ptp(scan.positions[:, 0]) > 250
        assert np.ptp(scan.positions[:, 1]) > 100


def test_seed(scene):
    again, other = reference_scene(n_train=60, n_test=40), reference_scene(1, n_train=60, n_test=40)
    assert [scan.fingerprint() for scan in again] == [scan.fingerprint() for scan in scene]
    assert other[0].fingerprint() != scene[0].fingerprint()


def test_files(tmp_path):
    """The script writes both scans, and they come back as they were made."""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-m", "benchmarks.reference_scene", str(tmp_path / "new")], check=True, cwd=root)
    train, test = (load_scan(tmp_path / "new" / f"{name}.npz") for name in ("train", "test"))
    assert (len(train), len(test)) == (1000, 1000)
    np.testing.assert_array_equal(train.patterns, reference_scene()[0].patterns)
