"""Difference map and least-squares maximum likelihood: recovery, fixed points, masks, units, parity."""

import importlib.util

import numpy as np
import pytest

from ptycho.engines import State, solve
from tests.engines.conftest import N, Placed, made
from tests.engines.test_pie import OTHERS, agree

ENGINES = ["lsqml", "difference_map"]


@pytest.mark.parametrize(("engine", "epochs"), [("lsqml", 40), ("difference_map", 80)])
def test_recovers_a_simulated_object(scan, settings, engine, epochs):
    done = Placed(solve(scan, settings(engine=engine, epochs=epochs)))
    assert done.metrics(scan)["mse_phase"] ** 0.5 < 0.1
    assert done.r_factor(scan) < 0.06


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("noise", ["amplitude", "poisson", "anscombe"])
def test_stays_at_the_truth(clean, settings, engine, noise):
    start = State(clean.object, clean.object_origin, clean.probe, clean.positions, clean.positions)
    done = solve(clean, settings(engine=engine, noise=noise, double=True, epochs=3), start)
    assert max(done.history["r_factor"]) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_pixels_change_nothing(scan, settings, engine):
    mask = np.ones((N, N), dtype=bool)
    mask[5:9, 12] = False
    broken = np.where(mask, scan.patterns, 60000).astype(scan.patterns.dtype)
    one = solve(scan.replace(mask=mask), settings(engine=engine))
    other = solve(scan.replace(mask=mask, patterns=broken), settings(engine=engine))
    np.testing.assert_array_equal(one.object, other.object)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_nan_where_nothing_is_predicted(scan, settings, engine):
    dark = State(np.zeros_like(scan.object), scan.object_origin, scan.probe, scan.positions, scan.positions)
    assert np.isfinite(solve(scan, settings(engine=engine, epochs=2, probe_from=9), dark).object).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_unit_of_the_counts_does_not_matter(scan, settings, engine):
    other = scan.replace(patterns=scan.patterns.astype(np.float64) * 1e-7, probe=scan.probe * 3.0)
    one, two = (solve(s, settings(engine=engine, double=True)) for s in (scan, other))
    np.testing.assert_allclose(two.object, one.object, atol=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow"])
def test_backends_walk_the_same_way(settings, backend, engine):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    agree(made(modes=2).subset(slice(0, 48)), settings, backend, True, engine=engine)


def test_the_difference_map_goes_on_after_a_kill(scan, settings, tmp_path):
    config, path = settings(engine="difference_map", double=True), tmp_path / "state.npz"
    whole = solve(scan, config)

    def stop(done, total, metrics):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    np.testing.assert_allclose(solve(scan, config, checkpoint=path).object, whole.object, atol=1e-9)
