"""Fourier ring correlation of images whose correlation is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.evaluation import FRC, fourier_ring_correlation, half_bit_threshold, soft_window


@pytest.mark.parametrize("window", ["soft", "none"])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_independent_white_noise_does_not_correlate(images, window, kind):
    first, second = images.noise((128, 128), 1), images.noise((128, 128), 2)
    if kind == "real":
        first, second = first.real, second.real
    curve = fourier_ring_correlation(first, second, window)
    assert abs(np.mean(curve.correlation[5:])) < 0.03
    # each ring scatters as 1/sqrt(2 n) about zero, n the number of independent coefficients
    spread = np.std(curve.correlation * np.sqrt(2 * curve.independent))
    assert 0.7 < spread < 1.3
    assert curve.rings("half-bit") <= 1
    assert curve.rings(0.5) <= 1


@settings(max_examples=10)
@given(seed=st.integers(0, 99), rows=st.integers(32, 70), cols=st.integers(32, 70))
def test_identical_images_correlate_everywhere(images, seed, rows, cols):
    image = images.textured((rows, cols), seed)
    curve = fourier_ring_correlation(image, image)
    np.testing.assert_allclose(curve.correlation, 1, atol=1e-9)
    assert len(curve) == curve.rings(0.5) == curve.rings("half-bit") == min(rows, cols) // 2
    assert curve.cutoff(0.5) == pytest.approx(0.5, abs=1 / min(rows, cols))


@settings(max_examples=15)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 99))
def test_scale_and_offset_do_not_matter_but_sign_does(images, scale, seed):
    first, second = images.textured((64, 64), seed), images.textured((64, 64), seed + 1)
    curve = fourier_ring_correlation(first, second).correlation
    np.testing.assert_allclose(fourier_ring_correlation(first, scale * second + 3).correlation, curve, atol=1e-9)
    np.testing.assert_allclose(fourier_ring_correlation(first, -second).correlation, -curve, atol=1e-12)
    np.testing.assert_allclose(fourier_ring_correlation(second, first).correlation, curve, atol=1e-12)


@pytest.mark.parametrize(
    ("correlation", "rings"),
    [
        ([0.9, 0.9, 0.9, 0.9, 0.2, 0.9], 4),
        ([0.1, 0.2, 0.9, 0.9, 0.2, 0.9], 4),  # two innermost rings of a few coefficients are low by chance
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9], 6),
        ([0.1, 0.2, 0.2, 0.9, 0.9, 0.9], 0),  # the first ring of many says the same
        ([0.9, 0.2, 0.2, 0.9, 0.9, 0.9], 1),
    ],
)
def test_few_coefficients_do_not_decide_alone(correlation, rings):
    frequency, independent = np.arange(1, 7) / 12, np.array([3.0, 7.0, 12.0, 20.0, 30.0, 40.0])
    assert FRC(frequency, np.array(correlation), independent).rings(0.5) == rings
    alone = FRC(frequency[:2], np.array(correlation[:2]), independent[:2])
    assert alone.rings(0.5) == int(np.argmax([*(alone.correlation < 0.5), True]))


def test_signal_below_a_frequency_and_noise_above_crosses_there(images):
    side, edge = 160, 0.2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    signal = np.fft.ifft2(np.fft.fft2(images.noise((side, side), 0)) * (frequency < edge))
    # soft edges smear the signal over a few rings, so noise at a hundredth of it would hide the edge
    pair = [signal + 0.2 * images.noise((side, side), seed) for seed in (1, 2)]
    curve = fourier_ring_correlation(*pair, pixel_size=2e-9)
    for threshold in ("half-bit", 0.5):
        assert curve.cutoff(threshold) == pytest.approx(edge, abs=0.02)
        assert curve.rings(threshold) == pytest.approx(edge * side, abs=3)
        assert curve.resolution(threshold) == pytest.approx(0.5 / edge * 2e-9, rel=0.1)
    np.testing.assert_allclose(curve.frequency_per_metre, curve.frequency / 2e-9)


def test_known_signal_to_noise_gives_its_correlation(images):
    side, snr = 256, 1.0
    signal = images.noise((side, side), 0) * np.sqrt(snr)
    pair = [signal + images.noise((side, side), seed) for seed in (1, 2)]
    curve = fourier_ring_correlation(*pair)
    assert np.mean(curve.correlation[20:]) == pytest.approx(snr / (snr + 1), abs=0.02)


def test_half_bit_threshold_is_the_published_curve():
    np.testing.assert_allclose(half_bit_threshold(np.asarray([100.0])), (0.2071 + 0.19102) / (1.2071 + 0.09102))
    assert half_bit_threshold(np.asarray([1e12]))[0] == pytest.approx(0.2071 / 1.2071, rel=1e-4)
    assert half_bit_threshold(np.asarray([0.1]))[0] < 0.9


def test_crossing_is_the_first_one_and_is_interpolated():
    curve = FRC(np.asarray([0.1, 0.2, 0.3, 0.4]), np.asarray([0.9, 0.7, 0.3, 0.8]), np.full(4, 1e9), None)
    assert curve.rings(0.5) == 2
    assert curve.cutoff(0.5) == pytest.approx(0.25)
    assert curve.resolution(0.5) == pytest.approx(2.0)
    assert curve.frequency_per_metre is None
    dead = FRC(curve.frequency, np.zeros(4), curve.independent)
    assert dead.rings(0.5) == 0
    assert dead.cutoff(0.5) == 0
    assert dead.resolution(0.5) is None
    with pytest.raises(DataError, match="threshold"):
        curve.rings("one-bit")


def test_oblong_images_keep_their_pixels(images):
    image = images.textured((40, 100), 3)
    curve = fourier_ring_correlation(image, image)
    assert len(curve) == 20
    np.testing.assert_allclose(curve.frequency, np.arange(1, 21) / 40)


def test_a_shared_seam_is_taken_off_by_the_soft_window(images):
    """Two different noises on the same frame with a common jump at the border: only the unwindowed pair correlates."""
    trend = np.linspace(0, 20, 96)[:, None] * np.ones(96)
    pair = [trend + images.noise((96, 96), seed).real for seed in (1, 2)]
    bare, soft = (fourier_ring_correlation(*pair, window).correlation[16:] for window in ("none", "soft"))
    assert np.mean(bare) > 0.3
    assert abs(np.mean(soft)) < 0.1


def test_images_without_power_carry_no_evidence():
    curve = fourier_ring_correlation(np.ones((16, 16)), np.ones((16, 16)), "none")
    np.testing.assert_array_equal(curve.correlation, 0)


def test_soft_window_follows_coverage_with_holes():
    covered = np.ones((60, 60), dtype=bool)
    covered[20:30, 20:30] = False
    window = soft_window(covered, width=5)
    assert window[25, 25] == 0
    assert np.all(window[~covered] == 0)
    assert window[45, 45] == 1
    assert 0 < window[0, 30] < 0.05
    assert np.max(np.abs(np.diff(window, axis=0))) < 0.35
    with pytest.raises(DataError, match="covered"):
        soft_window(np.zeros((5, 5), dtype=bool))


@pytest.mark.parametrize(
    ("first", "second", "window", "match"),
    [
        (np.ones((8, 8)), np.ones((8, 9)), "soft", "images: got shapes"),
        (np.ones((3, 8)), np.ones((3, 8)), "soft", "images: got shapes"),
        (np.full((8, 8), np.nan), np.ones((8, 8)), "none", "first: got NaN"),
        (np.ones((8, 8)), np.full((8, 8), np.inf), "none", "second: got NaN"),
        (np.ones((8, 8)), np.ones((8, 8)), "hard", "window: got 'hard'"),
        (np.ones((8, 8)), np.ones((8, 8)), np.zeros((8, 8)), "window: got shape"),
    ],
)
def test_unusable_input_is_refused(first, second, window, match):
    with pytest.raises(DataError, match=match):
        fourier_ring_correlation(first, second, window)
