"""The ptychographical iterative engines: recovery, fixed points, units, seeds, masks, parity of the backends."""

import importlib.util
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.engines import State, solve
from ptycho.errors import DataError
from tests.engines.conftest import N, Placed, made

PIE = ["rpie", "epie"]
OTHERS = {"pytorch": "torch", "jax": "jax", "tensorflow": "tensorflow"}


def truth_of(scan):
    return State(scan.object, scan.object_origin, scan.probe, scan.positions, scan.positions)


@pytest.mark.parametrize("engine", PIE)
def test_recovers_a_simulated_object(scan, settings, engine):
    done = Placed(solve(scan, settings(engine=engine, epochs=40, engine_batch_size=None)))
    found = done.metrics(scan)
    assert found["mse_phase"] ** 0.5 < 0.06
    assert found["mse_amplitude"] ** 0.5 < 0.04
    worse = {"rpie": 1.1, "epie": 1.7}[engine]  # one pattern at a time leaves its noise
    assert done.r_factor(scan) < worse * Placed(truth_of(scan)).r_factor(scan)


def test_recovers_a_wrong_probe(scan, settings):
    wrong = np.roll(scan.probe, 1, axis=-1) * np.exp(1j * np.linspace(0, 1, N))
    kept = Placed(solve(scan.replace(probe=wrong), settings(epochs=20, probe_step=0))).r_factor(scan)
    corrected = Placed(solve(scan.replace(probe=wrong), settings(epochs=20))).r_factor(scan)
    assert corrected < 0.6 * kept


@pytest.mark.parametrize("engine", PIE)
@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_stays_at_the_truth(clean, settings, engine, noise):
    start = truth_of(clean)
    done = solve(clean, settings(engine=engine, noise=noise, double=True, epochs=3), start)
    assert max(done.history["r_factor"]) < 1e-6
    row, col = (int(-value) for value in done.origin)
    inside = done.object[row : row + 88, col : col + 88]
    np.testing.assert_allclose(inside, start.object, atol=1e-6)
    np.testing.assert_allclose(done.probe, start.probe, atol=1e-6 * np.abs(start.probe).max())


@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_the_history_tells_of_progress(scan, settings, noise):
    history = solve(scan, settings(noise=noise, epochs=12)).history
    assert history["r_factor"][8] < 0.6 * history["r_factor"][0]
    assert history["seconds"] == sorted(history["seconds"])
    assert len(history["seconds"]) == 12


@given(st.floats(1e-12, 1e12))
def test_the_unit_of_the_counts_does_not_matter(unit):
    from ptycho.config import EngineConfig

    scan, config = made(), EngineConfig(epochs=2, engine_batch_size=8, double=True)
    other = scan.replace(patterns=scan.patterns.astype(np.float64) * unit, probe=scan.probe * 3.0)
    one, two = solve(scan, config), solve(other, config)
    np.testing.assert_allclose(two.object, one.object, atol=1e-9)
    np.testing.assert_allclose(two.probe / np.sqrt(unit), one.probe, atol=1e-8 * np.abs(one.probe).max())
    np.testing.assert_allclose(two.history["r_factor"], one.history["r_factor"], rtol=1e-8)


