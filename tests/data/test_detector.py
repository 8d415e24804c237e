"""Cropping and binning the detector, tested as physics: what the cropped model predicts is the cropped measurement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.data import Scan, bin_detector, crop_detector
from ptycho.errors import DataError
from tests.support import simulated_scan


def intensity(waves):
    """Far-field intensity of modes (P, N, N)."""
    far = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    return (np.abs(far) ** 2).sum(axis=0)


def gaussian(n, sigma, centre=(0.0, 0.0)):
    x = np.arange(n) - n // 2
    return np.exp(-((x[:, None] - centre[0]) ** 2 + (x[None, :] - centre[1]) ** 2) / (2 * sigma**2))


def blank(n, **fields):
    return Scan(np.ones((2, n, n)), "counts", np.array([[3.0, 5.0], [-7.0, 11.0]]), **fields)


@given(
    hnp.arrays(np.complex128, (2, 16, 16), elements=st.complex_numbers(max_magnitude=10)), st.sampled_from([4, 10, 16])
)
def test_cropped_probe_predicts_the_centre_of_the_pattern(probe, size):
    cropped = crop_detector(blank(16, probe=probe), size).probe
    start = 8 - size // 2
    expected = intensity(probe)[start : start + size, start : start + size]
    np.testing.assert_allclose(intensity(cropped), expected, atol=1e-9 * (1 + expected.max()))


@pytest.mark.parametrize("centre", [(0, 0), (8, -6)])
def test_cropped_probe_stays_where_it_is(centre):
    """The probe at a pixel of the coarse grid is the old probe there, times the ratio of the pixels."""
    probe = gaussian(64, 4, centre)
    cropped = crop_detector(blank(64, probe=probe), 32).probe[0]
    np.testing.assert_allclose(cropped, 2 * probe[::2, ::2], atol=1e-6)


def test_crop_moves_lengths_and_positions():
    mask = np.ones((64, 64), bool)
    mask[40, 20] = False
    geometry = {"wavelength": 1e-10, "distance": 2.0, "detector_pixel_size": 5e-5}
    scan = blank(64, mask=mask, object=np.ones((50, 40)), object_origin=(-8, 4), **geometry)
    cropped = crop_detector(scan, 32)
    np.testing.assert_array_equal(cropped.positions, scan.positions / 2)
    assert cropped.object_origin == (-4, 2)
    assert cropped.object.shape == (25, 20)
    assert cropped.object_pixel_size == pytest.approx(2 * scan.object_pixel_size)
    assert not cropped.mask[24, 4]
    assert cropped.mask.sum() == 32 * 32 - 1
    assert crop_detector(scan.replace(pixel_size=3e-8), 32).pixel_size == pytest.approx(6e-8)


@pytest.mark.parametrize("size", [32, 40])
def test_crop_samples_a_smooth_object_at_the_new_pixels(size):
    def smooth(rows, columns):
        return np.exp(1j * np.sin(rows / 15)) * (1 + 0.3 * np.cos(columns / 12))

    fine = smooth(np.arange(120)[:, None], np.arange(90)[None, :])
    ratio = 64 / size
    coarse = crop_detector(blank(64, object=fine), size).object
    expected = smooth(ratio * np.arange(coarse.shape[0])[:, None], ratio * np.arange(coarse.shape[1])[None, :])
    inside = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(coarse[inside], expected[inside], atol=2e-3)
    assert np.abs(coarse - expected).max() < 0.1


def test_crop_keeps_a_flat_object_flat():
    coarse = crop_detector(blank(16, object=np.full((33, 20), 0.5 + 0.2j)), 10).object
    np.testing.assert_allclose(coarse, 0.5 + 0.2j, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_cropped_patterns_are_the_centre(dtype):
    scan = simulated_scan(5, 16)
    scan = scan.replace(patterns=scan.patterns.astype(dtype))
    cropped = crop_detector(scan, 8)
    np.testing.assert_array_equal(cropped.patterns, scan.patterns[:, 4:12, 4:12])
    assert cropped.patterns.dtype == dtype
    assert crop_detector(scan, 16) is scan


@given(hnp.arrays(np.uint16, (2, 8, 8)), st.sampled_from([2, 4]))
def test_binning_counts_every_photon(patterns, factor):
    scan = Scan(patterns, "counts", np.zeros((2, 2)))
    binned = bin_detector(scan, factor)
    assert binned.patterns.dtype == np.uint32
    assert binned.patterns.sum(dtype=np.int64) == patterns.sum(dtype=np.int64)
    np.testing.assert_array_equal(binned.patterns[:, 0, 0], patterns[:, :factor, :factor].sum(axis=(1, 2)))
    root = bin_detector(scan.replace(patterns=scan.amplitude(dtype=np.float64), measurement="amplitude"), factor)
    np.testing.assert_allclose(root.counts(), binned.counts(), rtol=1e-6)


def test_integer_amplitudes_are_binned_as_energies():
    scan = Scan(np.full((1, 4, 4), 300, np.uint16), "amplitude", np.zeros((1, 2)))
    np.testing.assert_allclose(bin_detector(scan, 2).patterns, 600.0)


@pytest.mark.parametrize("factor", [2, 4])
def test_binned_probe_predicts_the_binned_pattern(factor):
    """A probe well inside the smaller window has a far field that is smooth over a bin."""
    n = 128
    probe = gaussian(n, n / factor / 24, (2.0, -1.0)) * np.exp(0.3j * (np.arange(n) - n // 2))[:, None]
    binned = bin_detector(blank(n, probe=probe), factor)
    whole = intensity(probe[None])
    expected = whole.reshape(n // factor, factor, n // factor, factor).sum(axis=(1, 3))
    predicted = intensity(binned.probe)
    assert predicted.sum() == pytest.approx(whole.sum(), rel=1e-6)
    np.testing.assert_allclose(predicted, expected, atol=0.03 * expected.max())
    centre = [(np.arange(n // factor) * values.sum(axis=1)).sum() / values.sum() for values in (predicted, expected)]
    assert centre[0] == pytest.approx(centre[1], abs=1e-3)


def test_binning_keeps_the_object_pixel():
    mask = np.ones((64, 64), bool)
    mask[0, 0] = False
    scan = blank(64, mask=mask, object=np.ones((50, 40)), wavelength=1e-10, distance=2.0, detector_pixel_size=5e-5)
    binned = bin_detector(scan, 2)
    assert binned.object_pixel_size == pytest.approx(scan.object_pixel_size)
    assert binned.detector_pixel_size == 1e-4
    np.testing.assert_array_equal(binned.positions, scan.positions)
    np.testing.assert_array_equal(binned.object, scan.object)
    assert not binned.mask[0, 0]
    assert binned.mask.sum() == 32 * 32 - 1
    assert bin_detector(scan, 1) is scan


@pytest.mark.parametrize(
    ("operation", "n", "argument", "message"),
    [
        (crop_detector, 16, 32, "N=32 given, an even number from 2 to 16"),
        (crop_detector, 16, 7, "N=7 given"),
        (crop_detector, 15, 8, "15x15 given, an even size"),
        (bin_detector, 16, 3, "factor=3 given"),
        (bin_detector, 16, 0, "factor=0 given"),
        (bin_detector, 12, 4, "factor=4 given, one that divides 12 into an even number"),
        (bin_detector, 15, 3, "15x15 given"),
    ],
)
def test_impossible_sizes_are_refused(operation, n, argument, message):
    with pytest.raises(DataError, match=message):
        operation(blank(n), argument)
