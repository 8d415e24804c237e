"""A reconstruction is laid on the truth by its place, and two halves on each other."""

from types import SimpleNamespace

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.evaluation import compare, evaluate, split_scan_frc


def placed(image, origin=(0.0, 0.0), covered=None):
    return SimpleNamespace(object=image, weight=np.ones(image.shape) if covered is None else covered, origin=origin)


def test_perfect_reconstruction_is_perfect_up_to_ramp_phase_and_scale(images):
    truth = images.textured((96, 104))
    ours = images.ramped(truth[10:74, 20:90], (0.05, -0.03), 1.2, 0.5)
    figures = evaluate(placed(ours, (10, 20)), truth)
    assert figures["ssim_amplitude"] > 0.999
    assert figures["ssim_phase"] > 0.999
    assert figures["mae_phase"] < 1e-4
    assert figures["amplitude_scale"] == pytest.approx(2, rel=1e-4)
    assert figures["frc_rings_half_bit_phase"] == figures["frc_rings_0.5_amplitude"] == figures["frc_n_rings"]
    assert figures["shift_row"] == pytest.approx(0, abs=1e-3)


def test_place_of_truth_counts_and_scans_bring_their_own(images):
    truth = images.textured((96, 96))
    ours = placed(truth[16:80, 8:72], (3, 5))
    scan = SimpleNamespace(object=truth, object_origin=(-13, -3))
    assert evaluate(ours, scan)["mae_amplitude"] < 1e-6
    assert evaluate(ours, scan) == evaluate(ours, truth, (-13, -3))
    with pytest.raises(DataError, match="holds no object"):
        evaluate(ours, SimpleNamespace(object=None, object_origin=(0, 0)))


def test_rubbish_where_nothing_was_measured_does_not_count(images):
    truth = images.textured((90, 90))
    covered = np.zeros(truth.shape)
    covered[15:75, 10:70] = 1
    ours = np.where(covered > 0, truth, 50 * images.noise(truth.shape, 1))
    comparison = compare(placed(ours, covered=covered), truth)
    assert comparison.metrics["mae_amplitude"] < 1e-6
    assert comparison.metrics["compared_pixels"] == 3600
    assert comparison.origin == (15, 10)


def test_more_noise_is_seen_by_every_figure(images):
    truth = images.textured((96, 96))
    good, bad = (evaluate(placed(truth + level * images.noise(truth.shape, 3)), truth) for level in (0.02, 0.2))
    for part in ("amplitude", "phase"):
        assert good[f"ssim_{part}"] > bad[f"ssim_{part}"]
        assert good[f"psnr_{part}"] > bad[f"psnr_{part}"] + 10
        assert good[f"mae_{part}"] < bad[f"mae_{part}"]
        assert good[f"frc_cutoff_0.5_{part}"] > bad[f"frc_cutoff_0.5_{part}"]


def test_halves_agree_where_the_signal_is_and_not_where_only_noise_is(images):
    signal = images.textured((128, 128), sigma=3)
    first, second = (placed(signal + 0.1 * images.noise(signal.shape, seed)) for seed in (1, 2))
    curve = split_scan_frc(first, second).frc["complex"]
    assert np.all(curve.correlation[:5] > 0.9)
    assert abs(np.mean(curve.correlation[-20:])) < 0.1
    assert 0.05 < curve.cutoff("half-bit") < 0.4


def test_objects_of_different_places_are_refused(images):
    image = images.textured((40, 40))
    with pytest.raises(DataError, match="share no area"):
        compare(placed(image, (500, 0)), image)
