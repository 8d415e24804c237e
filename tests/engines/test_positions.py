"""Corrections of the positions: steps, limits, the affine fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backend import get_backend
from ptycho.config import EngineConfig
from ptycho.engines import fit_affine, solve
from ptycho.engines.positions import constrain_positions, position_steps
from ptycho.engines.waves import wave_change
from ptycho.physics import extract_patches
from ptycho.physics.fourier import ifftshift2
from tests.engines.conftest import N


def relative_error(positions, truth):
    away = positions - truth
    return float(np.sqrt(((away - away.mean(axis=0)) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("method", ["gradient", "correlation"])
@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_a_step_points_to_the_true_position(clean, method, backend):
    pytest.importorskip({"pytorch": "torch"}.get(backend, backend))
    lender = get_backend(backend)
    wrong = clean.positions[40:60] + np.array([0.3, -0.2])
    patches = extract_patches(clean.object.astype(np.complex128), wrong, N)
    measured = ifftshift2(clean.amplitude(np.arange(40, 60)))
    lent = [lender.asarray(a) for a in (patches, clean.probe.astype(np.complex128), measured.astype(np.float64))]
    change = wave_change(*lent, None, "amplitude", 1.0)
    steps = position_steps(lent[0], lent[1], change.difference, method)
    assert isinstance(steps, np.ndarray)
    assert np.median(steps @ np.array([-0.3, 0.2])) > 0
    if method == "gradient":
        np.testing.assert_allclose(np.median(steps, axis=0), [-0.3, 0.2], atol=0.15)


@pytest.mark.parametrize("method", ["gradient", "correlation"])
def test_wrong_positions_are_corrected(scan, method):
    wrong = scan.positions + np.random.default_rng(1).normal(0, 0.7, scan.positions.shape)
    config = EngineConfig(engine_batch=8, epochs=40, averaged=0, correct_positions=method, positions_from=3)
    done = solve(scan.replace(positions=wrong), config)
    assert relative_error(done.positions, scan.positions) < 0.6 * relative_error(wrong, scan.positions)
    np.testing.assert_array_equal(done.nominal, wrong)
    assert done.history["r_factor"][-1] < 0.08


def test_right_positions_stay(clean):
    from ptycho.engines import State

    start = State(clean.object, clean.object_origin, clean.probe, clean.positions, clean.positions)
    config = EngineConfig(epochs=3, engine_batch=8, double=True, correct_positions="gradient", positions_from=0)
    assert np.abs(solve(clean, config, start).shifts).max() < 1e-5


@given(st.floats(0.97, 1.03), st.floats(0.97, 1.03), st.floats(-2, 2), st.floats(-0.02, 0.02), st.floats(-3, 3))
def test_an_affine_map_is_taken_apart(row, column, degrees, shear, shift):
    positions = np.random.default_rng(0).uniform(0, 100, (40, 2))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[row, shear * column], [0.0, column]])
    centre = positions.mean(axis=0)
    fit = fit_affine(positions, (positions - centre) @ matrix.T + centre + shift)
    np.testing.assert_allclose(fit.scale, [row, column], atol=1e-9)
    assert fit.rotation == pytest.approx(degrees, abs=1e-7)
    assert fit.shear == pytest.approx(shear, abs=1e-9)
    assert fit.rest < 1e-9
    np.testing.assert_allclose(fit.shift, shift, atol=1e-9)


def test_positions_keep_their_limits():
    nominal = np.random.default_rng(0).uniform(0, 100, (40, 2))
    moved = nominal + np.random.default_rng(1).normal(0, 9, (40, 2))
    held = constrain_positions(moved, nominal, EngineConfig(position_limit=2.0))
    assert np.linalg.norm(held - nominal, axis=1).max() <= 2.0 + 1e-9
    together = constrain_positions(moved, nominal, EngineConfig(position_limit=50.0, affine=True))
    assert fit_affine(nominal, together).rest < 1e-9
    np.testing.assert_allclose((together - nominal).mean(axis=0), 0, atol=1e-9)
