"""Registration recovers exactly what was done to an image, and leaves alone what needs nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.evaluation import Transform, coverage, register, remove_ramp
from ptycho.evaluation.resampling import fill_uncovered, shift_image, shift_weight

SHIFTS = st.tuples(st.floats(-6, 6), st.floats(-6, 6))
RAMPS = st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15))


@settings(max_examples=25)
@given(
    shift=SHIFTS,
    ramp=RAMPS,
    phase=st.floats(-3, 3),
    scale=st.floats(0.3, 3),
    seed=st.integers(0, 99),
    strength=st.sampled_from([0.3, 1.0, 2.5]),
)
def test_known_shift_ramp_phase_and_scale_are_recovered(images, shift, ramp, phase, scale, seed, strength):
    field = images.textured((150, 132), seed, strength)
    inner = slice(20, -20)
    estimate = field[inner, inner]
    truth = images.ramped(images.rolled(field, shift)[inner, inner], ramp, phase, scale)
    aligned, found = register(estimate, truth)
    np.testing.assert_allclose(found.shift, shift, atol=0.01)
    np.testing.assert_allclose(found.ramp, ramp, atol=5e-4)
    assert abs(np.angle(np.exp(1j * (found.phase - phase)))) < 0.01
    assert found.scale == pytest.approx(scale, rel=0.005)
    core = slice(12, -12)
    if strength <= 1:  # beyond, the field is not sampled finely enough to be interpolated near a border
        np.testing.assert_allclose(aligned[core, core], truth[core, core], atol=0.03 * scale)


@settings(max_examples=10)
@given(seed=st.integers(0, 99), strength=st.sampled_from([0.0, 0.4, 2.0]))
def test_registering_an_image_on_itself_is_the_identity(images, seed, strength):
    image = images.textured((64, 72), seed, strength)
    aligned, found = register(image, image)
    np.testing.assert_allclose(found.shift, 0, atol=1e-6)
    np.testing.assert_allclose(found.ramp, 0, atol=1e-8)
    assert found.phase == pytest.approx(0, abs=1e-8)
    assert found.scale == pytest.approx(1, rel=1e-8)
    np.testing.assert_allclose(aligned, image, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float32])
def test_precision_of_the_estimate_is_kept(images, dtype):
    field = images.textured((48, 48)).astype(dtype) if dtype != np.float32 else np.abs(images.textured((48, 48)))
    aligned, _ = register(field.astype(dtype), field.astype(dtype))
    assert aligned.dtype == (np.complex128 if dtype == np.complex128 else np.complex64)


@settings(max_examples=8)
@given(shift=SHIFTS, seed=st.integers(0, 99))
def test_shift_is_found_under_noise_and_wild_pixels(images, shift, seed):
    field = images.textured((168, 168), seed)
    estimate, truth = field[20:-20, 20:-20].copy(), images.rolled(field, shift)[20:-20, 20:-20]
    estimate += 0.1 * images.noise(estimate.shape, seed)
    estimate[30, 40] = 1e3  # a pixel that was divided by a vanishing weight
    estimate[90, 17] = -5e2j
    _, found = register(estimate, truth)
    np.testing.assert_allclose(found.shift, shift, atol=0.1)
    assert found.scale == pytest.approx(1, abs=0.05)


def test_only_covered_pixels_decide(images):
    field = images.textured((140, 140), 5)
    estimate, truth = field[20:-20, 20:-20].copy(), images.rolled(field, (2.5, -1.25))[20:-20, 20:-20]
    rows, cols = np.indices(estimate.shape)
    weight = (np.hypot(rows - 50, cols - 48) < 40).astype(float)
    rubbish = np.where(weight > 0, estimate, 3 * images.noise(estimate.shape, 1))
    rubbish[0, 0] = np.nan
    _, found = register(rubbish, truth, weight)
    np.testing.assert_allclose(found.shift, (2.5, -1.25), atol=0.02)


def test_steep_ramp_is_found(images):
    field = images.textured((128, 128), 2, phase=1.0)
    _, found = register(field, images.ramped(field, (0.9, -1.4), 0.3))
    np.testing.assert_allclose(found.ramp, (0.9, -1.4), atol=1e-3)


def test_very_large_images_are_registered_from_their_heart(images, monkeypatch):
    monkeypatch.setattr("ptycho.evaluation.registration._LARGEST", 128)
    field = images.textured((300, 110), 3)
    truth = images.ramped(images.rolled(field, (3.25, -2.5)), (0.01, 0.0), 0.5, 2.0)
    _, found = register(field, truth)
    np.testing.assert_allclose(found.shift, (3.25, -2.5), atol=0.01)
    assert found.phase == pytest.approx(0.5, abs=0.01)
    assert found.scale == pytest.approx(2, rel=1e-3)


@settings(max_examples=10)
@given(seed=st.integers(0, 999))
def test_result_is_never_worse_than_doing_nothing(images, seed):
    estimate, truth = images.noise((48, 48), seed), images.textured((48, 48), seed)

    def unexplained(image):
        overlap = abs(np.vdot(image, truth)) ** 2
        return 1 - overlap / (np.vdot(image, image).real * np.vdot(truth, truth).real)

    aligned, found = register(estimate, truth, shift=False)
    assert found.shift == (0.0, 0.0)
    assert unexplained(aligned) <= unexplained(estimate) + 0.02


def test_each_ambiguity_can_be_kept(images):
    field = images.textured((80, 80), 7)
    truth = images.ramped(images.rolled(field, (1.5, 0.5)), (0.02, 0.0), 0.4, 2.0)
    assert register(field, truth, shift=False)[1].shift == (0.0, 0.0)
    assert register(field, truth, ramp=False)[1].ramp == (0.0, 0.0)
    assert register(field, truth, scale=False)[1].scale == 1.0
    kept = register(field, truth, phase=False)[1]
    assert kept.phase == 0.0
    assert kept.ramp == (0.0, 0.0)


def test_max_shift_bounds_the_search(images):
    field = images.textured((96, 96), 8)
    _, found = register(field, images.rolled(field, (10.0, 0.0)), max_shift=3)
    assert max(map(abs, found.shift)) <= 4


@pytest.mark.parametrize(
    ("estimate", "truth", "weight", "match"),
    [
        (np.ones((4, 5)), np.ones((5, 4)), None, "estimate: got shape"),
        (np.ones((4, 4)), np.ones((4, 4)), np.zeros((4, 4)), "weight"),
        (np.ones((4, 4)), np.ones((4, 4)), np.ones((3, 4)), "weight"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), None, "estimate: got NaN"),
        (np.ones((4, 4)), np.zeros((4, 4)), None, "truth: got zero"),
    ],
)
def test_unusable_input_is_refused(estimate, truth, weight, match):
    with pytest.raises(DataError, match=match):
        register(estimate, truth, weight)


@settings(max_examples=20)
@given(shift=SHIFTS, seed=st.integers(0, 99))
def test_shift_theorem_holds_away_from_the_border(images, shift, seed):
    field = images.textured((120, 110), seed)
    moved = shift_image(field, shift)
    core = slice(16, -16)
    np.testing.assert_allclose(moved[core, core], images.rolled(field, shift)[core, core], atol=0.02)


@given(rows=st.integers(-9, 9), cols=st.integers(-9, 9))
def test_whole_pixel_shifts_are_exact(rows, cols):
    image = np.random.default_rng(1).normal(size=(20, 24))
    moved, weight = shift_image(image, (rows, cols)), shift_weight(np.ones(image.shape), (rows, cols))
    inside = weight > 0.5
    np.testing.assert_array_equal(moved[inside], np.roll(image, (rows, cols), (0, 1))[inside])
    assert np.count_nonzero(inside) == (20 - abs(rows)) * (24 - abs(cols))


def test_real_images_stay_real_and_single_precision_stays_single(images):
    moved = shift_image(np.abs(images.textured((30, 30))).astype(np.float32), (0.5, 0.25))
    assert moved.dtype == np.float32


def test_uncovered_pixels_take_the_nearest_covered_value():
    image = np.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    covered = np.asarray([[True, False, False], [True, False, True]])
    np.testing.assert_array_equal(fill_uncovered(image, covered)[:, 1:], [[1.0, 6.0], [4.0, 6.0]])


@settings(max_examples=20)
@given(ramp=RAMPS, phase=st.floats(-3, 3), seed=st.integers(0, 99))
def test_ramp_and_global_phase_are_removed_without_a_reference(images, ramp, phase, seed):
    image = images.textured((90, 80), seed)
    flat = remove_ramp(images.ramped(image, ramp, phase))
    np.testing.assert_allclose(np.abs(flat), np.abs(image))
    np.testing.assert_allclose(np.angle(flat), np.angle(remove_ramp(image)), atol=1e-6)
    assert abs(np.angle(np.sum(flat))) < 0.02


@pytest.mark.parametrize("ramp", [(1.9, -0.7), (-0.004, 0.003)])
def test_a_ramp_over_a_large_image_is_found_on_fewer_pixels(images, monkeypatch, ramp):
    image = images.textured((300, 420), 3)
    monkeypatch.setattr("ptycho.evaluation.ramps._PLANE_FIT_PIXELS", 2**13)
    covered = np.hypot(*(np.indices(image.shape) - 150)) < 140
    flat = remove_ramp(np.where(covered, images.ramped(image, ramp, 1.0), np.nan), covered)[covered]
    left = np.angle(flat * np.conj(remove_ramp(image, covered)[covered]))
    assert np.abs(left).max() < 0.02


def test_ramp_is_judged_inside_the_coverage_only(images):
    image = images.textured((80, 80), 4)
    weight = np.zeros((80, 80))
    weight[10:60, 10:60] = 1
    tilted = np.where(weight > 0, images.ramped(image, (0.1, -0.05)), images.ramped(image, (-1.0, 1.0)))
    inside = weight > 0
    expected = np.angle(remove_ramp(image, weight))[inside]
    np.testing.assert_allclose(np.angle(remove_ramp(tilted, weight))[inside], expected, atol=1e-6)


def test_coverage_is_relative_to_the_typical_weight():
    weight = np.asarray([[0.0, 0.5, 10.0], [10.0, 10.0, 12.0]])
    np.testing.assert_array_equal(coverage(weight), [[False, False, True], [True, True, True]])
    np.testing.assert_array_equal(coverage(weight, 0), weight > 0)
    with pytest.raises(DataError, match="weight"):
        coverage(np.zeros((3, 3)))


def test_transform_applies_in_the_documented_order(images):
    image = images.textured((60, 60), 9)
    transform = Transform(shift=(2.0, -3.0), phase=0.4, ramp=(0.02, -0.03), scale=1.5)
    expected = images.ramped(np.roll(image, (2, -3), (0, 1)), (0.02, -0.03), 0.4, 1.5)
    np.testing.assert_allclose(transform.apply(image)[5:-5, 5:-5], expected[5:-5, 5:-5])
