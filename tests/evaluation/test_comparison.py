"""Placing two objects on common pixels, and the figures that come from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.evaluation import compare, evaluate, split_scan_frc
from ptycho.evaluation.comparison import _unwrapped


@dataclass
class Placed:
    object: Any
    weight: Any
    origin: Any
    pixel_size: float | None = None


def cut(field, low, high, **changes):
    """The part of a field from ``low`` to ``high``, placed where it came from."""
    part = field[low[0] : high[0], low[1] : high[1]]
    return Placed(**{"object": part, "weight": np.ones(part.shape), "origin": low, **changes})


@pytest.fixture(scope="module")
def field(images):
    return images.textured((128, 140), 11)


def test_a_perfect_result_has_perfect_figures(field):
    figures = evaluate(cut(field, (10, 20), (110, 130)), field)
    assert figures["ssim_amplitude"] == pytest.approx(1)
    assert figures["ssim_phase"] == pytest.approx(1)
    assert figures["psnr_amplitude"] > 100
    assert figures["mae_phase"] < 1e-6
    for name in ("complex", "amplitude", "phase"):
        assert figures[f"frc_rings_half_bit_{name}"] == figures["frc_n_rings"] == 50
    assert all(isinstance(value, float) for value in figures.values())


@settings(max_examples=8)
@given(
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    ramp=st.tuples(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05)),
    phase=st.floats(-3, 3),
    scale=st.floats(0.5, 2),
)
def test_figures_do_not_depend_on_what_ptychography_cannot_know(images, field, shift, ramp, phase, scale):
    moved = images.ramped(images.rolled(field, shift), ramp, phase, scale)
    figures = evaluate(cut(moved, (10, 20), (110, 130)), field)
    np.testing.assert_allclose((figures["shift_row"], figures["shift_col"]), np.negative(shift), atol=0.02)
    assert figures["amplitude_scale"] == pytest.approx(1 / scale, rel=0.01)
    assert figures["ssim_amplitude"] > 0.97
    assert figures["ssim_phase"] > 0.97
    assert figures["frc_rings_0.5_complex"] > 0.6 * figures["frc_n_rings"]


def test_fractional_origins_are_honoured(images, field):
    half = images.rolled(field, (-0.5, -0.25))  # its pixel (0, 0) shows what lies at (0.5, 0.25)
    figures = evaluate(cut(half, (10, 20), (110, 130), origin=(10.5, 20.25)), field)
    np.testing.assert_allclose((figures["shift_row"], figures["shift_col"]), 0, atol=0.01)
    assert figures["ssim_phase"] > 0.98


def test_the_truths_origin_is_honoured(field):
    class Scan:
        object = field
        object_origin = (100.0, -50.0)

    figures = evaluate(cut(field, (10, 20), (110, 130), origin=(110.0, -30.0)), Scan)
    assert figures["mae_amplitude"] < 1e-6
    assert figures["compared_pixels"] == 100 * 110
    with pytest.raises(DataError, match="share no area"):
        evaluate(cut(field, (10, 20), (110, 130), origin=(300.0, 20.0)), Scan)
    reconstruction = cut(field, (0, 0), field.shape)
    assert evaluate(cut(field, (10, 20), (110, 130)), reconstruction)["mae_amplitude"] < 1e-6


def test_a_scan_without_object_is_refused(field):
    class Scan:
        object = None

    with pytest.raises(DataError, match="holds no object"):
        evaluate(cut(field, (10, 20), (110, 130)), Scan)


def test_only_the_covered_area_counts(images, field):
    weight = np.zeros((100, 110))
    weight[20:80, 15:100] = 7.0
    weight[22, 15] = 0.01  # touched, but hardly
    spoiled = np.where(weight > 1, field[10:110, 20:130], 5 * images.noise((100, 110), 0))
    comparison = compare(Placed(spoiled, weight, (10, 20)), field)
    assert comparison.mask.shape == (60, 85)
    assert np.count_nonzero(~comparison.mask) == 1
    assert comparison.origin == (30.0, 35.0)
    assert comparison.metrics["mae_amplitude"] < 1e-6
    trimmed = compare(Placed(spoiled, weight, (10, 20)), field, trim=5)
    assert trimmed.mask.shape[0] == 50


def test_phase_wraps_are_no_difference(images, field):
    steep = images.ramped(images.textured((128, 140), 3, phase=2.2, sigma=6), (0.3, 0.2))
    figures = evaluate(cut(steep, (10, 20), (110, 130)), steep)
    assert figures["mae_phase"] < 1e-5
    assert figures["frc_rings_0.5_phase"] == figures["frc_n_rings"]
    unwrapped = _unwrapped(np.exp(1j * np.linspace(-6, 6, 60))[None, :] * np.ones((8, 1)), np.ones((8, 60), bool))
    np.testing.assert_allclose(np.diff(unwrapped, axis=1), 12 / 59, atol=1e-9)


def test_noise_lowers_the_figures_in_order(images, field):
    results = []
    for level in (0.02, 0.1, 0.4):
        noisy = field + level * images.noise(field.shape, 1)
        results.append(evaluate(cut(noisy, (10, 20), (110, 130)), field))
    for key in ("ssim_amplitude", "ssim_phase", "psnr_amplitude", "psnr_phase", "frc_cutoff_0.5_complex"):
        values = [figures[key] for figures in results]
        assert values == sorted(values, reverse=True), key
        assert values[0] > values[-1], key


def test_ranges_can_be_stated(field, images):
    noisy = cut(field + 0.05 * images.noise(field.shape, 2), (10, 20), (110, 130))
    own = evaluate(noisy, field)
    stated = evaluate(noisy, field, phase_range=2 * np.pi, amplitude_range=2.0)
    assert stated["data_range_phase"] == 2 * np.pi
    assert stated["ssim_phase"] > own["ssim_phase"]
    difference = 20 * np.log10(2.0 / own["data_range_amplitude"])
    assert stated["psnr_amplitude"] - own["psnr_amplitude"] == pytest.approx(difference)


def test_a_flat_truth_can_still_be_compared():
    figures = evaluate(Placed(np.full((40, 40), 1.5 + 0j), np.ones((40, 40)), (0, 0)), np.ones((40, 40), complex))
    assert figures["mae_amplitude"] < 1e-9
    assert figures["data_range_amplitude"] == 1.0


def test_halves_of_a_scan_agree_up_to_their_noise(images, field):
    def half(seed, low, high):
        return cut(images.ramped(field, (0.01 * seed, 0), seed) + 0.05 * images.noise(field.shape, seed), low, high)

    comparison = split_scan_frc(half(1, (10, 20), (110, 130)), half(2, (6, 24), (108, 136)))
    assert comparison.mask.shape == (98, 106)
    assert set(comparison.frc) == {"complex", "amplitude", "phase"}
    assert 0.1 < comparison.metrics["frc_cutoff_half_bit_complex"] < 0.5
    assert comparison.metrics["ramp_row"] == pytest.approx(0.01, abs=1e-3)
    assert "ssim_phase" not in comparison.metrics


def test_of_large_objects_the_middles_are_compared(images, field, monkeypatch):
    monkeypatch.setattr("ptycho.evaluation.comparison.COMPARED_SIDE", 64)
    one = cut(field, (10, 20), (110, 130))
    other = Placed(images.rolled(field, (0, -0.5))[6:108, 24:136], np.ones((102, 112)), (6, 24.5))
    comparison = split_scan_frc(one, other)
    assert comparison.mask.shape == (64, 64)
    np.testing.assert_allclose(comparison.origin, (28, 43), atol=2)
    np.testing.assert_allclose((comparison.metrics["shift_row"], comparison.metrics["shift_col"]), 0, atol=0.02)
    assert comparison.metrics["frc_rings_half_bit_complex"] > 25
    far = Placed(field, np.ones(field.shape), (500, 500))
    with pytest.raises(DataError, match="share no area"):
        split_scan_frc(one, far)


def test_the_pixel_size_travels_with_the_curves(field):
    result = cut(field, (10, 20), (110, 130), pixel_size=3e-9)
    assert compare(result, field).frc["phase"].pixel_size == 3e-9
    assert split_scan_frc(result, result).frc["complex"].resolution() == pytest.approx(3e-9)


def test_too_little_in_common_is_refused(field):
    with pytest.raises(DataError, match="share no area of 16 x 16"):
        split_scan_frc(cut(field, (0, 0), (50, 140)), cut(field, (45, 0), (128, 140)))
    with pytest.raises(DataError, match="weight"):
        compare(cut(field, (0, 0), (50, 50), weight=np.zeros((50, 50))), field)
