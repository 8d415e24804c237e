"""Gradient descent: recovery, fixed points, noise models, units, parity of the frameworks, resuming."""

import importlib.util

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.engines import State, solve
from ptycho.engines.gradient import pattern_loss
from ptycho.errors import BackendError
from tests.engines.conftest import N, Placed, made

pytest.importorskip("torch")
OTHERS = {"jax": "jax", "tensorflow": "tensorflow"}
ADAM = {"engine": "gradient", "device": "cpu"}


@pytest.mark.parametrize(("optimiser", "epochs"), [("adam", 30), ("lbfgs", 60)])
def test_recovers_a_simulated_object(scan, settings, optimiser, epochs):
    done = Placed(solve(scan, settings(**ADAM, optimiser=optimiser, epochs=epochs, engine_batch_size=16)))
    assert done.metrics(scan)["mse_phase"] ** 0.5 < 0.1
    assert done.r_factor(scan) < 0.04


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_stays_at_the_truth(clean, settings, noise, optimiser):
    start = State(clean.object, clean.object_origin, clean.probe, clean.positions, clean.positions)
    options = {**ADAM, "noise": noise, "optimiser": optimiser, "double": True, "epochs": 2, "step_size": 1e-4}
    history = solve(clean, settings(**options), start).history["r_factor"]
    assert history[0] < {"poisson": 0.02}.get(noise, 1e-3)
    assert history[-1] < history[0] + 1e-3  # Adam's steps do not vanish with the slope: it circles closely


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("noise", ["poisson", "anscombe"])
def test_other_noise_models_lead_there(scan, settings, noise, optimiser):
    history = solve(scan, settings(**ADAM, noise=noise, optimiser=optimiser, epochs=20)).history["r_factor"]
    assert history[-1] < {"adam": 0.4, "lbfgs": 0.6}[optimiser] * history[0]


def test_the_unit_of_the_counts_does_not_matter(scan, settings):
    other = scan.replace(patterns=scan.patterns.astype(np.float64) * 1e-7, probe=scan.probe * 3.0)
    one, two = (solve(s, settings(**ADAM, double=True)) for s in (scan, other))
    np.testing.assert_allclose(two.object, one.object, atol=1e-6)


@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_no_nan_where_nothing_is_predicted(noise):
    backend = get_backend("pytorch")
    zero, measured = np.zeros((2, 4, 4), np.float32), np.ones((2, 4, 4), np.float32)

    def loss(predicted):
        return pattern_loss(predicted * predicted, backend.asarray(measured), None, noise, 1e-3)

    value, slope = backend.value_and_grad(loss)(backend.asarray(zero))
    assert np.isfinite(backend.to_numpy(value))
    assert np.isfinite(backend.to_numpy(slope)).all()


def test_bad_pixels_change_nothing(scan, settings):
    mask = np.ones((N, N), dtype=bool)
    mask[5:9, 12] = mask[16, 16] = False
    broken = np.where(mask, scan.patterns, 60000).astype(scan.patterns.dtype)
    one = solve(scan.replace(mask=mask), settings(**ADAM, epochs=2))
    other = solve(scan.replace(mask=mask, patterns=broken), settings(**ADAM, epochs=2))
    np.testing.assert_array_equal(one.object, other.object)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_frameworks_walk_the_same_way(settings, backend, optimiser):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    scan = made().subset(slice(0, 48))
    options = {**ADAM, "epochs": 3, "engine_batch_size": 16, "optimiser": optimiser}
    one, other = (solve(scan, settings(**options, backend=name)) for name in ("pytorch", backend))
    assert np.abs(one.object - other.object).max() < 1e-3
    np.testing.assert_allclose(one.history["r_factor"], other.history["r_factor"], rtol=1e-3)


def test_double_precision_agrees_closely(settings):
    pytest.importorskip("tensorflow")
    scan = made().subset(slice(0, 48))
    options = {**ADAM, "epochs": 5, "engine_batch_size": 16, "double": True}
    one, other = (solve(scan, settings(**options, backend=name)) for name in ("pytorch", "tensorflow"))
    assert np.abs(one.object - other.object).max() < 1e-8


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_a_killed_run_goes_on_to_the_same_result(scan, settings, tmp_path, optimiser):
    config, path = settings(**ADAM, optimiser=optimiser, double=True), tmp_path / "state.npz"
    whole = solve(scan, config)

    def stop(done, total, metrics):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    done = solve(scan, config, checkpoint=path)
    np.testing.assert_allclose(done.object, whole.object, atol=1e-9)


def test_numpy_has_no_gradients(scan, settings):
    with pytest.raises(BackendError, match="numpy"):
        solve(scan, settings(engine="gradient", backend="numpy"))
