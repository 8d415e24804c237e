"""The R-factor of an object over its scan."""

from types import SimpleNamespace

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.evaluation import fourier_r_factor
from ptycho.workflows.r_factor import predict_amplitudes, scan_r_factor
from ptycho.workflows.simulate import SimulationConfig, simulate_scan


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=96, N=32, n_positions=30, nphotons=1e4))


def placed(scan, image=None):
    return SimpleNamespace(object=scan.object if image is None else image, origin=scan.object_origin)


def test_the_truth_explains_noiseless_patterns():
    scan = simulate_scan(SimulationConfig(size=96, N=32, n_positions=9, noise=False))
    assert scan_r_factor(placed(scan), scan.probe, scan) < 1e-5
    flat = scan_r_factor(placed(scan, np.ones_like(scan.object)), scan.probe, scan)
    assert flat > 0.1


def test_it_is_the_r_factor_of_all_patterns_at_once(scan):
    predicted = predict_amplitudes(placed(scan), scan.probe, scan.positions)
    expected = fourier_r_factor(predicted, scan.amplitude())
    assert scan_r_factor(placed(scan), scan.probe, scan) == pytest.approx(expected, rel=1e-5)
    for size in (1, 7, 30, 99):
        assert scan_r_factor(placed(scan), scan.probe, scan, size) == pytest.approx(expected, rel=1e-5)


def test_scales_of_probe_and_object_do_not_matter(scan):
    expected = scan_r_factor(placed(scan), scan.probe, scan)
    assert scan_r_factor(placed(scan, 3j * scan.object), scan.probe * 7, scan) == pytest.approx(expected, rel=1e-4)


def test_bad_pixels_do_not_count(scan):
    mask = np.ones((32, 32), bool)
    mask[16, 14:19] = False
    spoiled = scan.patterns.copy()
    spoiled[:, ~mask] = 40_000
    masked = scan.replace(patterns=spoiled, mask=mask)
    predicted = predict_amplitudes(placed(scan), scan.probe, scan.positions)
    expected = fourier_r_factor(predicted, scan.amplitude(), mask)
    assert scan_r_factor(placed(scan), scan.probe, masked) == pytest.approx(expected, rel=1e-5)


def test_the_origin_is_the_place(scan):
    padded = np.pad(scan.object, ((5, 0), (3, 0)), constant_values=1)
    moved = SimpleNamespace(object=padded, origin=(-5.0, -3.0))
    expected = scan_r_factor(placed(scan), scan.probe, scan)
    assert scan_r_factor(moved, scan.probe, scan) == pytest.approx(expected, rel=1e-5)


def test_darkness_has_no_r_factor(scan):
    dark = scan.replace(patterns=np.zeros_like(scan.patterns))
    with pytest.raises(DataError, match="no light is measured"):
        scan_r_factor(placed(scan), scan.probe, dark)


def test_progress(scan):
    seen = []
    scan_r_factor(placed(scan), scan.probe, scan, 10, lambda done, total: seen.append((done, total)))
    assert seen == [(10 * k, 60) for k in range(1, 7)]
