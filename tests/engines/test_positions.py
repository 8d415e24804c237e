"""Corrections of the positions: steps, limits, the affine fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backends import get_backend
from ptycho.config import EngineConfig
from ptycho.engines import fit_affine, solve
from ptycho.engines.exit_waves import exit_wave_change
from ptycho.engines.position_correction import PositionCorrection
from ptycho.engines.position_correction.affine import mapped_image
from ptycho.engines.position_correction.epoch import constrain_positions, farthest_move
from ptycho.engines.position_correction.outliers import find_outliers, search_outliers
from ptycho.physics import extract_patches, focused_probe, lines_object, raster_positions, simulate
from ptycho.physics.fourier import ifftshift2
from tests.engines.conftest import N, made


def correction(method):
    return PositionCorrection(EngineConfig(correct_positions=method), np.zeros((1, 2)), N)


def relative_error(positions, truth):
    away = positions - truth
    return float(np.sqrt(((away - away.mean(axis=0)) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("method", ["gradient", "correlation"])
@pytest.mark.parametrize("backend", ["numpy", "pytorch"])
def test_a_step_points_to_the_true_position(clean, method, backend):
    pytest.importorskip({"pytorch": "torch"}.get(backend, backend))
    lender = get_backend(backend)
    wrong = clean.positions[40:60] + np.array([0.3, -0.2])
    change = asked_at(clean, wrong, np.arange(40, 60), lender)
    moves = correction(method)
    moves.add(np.arange(20), change.position_slices)
    steps = moves.apply(np.zeros((20, 2)), 1.0)
    assert np.median(steps @ np.array([-0.3, 0.2])) > 0
    if method == "gradient":
        np.testing.assert_allclose(np.median(steps, axis=0), [-0.3, 0.2], atol=0.15)


def asked_at(scan, positions, index, lender, noise="amplitude"):
    patches = extract_patches(scan.object.astype(np.complex128), positions, N)
    measured = ifftshift2(scan.amplitude(index)).astype(np.float64)
    lent = [lender.asarray(a) for a in (patches, scan.probe.astype(np.complex128), measured)]
    return exit_wave_change(*lent, None, noise, 1.0, for_positions=True)


def mapped(scan, scale=0.0, degrees=0.0):
    angle, centre = np.deg2rad(degrees), scan.positions.mean(axis=0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scan.positions - centre) @ (turn * (1 + scale)).T + centre


@pytest.mark.parametrize(("scale", "degrees"), [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.5), (0.0, -0.5)])
def test_a_common_map_shows_though_the_object_took_it_up(clean, scale, degrees):
    wrong, every = mapped(clean, scale, degrees), np.arange(len(clean))
    error = fit_affine(clean.positions, wrong).matrix - np.eye(2)
    stretched = clean.replace(object=mapped_image(clean.object, error + np.eye(2), clean.positions.mean(axis=0)))
    change = asked_at(stretched, wrong, every, get_backend("numpy"))
    moves = correction("gradient")
    moves.add(every, change.position_slices)
    found = np.eye(2) - moves.common_map()
    assert 0.3 < np.sum(found * error) / np.sum(error * error) < 2.5
    np.testing.assert_allclose(moves.common_map(), np.eye(2))  # told once


@pytest.mark.parametrize("photons", [1e5, 1e6])
def test_dim_pixels_look_less_like_a_larger_scale_than_their_amplitudes(photons):
    dim = made(nphotons=photons)
    every, change = np.arange(len(dim)), asked_at(dim, dim.positions, np.arange(len(dim)), get_backend("numpy"))

    def stretch(slices):
        moves = correction("gradient")
        moves.add(every, slices)
        return float(np.trace(moves.common_map())) / 2 - 1

    assert stretch(change.slices) > 1e-3
    assert abs(stretch(change.position_slices)) < 0.5 * stretch(change.slices)


def test_where_counts_move_the_object_they_judge_as_well(clean):
    lender, some = get_backend("numpy"), np.arange(3)
    change = asked_at(clean, clean.positions[:3] + 0.2, some, lender, "poisson")
    assert change.position_slices is change.slices
    patches = extract_patches(clean.object.astype(np.complex128), clean.positions[:3], N)
    measured = ifftshift2(clean.amplitude(some)).astype(np.float64)
    assert exit_wave_change(patches, clean.probe, measured, None, "amplitude", 1.0).position_slices == ()


def test_positions_of_amplitudes_in_any_unit_are_those_of_the_counts(scan):
    config = EngineConfig(epochs=4, engine_batch_size=8, double=True, correct_positions="gradient", positions_from=1)
    wrong = scan.replace(positions=mapped(scan, 0.01, 0.5))
    other = wrong.replace(patterns=0.03 * np.sqrt(scan.patterns.astype(np.float64)), measurement="amplitude")
    np.testing.assert_allclose(solve(other, config).positions, solve(wrong, config).positions, atol=1e-6)


@pytest.mark.parametrize("method", ["gradient", "correlation"])
def test_wrong_positions_are_corrected(scan, method):
    wrong = scan.positions + np.random.default_rng(1).normal(0, 0.7, scan.positions.shape)
    config = EngineConfig(
        engine_batch_size=8, epochs=40, full_batch_epochs=0, correct_positions=method, positions_from=3
    )
    done = solve(scan.replace(positions=wrong), config)
    assert relative_error(done.positions, scan.positions) < 0.3 * relative_error(wrong, scan.positions)
    np.testing.assert_array_equal(done.nominal, wrong)
    assert done.history["r_factor"][-1] < 0.08


@pytest.mark.parametrize("seed", [1, 2])
def test_two_pixels_of_random_error_become_a_tenth(scan, seed):
    wrong = scan.positions + np.random.default_rng(seed).normal(0, 2 / np.sqrt(2), scan.positions.shape)
    assert relative_error(wrong, scan.positions) > 1.8
    done = solve(scan.replace(positions=wrong), EngineConfig(epochs=60, correct_positions="gradient"))
    assert relative_error(done.positions, scan.positions) < 0.1


def test_right_positions_come_back_to_their_scale_though_the_probe_was_out_of_focus(scan):
    wrong = focused_probe(N, aperture=0.5, size=1.1 * 0.45)[None]
    done = solve(scan.replace(probe=wrong), EngineConfig(epochs=60, correct_positions="gradient"))
    assert relative_error(done.positions, scan.positions) < 0.12


def test_a_wrong_scale_is_told_from_the_noise_of_dim_pixels():
    image = lines_object((160, 160), 3, amplitude=(0.6, 1.0), phase=(-0.8, 0.8)).astype(np.complex128)
    positions = raster_positions((160, 160), 64, 8.0, jitter=1.5, rng=1)
    scan = simulate(image, focused_probe(64, aperture=0.5, size=0.45), positions, 1e6, 5)
    config = EngineConfig(epochs=30, correct_positions="gradient", positions_from=2)
    done = solve(scan.replace(positions=mapped(scan, 0.01, 0.5)), config)
    assert relative_error(done.positions, scan.positions) < 0.1


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_wrong_scale_and_rotation_become_a_tenth(scan, affine, sign):
    wrong = mapped(scan, 0.01 * sign, 0.5 * sign)
    assert relative_error(wrong, scan.positions) > 0.3
    done = solve(scan.replace(positions=wrong), EngineConfig(epochs=60, correct_positions="gradient", affine=affine))
    assert relative_error(done.positions, scan.positions) < 0.1
    assert abs(fit_affine(scan.positions, done.positions).rotation) < 0.05


def test_positions_far_away_are_searched_for():
    nominal = np.random.default_rng(0).uniform(0, 100, (60, 2))
    misfits = np.random.default_rng(1).uniform(0.1, 0.12, 60)
    misfits[[7, 9]] = 0.4, np.nan
    assert find_outliers(misfits).tolist() == [7]
    target = nominal[7] + 2.0
    found = search_outliers(np.array([7]), nominal, nominal, 5.0, lambda k, at: ((at - target) ** 2).sum(axis=1))
    assert np.linalg.norm(found[7] - target) < 1e-6
    np.testing.assert_array_equal(np.delete(found, 7, 0), np.delete(nominal, 7, 0))
    stay = search_outliers(np.array([7]), nominal, nominal, 5.0, lambda k, at: np.linspace(1, 0.9, len(at)))
    np.testing.assert_array_equal(stay, nominal)


def test_right_positions_stay(clean):
    from ptycho.engines import State

    start = State(clean.object, clean.object_origin, clean.probe, clean.positions, clean.positions)
    config = EngineConfig(epochs=3, engine_batch_size=8, double=True, correct_positions="gradient", positions_from=0)
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
    held = constrain_positions(moved, nominal, 2.0, affine=False)
    assert np.linalg.norm(held - nominal, axis=1).max() <= 2.0 + 1e-9
    together = constrain_positions(moved, nominal, 50.0, affine=True)
    assert fit_affine(nominal, together).rest < 1e-9
    np.testing.assert_allclose((together - nominal).mean(axis=0), 0, atol=1e-9)
    assert farthest_move(EngineConfig(position_limit=2.0), nominal, 64) == 2.0
    assert 8 < farthest_move(EngineConfig(), nominal, 64) <= 10