def test_the_seed_decides(scan, settings):
    one, again, other = (solve(scan, settings(seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.object, again.object)
    assert np.abs(one.object - other.object).max() > 1e-4
    assert other.history["r_factor"][-1] == pytest.approx(one.history["r_factor"][-1], rel=0.2)


def test_the_order_of_the_scan_is_no_more_than_another_seed(scan, settings):
    order = np.random.default_rng(4).permutation(len(scan))
    one, other = solve(scan, settings(epochs=10)), solve(scan.subset(order), settings(epochs=10))
    assert other.history["r_factor"][-1] == pytest.approx(one.history["r_factor"][-1], rel=0.05)


def test_what_is_in_memory_at_once_does_not_matter(scan, settings, monkeypatch):
    one = solve(scan, settings(double=True))
    monkeypatch.setattr("ptycho.engines.engine._CHUNK_PIXELS", 3 * N**2)
    np.testing.assert_allclose(solve(scan, settings(double=True)).object, one.object, atol=1e-10)


def test_patterns_that_do_not_fit_in_memory_are_read_again(scan, settings, monkeypatch):
    from ptycho.engines.detector_data import DetectorData

    one = solve(scan, settings())
    monkeypatch.setattr(DetectorData.__init__, "__defaults__", (None, "float32", 0))
    np.testing.assert_array_equal(solve(scan, settings()).object, one.object)


@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
@pytest.mark.parametrize("shown", [0, 60000])
def test_bad_pixels_change_nothing(scan, settings, noise, shown):
    mask = np.ones((N, N), dtype=bool)
    mask[5:9, 12] = mask[16, 16] = False
    broken = np.where(mask, scan.patterns, shown).astype(scan.patterns.dtype)
    one = solve(scan.replace(mask=mask), settings(noise=noise))
    other = solve(scan.replace(mask=mask, patterns=broken), settings(noise=noise))
    np.testing.assert_array_equal(one.object, other.object)
    assert np.abs(one.object - solve(scan, settings(noise=noise)).object).max() > 1e-4


@pytest.mark.parametrize("engine", PIE)
@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_no_nan_where_nothing_is_predicted(scan, settings, engine, noise):
    dark = truth_of(scan)
    dark.object = np.zeros_like(dark.object)
    done = solve(scan, settings(engine=engine, noise=noise, epochs=2, probe_from=9), dark)
    assert np.isfinite(done.object).all()


def test_two_modes_are_recovered(settings):
    scan = made(modes=2)
    start = scan.probe[:1] * np.sqrt(1 / 0.7)
    done = solve(scan.replace(probe=start), settings(modes=2, epochs=100, full_batch_epochs=5))
    power = (np.abs(done.probe) ** 2).sum(axis=(1, 2))
    assert power[1] / power.sum() == pytest.approx(0.3, rel=0.05)
    gram = np.einsum("pij,qij->pq", done.probe, done.probe.conj())
    assert abs(gram[0, 1]) < 1e-3 * gram[0, 0].real


@pytest.mark.parametrize("kind", ["compact", "sparse", "random"])
def test_batches_of_every_kind_lead_there(scan, settings, kind):
    assert solve(scan, settings(batches=kind, epochs=15)).history["r_factor"][-1] < 0.08


def test_momentum_speeds_up(scan, settings):
    plain, pushed = (
        Placed(solve(scan, settings(epochs=12, full_batch_epochs=0, damping=0.8, momentum=m))).metrics(scan)
        for m in (0.0, 0.5)
    )
    assert pushed["mse_phase"] < plain["mse_phase"]


def agree(scan, settings, backend, double, **more):
    reference = solve(scan, settings(double=double, **more))
    other = solve(scan, settings(double=double, backend=backend, device="cpu", **more))
    allowed = 1e-8 if double else 1e-3
    for name in ("object", "probe", "positions"):
        one, two = getattr(reference, name), getattr(other, name)
        assert np.abs(two - one).max() <= allowed * np.abs(one).max(), name
    np.testing.assert_allclose(other.history["r_factor"], reference.history["r_factor"], rtol=allowed)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("engine", PIE)
@pytest.mark.parametrize("backend", OTHERS)
def test_backends_walk_the_same_way(settings, backend, engine, double):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    if backend == "jax" and double:
        pytest.skip("double precision is a switch of the whole process in JAX; see the next test")
    mask = np.ones((N, N), dtype=bool)
    mask[3, 4] = False
    scan = made(modes=2, mask=mask)
    agree(scan, settings, backend, double, engine=engine, correct_positions="gradient", positions_from=0)


def test_jax_walks_the_same_way_in_double_precision(settings):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        agree(made(), settings, "jax", True, correct_positions="gradient", positions_from=0)


class TestBadInput:
    def test_probe_of_another_size(self, scan, settings):
        start = truth_of(scan)
        start.probe = np.ones((1, 48, 48), np.complex64)
        with pytest.raises(DataError, match=r"probe: got shape \(1, 48, 48\) for patterns of 32 x 32"):
            solve(scan, settings(), start)

    def test_zero_probe(self, scan, settings):
        with pytest.raises(DataError, match="probe: is zero"):
            solve(scan.replace(probe=np.zeros_like(scan.probe)), settings())

    def test_positions_beyond_every_object(self, scan, settings):
        far = scan.positions * 1e4
        with pytest.raises(DataError, match="positions: they span"):
            solve(scan.replace(positions=far), settings())

    def test_positions_outside_the_given_object_enlarge_it(self, scan, settings, caplog):
        start = truth_of(scan)
        start.object = start.object[20:60, 20:60]
        start.origin = (20.0, 20.0)
        with caplog.at_level(logging.INFO):
            done = solve(scan, settings(epochs=12), start)
        assert "grows" in caplog.text
        assert done.history["r_factor"][-1] < 0.1

    def test_detector_without_a_good_pixel(self, scan, settings):
        with pytest.raises(DataError, match="mask"):
            solve(scan.replace(mask=np.zeros((N, N), dtype=bool)), settings())

    def test_dark_patterns_are_left_out(self, scan, settings, caplog):
        patterns = scan.patterns.copy()
        patterns[7] = 0
        done = solve(scan.replace(patterns=patterns), settings(epochs=12))
        assert "1 of" in caplog.text
        assert done.history["r_factor"][-1] < 0.1

    def test_all_dark(self, scan, settings):
        with pytest.raises(DataError, match="no light"):
            solve(scan.replace(patterns=np.zeros_like(scan.patterns)), settings())

    def test_diverging_steps_are_shortened(self, scan, settings, caplog):
        done = solve(scan, settings(engine="epie", object_step=2.0, probe_step=2.0, engine_batch_size=4, epochs=20))
        assert np.isfinite(done.object).all()
        assert min(done.history["r_factor"]) < 0.3
