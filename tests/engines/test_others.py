"""Difference map, RAAR and least-squares maximum likelihood: recovery, fixed points, masks, units, parity."""

import importlib.util

import numpy as np
import pytest

from ptycho.engines import State, solve
from ptycho.engines.raar import RAAR, RAARConfig
from tests.engines.conftest import N, Placed, made
from tests.engines.test_pie import OTHERS, agree

ENGINES = ["lsqml", "difference_map", "raar"]


@pytest.mark.parametrize(("engine", "epochs"), [("lsqml", 40), ("difference_map", 80), ("raar", 60)])
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
@pytest.mark.parametrize("backend", OTHERS)
def test_backends_walk_the_same_way(settings, backend, engine):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    double = backend != "jax"  # double precision is a switch of the whole process there
    agree(made(modes=2).subset(slice(0, 48)), settings, backend, double, engine=engine)


@pytest.mark.parametrize("beta", [0.6, 0.75, 1.0])
def test_raar_is_the_mapping_of_its_paper(clean, beta):
    """One epoch with a probe that is known, against R_O R_F and the projection on the measured amplitudes."""
    config = RAARConfig(epochs=1, beta=beta, probe_step=0.0, double=True)
    start = State(clean.object * 0.9, clean.object_origin, clean.probe, clean.positions, clean.positions)
    engine = RAAR(clean, config, start)
    parts = engine.parts()
    waves = [engine.auxiliary[f"waves_{k}"] for k in range(len(parts))]
    projected = [engine.with_measured_amplitude(w, engine.data(part)) for w, part in zip(waves, parts, strict=True)]
    reflected = [2 * p - w for p, w in zip(projected, waves, strict=True)]
    engine.visit(1)
    for k, part in enumerate(parts):
        twice = 2 * engine.explained(part) - reflected[k]
        expected = beta / 2 * (twice + waves[k]) + (1 - beta) * projected[k]
        np.testing.assert_allclose(engine.auxiliary[f"waves_{k}"], expected, atol=1e-12)


@pytest.mark.parametrize("engine", ["difference_map", "raar"])
def test_engines_that_keep_the_waves_go_on_after_a_kill(scan, settings, tmp_path, engine):
    config, path = settings(engine=engine, double=True), tmp_path / "state.npz"
    whole = solve(scan, config)

    def stop(done, total, metrics):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    np.testing.assert_allclose(solve(scan, config, checkpoint=path).object, whole.object, atol=1e-9)
