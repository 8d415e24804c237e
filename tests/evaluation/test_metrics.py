"""SSIM, PSNR, MAE and the R-factor against their definitions and against scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from ptycho.errors import DataError
from ptycho.evaluation import fourier_r_factor, mae, mse, optimal_scale, psnr, ssim


def pair(seed=0, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.2, 1.0, size=shape)
    return truth + 0.1 * rng.normal(size=shape), truth


def test_ssim_of_whole_images_is_scikit_images():
    estimate, truth = pair()
    span = float(np.ptp(truth))
    assert ssim(estimate, truth) == pytest.approx(structural_similarity(estimate, truth, data_range=span), abs=1e-12)
    assert ssim(estimate, truth, data_range=2.0) > ssim(estimate, truth)
    assert ssim(truth, truth) == 1


@settings(max_examples=10)
@given(seed=st.integers(0, 99), rubbish=st.sampled_from([1e6, -3.0, float("nan")]))
def test_nothing_outside_the_mask_counts(seed, rubbish):
    estimate, truth = pair(seed)
    mask = np.zeros(truth.shape, dtype=bool)
    mask[5:30, 8:44] = True
    spoiled = np.where(mask, estimate, rubbish)
    cut = (slice(5, 30), slice(8, 44))
    span = float(np.ptp(truth[mask]))
    assert ssim(spoiled, truth, mask) == pytest.approx(ssim(estimate[cut], truth[cut]), abs=1e-12)
    assert psnr(spoiled, truth, mask) == pytest.approx(10 * np.log10(span**2 / mse(estimate[cut], truth[cut])))
    assert mae(spoiled, truth, mask) == pytest.approx(np.mean(np.abs(estimate - truth)[cut]))


def test_psnr_and_errors_follow_their_definitions():
    truth = np.asarray([[0.0, 1.0], [0.5, 0.5]])
    estimate = truth + np.asarray([[0.1, -0.1], [0.1, -0.1]])
    assert mae(estimate, truth) == pytest.approx(0.1)
    assert mse(estimate, truth) == pytest.approx(0.01)
    assert psnr(estimate, truth) == pytest.approx(20.0)
    assert psnr(estimate, truth, data_range=10) == pytest.approx(40.0)
    assert psnr(truth, truth) == float("inf")


@pytest.mark.parametrize("figure", [mae, mse, psnr, ssim])
def test_unusable_images_are_refused(figure):
    good = pair()[1]
    with pytest.raises(DataError, match="images: got"):
        figure(good, good[:-1])
    with pytest.raises(DataError, match="images: got complex"):
        figure(good.astype(complex), good)
    with pytest.raises(DataError, match="NaN"):
        figure(np.where(good > 0.9, np.nan, good), good)
    with pytest.raises(DataError, match="mask"):
        figure(good, good, np.zeros(good.shape, dtype=bool))


def test_a_constant_truth_needs_a_stated_range():
    flat = np.ones((20, 20))
    for figure in (psnr, ssim):
        with pytest.raises(DataError, match="data_range"):
            figure(flat + 0.1, flat)
    assert psnr(flat + 0.1, flat, data_range=1.0) == pytest.approx(20.0)
    with pytest.raises(DataError, match="no window"):
        ssim(*pair(), mask=np.eye(40, 50, dtype=bool))


def test_r_factor_is_its_formula():
    rng = np.random.default_rng(3)
    predicted, measured = rng.uniform(size=(2, 5, 8, 8))
    scale = np.sum(predicted * measured) / np.sum(predicted**2)
    expected = np.sum(np.abs(scale * predicted - measured)) / np.sum(measured)
    assert fourier_r_factor(predicted, measured) == pytest.approx(expected, rel=1e-12)
    assert optimal_scale(predicted, measured) == pytest.approx(scale, rel=1e-12)
    assert fourier_r_factor(predicted, measured, scale=1.0) == pytest.approx(
        np.sum(np.abs(predicted - measured)) / np.sum(measured)
    )


@settings(max_examples=20)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_r_factor_does_not_depend_on_the_scale_of_the_prediction(scale, seed):
    predicted, measured = np.random.default_rng(seed).uniform(size=(2, 3, 6, 6))
    assert fourier_r_factor(scale * predicted, measured) == pytest.approx(fourier_r_factor(predicted, measured))
    assert fourier_r_factor(scale * measured, measured) == pytest.approx(0, abs=1e-12)


def test_r_factor_respects_masks_and_darkness():
    rng = np.random.default_rng(5)
    predicted, measured = rng.uniform(0.1, 1, size=(2, 4, 8, 8))
    mask = np.ones((8, 8), dtype=bool)
    mask[2, 3] = False
    hot = measured.copy()
    hot[:, 2, 3] = np.nan
    assert fourier_r_factor(predicted, hot, mask) == pytest.approx(fourier_r_factor(predicted, measured, mask))
    assert fourier_r_factor(predicted, measured, mask) != pytest.approx(fourier_r_factor(predicted, measured))
    each = np.broadcast_to(mask, predicted.shape)
    assert fourier_r_factor(predicted, hot, each) == fourier_r_factor(predicted, hot, mask)
    assert fourier_r_factor(np.zeros_like(measured), measured) == 1
    with pytest.raises(DataError, match="no light"):
        fourier_r_factor(predicted, np.zeros_like(measured))
    with pytest.raises(DataError, match="NaN"):
        fourier_r_factor(predicted, hot)
    with pytest.raises(DataError, match="mask"):
        fourier_r_factor(predicted, measured, np.ones((3, 3), dtype=bool))
    with pytest.raises(DataError, match="predicted"):
        fourier_r_factor(predicted[0], measured)
