"""Simulated scans from settings."""

import dataclasses

import numpy as np
import pytest

from ptycho.config.settings import describe, field_types
from ptycho.data import save_npz
from ptycho.errors import ConfigError, DataError
from ptycho.workflows.simulate import SimulationConfig, simulate_scan

SMALL = SimulationConfig(size=96, N=32, n_positions=40, nphotons=1e4)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def test_the_dose_is_what_was_asked_for():
    scan = simulate_scan(SMALL)
    assert len(scan) == 40
    assert scan.N == 32
    assert scan.measurement == "counts"
    # Poisson noise of 40 patterns of 1e4 photons: 0.16 % of the mean.
    assert scan.mean_total_counts() == pytest.approx(1e4, rel=0.01)
    assert scan.metadata["simulation"]["nphotons"] == 1e4


def test_the_same_settings_give_the_same_scan():
    first, again, other = (simulate_scan(small(seed=seed)) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("kind", ["lines", "random_field", "dead_leaves", "picture"])
def test_objects_fill_their_ranges(kind):
    image = simulate_scan(small(object=kind, amplitude_min=0.4, phase=0.6, n_positions=2)).object
    assert image.shape == (96, 96)
    assert np.abs(image).min() == pytest.approx(0.4, abs=1e-3)
    assert np.abs(image).max() == pytest.approx(1.0, abs=1e-3)
    assert np.angle(image).min() == pytest.approx(-0.6, abs=1e-3)
    assert np.angle(image).max() == pytest.approx(0.6, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "narrow", "wide"), [("disc", 0.2, 0.5), ("gaussian", 0.2, 0.5), ("focused", 0.2, 0.6)]
)
def test_probe_size(kind, narrow, wide):
    """The width that holds half of the power grows with the setting."""

    def area(size):
        power = np.sort((np.abs(simulate_scan(small(probe=kind, probe_size=size, n_positions=2)).probe) ** 2).ravel())
        return np.count_nonzero(np.cumsum(power[::-1]) < power.sum() / 2)

    assert area(wide) > 2 * area(narrow)


def test_width_of_the_gaussian_is_that_of_its_intensity():
    probe = simulate_scan(small(probe="gaussian", probe_size=0.25, n_positions=2)).probe[0]
    line = np.abs(probe[16]) ** 2
    # 0.25 x 32 = 8 pixels full width: half the peak at 4 pixels from the centre.
    assert line[20] / line[16] == pytest.approx(0.5, rel=1e-3)


def test_modes_and_positions():
    scan = simulate_scan(small(modes=3, positions="raster", step=16.0))
    assert scan.probe.shape == (3, 32, 32)
    assert len(scan) == 25
    assert len(simulate_scan(small(positions="fermat", step=16.0))) > 10


def test_probe_of_another_scan(tmp_path):
    first = simulate_scan(small(probe="focused", n_positions=2))
    save_npz(first, tmp_path / "first.npz")
    second = simulate_scan(small(probe_file=tmp_path / "first.npz"))
    ratio = second.probe / first.probe
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-4)
    with pytest.raises(DataError, match=r"probe_file = .* a probe of 32 pixels: expected one of N = 64"):
        simulate_scan(small(N=64, probe_file=tmp_path / "first.npz"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object": "stripes"}, "^object = stripes .*one of lines"),
        ({"N": 128}, "^size = 96 .*at least N = 128"),
        ({"nphotons": 0.0}, "^nphotons = 0"),
        ({"n_positions": 0}, "^n_positions = 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        simulate_scan(small(**changes))


def test_missing_picture():
    with pytest.raises(DataError, match="no_such_picture"):
        simulate_scan(small(object="picture", picture="no_such_picture.png"))


def test_settings_are_explained():
    for field in dataclasses.fields(SimulationConfig):
        assert field.metadata["help"]
        assert describe(field, field_types(SimulationConfig)[field.name])


def test_progress_ends_at_all_patterns():
    seen = []
    simulate_scan(SMALL, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40, 40)
