"""A beam that varies from pattern to pattern: recovery, the turn into principal components, parity, resuming."""

import importlib.util

import numpy as np
import pytest

from ptycho.engines import State, load_state, predictor, save_state, solve
from ptycho.engines.opr import first_components, principal, probes_of
from ptycho.engines.pie import RPIE
from ptycho.errors import ConfigError
from ptycho.physics import extract_patches
from ptycho.physics.fourier import fft2, fftshift2, ifft2
from ptycho.workflows.refine import reconstruct_iteratively, refine_result
from ptycho.workflows.results import load_reconstruction, save_reconstruction
from tests.engines.conftest import N, Placed, made
from tests.engines.test_pie import OTHERS, agree

VARYING = {"opr_modes": 2, "opr_from": 2}


def unsteady(scan, jitter=0.7, spread=0.2):
    """The scan with a beam of changing brightness that wanders by ``jitter`` pixels; its true brightness."""
    rng = np.random.default_rng(0)
    brightness = np.exp(rng.normal(0, spread, len(scan)))
    rows, cols = rng.normal(0, jitter / 2**0.5, (2, len(scan), 1, 1))
    turns = np.fft.fftfreq(N)
    ramps = np.exp(-2j * np.pi * (rows * turns[:, None] + cols * turns))
    beams = brightness[:, None, None] * ifft2(fft2(scan.probe[0]) * ramps)
    expected = np.abs(fftshift2(fft2(extract_patches(scan.object, scan.positions, N) * beams))) ** 2
    return scan.replace(patterns=rng.poisson(expected).astype(np.uint32)), brightness


@pytest.fixture(scope="module")
def wandering(scan):
    return unsteady(scan)


@pytest.mark.parametrize("engine", ["rpie", "lsqml"])
def test_a_wandering_beam_is_told_from_the_object(wandering, settings, engine):
    scan, brightness = wandering
    plain, varied = (solve(scan, settings(engine=engine, epochs=40, engine_batch_size=16, opr_modes=v)) for v in (0, 2))
    assert varied.history["r_factor"][-1] < 0.4 * plain.history["r_factor"][-1]
    wrong = [Placed(state).metrics(scan) for state in (plain, varied)]
    assert wrong[1]["mse_phase"] < 0.5 * wrong[0]["mse_phase"]
    assert wrong[1]["mse_amplitude"] < 0.1 * wrong[0]["mse_amplitude"]
    assert np.corrcoef(varied.weights[:, 0].real, brightness)[0, 1] > 0.97
    predicted = predictor(varied, scan, settings())(np.arange(len(scan)))
    measured = scan.amplitude(slice(None))
    assert np.abs(predicted - measured).sum() / measured.sum() < 1.2 * varied.history["r_factor"][-1]


def test_dim_patterns_are_not_taken_for_misplaced_ones(settings):
    """Strays are found by their misfit, each with its own beam."""
    scan = unsteady(made(), jitter=0.0, spread=0.4)[0]
    engine = RPIE(scan, settings(epochs=30, engine_batch_size=16, **VARYING))
    for _ in range(12):
        r_factor = engine.run_epoch(30)
    misfits = engine.relative_misfits(np.arange(len(scan)), engine.positions)
    assert np.nanmean(misfits) < 1.5 * r_factor
    assert np.nanmax(misfits) < 6 * r_factor


def test_a_steady_beam_stays_steady(clean, settings):
    start = State(clean.object, clean.object_origin, clean.probe, clean.positions, clean.positions)
    done = solve(clean, settings(double=True, epochs=4, **VARYING), start)
    assert max(done.history["r_factor"]) < 1e-6
    np.testing.assert_allclose(done.weights[:, 0], 1.0, atol=1e-5)
    assert np.abs(done.components).max() < 1e-4 * np.abs(done.probe).max()


def test_principal_components_leave_every_beam_as_it_is():
    rng = np.random.default_rng(3)

    def drawn(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    probe, components, weights = drawn(2, 8, 8), drawn(3, 8, 8), drawn(40, 4)
    weights[:, 0] = rng.uniform(3, 5, 40)
    turned = principal(probe, components, weights)
    before, after = probes_of(probe, components, weights), probes_of(*turned)
    for mode in (0, 1):  # the phase of a whole beam is free
        overlap = np.einsum("kij,kij->k", before[:, mode].conj(), after[:, mode])
        sizes = np.linalg.norm(before[:, mode], axis=(1, 2)) * np.linalg.norm(after[:, mode], axis=(1, 2))
        np.testing.assert_allclose(np.abs(overlap), sizes, rtol=1e-9)
    flat = np.concatenate([turned[0][:1], turned[1]]).reshape(4, -1)
    gram = flat @ flat.conj().T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-9 * gram.real.max()
    assert (np.diff(np.diag(gram).real[1:]) <= 0).all()
    np.testing.assert_allclose((np.abs(turned[2][:, 1:]) ** 2).mean(axis=0), 1.0)
    assert turned[2][:, 0].real.mean() == pytest.approx(1.0)


def test_the_first_components_are_displacements(scan):
    wave = scan.probe[0].astype(np.complex128)
    moved = wave - np.roll(wave, 1, axis=0)
    span = np.concatenate([wave[None], first_components(wave, 2)]).reshape(3, -1)
    basis = np.linalg.qr(span.T)[0]
    rest = moved.ravel() - basis @ (basis.conj().T @ moved.ravel())
    assert np.linalg.norm(rest) < 0.5 * np.linalg.norm(moved)


@pytest.mark.parametrize(("backend", "double"), [("pytorch", True), ("pytorch", False), ("tensorflow", True)])
def test_backends_walk_the_same_way(wandering, settings, backend, double):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    scan = wandering[0].subset(slice(0, 40))
    agree(scan, settings, backend, double, **VARYING, correct_positions="gradient", positions_from=3)


def test_the_unit_of_the_counts_does_not_matter(wandering, settings):
    scan = wandering[0].subset(slice(0, 40))
    other = scan.replace(patterns=scan.patterns.astype(np.float64) * 1e-7, probe=scan.probe * 3.0)
    one, two = (solve(s, settings(double=True, **VARYING)) for s in (scan, other))
    np.testing.assert_allclose(two.object, one.object, atol=1e-8)
    np.testing.assert_allclose(two.weights[:, 0], one.weights[:, 0], atol=1e-8)


def test_a_killed_run_goes_on_to_the_same_result(wandering, settings, tmp_path):
    scan, config, path = wandering[0], settings(double=True, epochs=6, modes=2, **VARYING), tmp_path / "state.npz"
    whole = solve(scan, config)

    def stop(done, total, metrics):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    done = solve(scan, config, checkpoint=path)
    for name in ("object", "probe", "components", "weights"):
        np.testing.assert_allclose(getattr(done, name), getattr(whole, name), atol=1e-8 * np.abs(whole.probe).max())
    save_state(done, path)
    np.testing.assert_array_equal(load_state(path).weights, done.weights)


def test_no_nan_where_nothing_is_predicted(settings):
    scan = made()
    dark = State(np.zeros_like(scan.object), scan.object_origin, scan.probe, scan.positions, scan.positions)
    done = solve(scan, settings(opr_modes=2, opr_from=0), dark)
    assert np.isfinite(done.object).all()
    assert np.isfinite(done.weights).all()


def test_results_keep_the_variation_and_go_on_from_it(wandering, settings, tmp_path):
    scan = wandering[0]
    result = reconstruct_iteratively(scan, settings(epochs=20, **VARYING))
    assert result.metrics["probe_brightness_spread"] == pytest.approx(0.2, abs=0.05)
    assert 0 < result.metrics["probe_variation_power"] < 0.2
    save_reconstruction(result, tmp_path / "out")
    again = load_reconstruction(tmp_path / "out")
    np.testing.assert_array_equal(again.components, result.components)
    alike, varied = (refine_result(again, scan, settings(epochs=2, opr_modes=v, opr_from=0)) for v in (0, 2))
    assert varied.history["r_factor"][0] < 1.3 * result.history["r_factor"][-1]
    assert varied.metrics["r_factor"] < 0.5 * alike.metrics["r_factor"]


@pytest.mark.parametrize("engine", ["difference_map", "raar", "gradient"])
def test_other_engines_say_that_they_cannot(scan, settings, engine):
    with pytest.raises(ConfigError, match="opr_modes = 2 is for rpie, epie and lsqml"):
        solve(scan, settings(engine=engine, **VARYING))
