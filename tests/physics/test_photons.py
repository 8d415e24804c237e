"""Photon scales and photon noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import (
    diffraction_intensity,
    intensity_scale,
    normalise_amplitude,
    photon_scale,
    photons_per_pattern,
    poisson_sample,
    scale_to_photons,
)
from tests.support import array, as_numpy

PRECISIONS = [("complex64", "float32", 1e-5), ("complex128", "float64", 1e-12)]


def waves(seed, shape, dtype="complex128"):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize(("dtype", "real", "rtol"), PRECISIONS)
class TestScales:
    def test_normalised_amplitudes_have_the_conventions_power(self, xp, dtype, real, rtol):
        amplitude = np.abs(waves(0, (5, 16, 16), dtype)) * 37
        scaled, factor = normalise_amplitude(array(xp, amplitude))
        result = as_numpy(scaled)
        assert scaled.dtype == getattr(xp, real)
        assert isinstance(factor, float)
        np.testing.assert_allclose((result.astype(float) ** 2).sum(axis=(1, 2)).mean(), 8**2, rtol=rtol)
        np.testing.assert_allclose(result, amplitude * factor, rtol=rtol)

    def test_photons_per_pattern_are_those_on_the_detector(self, xp, dtype, real, rtol):
        patches, probe = array(xp, waves(1, (4, 8, 8), dtype)), array(xp, waves(2, (3, 8, 8), dtype))
        photons = photons_per_pattern(patches, probe)
        on_detector = as_numpy(diffraction_intensity(patches, probe)).sum(axis=(1, 2))
        assert photons.dtype == getattr(xp, real)
        np.testing.assert_allclose(as_numpy(photons), on_detector, rtol=10 * rtol)

    @pytest.mark.parametrize("modes", [None, 1, 3])
    def test_photon_scale_gives_the_asked_photons(self, xp, dtype, real, rtol, modes):
        shape = (8, 8) if modes is None else (modes, 8, 8)
        patches, probe = waves(3, (6, 8, 8), dtype), waves(4, shape, dtype)
        scale = photon_scale(array(xp, patches), array(xp, probe), 1234.5)
        stack = (scale * probe).astype(dtype).reshape(-1, 8, 8)
        intensity = diffraction_intensity(patches, stack)
        np.testing.assert_allclose(intensity.sum(axis=(1, 2), dtype=float).mean(), 1234.5, rtol=10 * rtol)


def test_integer_amplitudes_are_widened(xp):
    amplitude = np.full((2, 4, 4), 300, dtype=np.uint16)  # 300^2 does not fit
    scaled, factor = normalise_amplitude(array(xp, amplitude))
    assert scaled.dtype == xp.float32
    np.testing.assert_allclose(factor, 2 / np.sqrt(16 * 300.0**2), rtol=1e-6)


def test_bad_pixels_are_left_out_of_the_norm(xp):
    amplitude = np.abs(waves(5, (3, 8, 8))).astype(np.float32)
    mask = np.ones((8, 8), dtype=bool)
    mask[1, 2] = False
    dirty = amplitude.copy()
    dirty[:, 1, 2] = np.nan
    scaled, factor = normalise_amplitude(array(xp, dirty), array(xp, mask))
    zeroed = np.where(mask, amplitude, 0)
    np.testing.assert_allclose(factor, 4 / np.sqrt((zeroed.astype(float) ** 2).sum(axis=(1, 2)).mean()), rtol=1e-6)
    assert (as_numpy(scaled)[:, 1, 2] == 0).all()


@given(st.floats(1.0, 1e12), st.sampled_from([64, 128, 256]), st.floats(1e-3, 1e3))
def test_intensity_scale_leads_from_normalised_amplitudes_to_photons(nphotons, n, unit):
    """A scan with ``nphotons`` per pattern, in any unit, comes back from X with the intensity scale."""
    amplitude = np.full((2, n, n), unit)
    scaled, _ = normalise_amplitude(amplitude)
    counts = (intensity_scale(nphotons, n) * scaled) ** 2
    np.testing.assert_allclose(counts.sum(axis=(1, 2)), nphotons, rtol=1e-9)


class TestPoisson:
    def test_mean_and_variance(self):
        counts = poisson_sample(np.full(200_000, 7.5), 0)
        assert counts.dtype == np.int64
        assert counts.mean() == pytest.approx(7.5, abs=5 * np.sqrt(7.5 / 200_000))
        assert counts.var() == pytest.approx(7.5, rel=0.03)

    def test_nothing_expected_counts_nothing(self):
        assert not poisson_sample(np.zeros((3, 4)), 0).any()

    def test_seed_decides(self):
        expected = np.full((4, 4), 100.0)
        assert (poisson_sample(expected, 1) == poisson_sample(expected, 1)).all()
        assert (poisson_sample(expected, 1) != poisson_sample(expected, 2)).any()

    @given(st.integers(1, 30))
    def test_piece_by_piece_is_the_same_stream(self, size):
        expected = np.random.default_rng(0).uniform(0, 50, 100).astype(np.float32)
        rng = np.random.default_rng(5)
        pieces = [poisson_sample(expected[i : i + size], rng) for i in range(0, 100, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), poisson_sample(expected, 5))

    @pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 1e19])
    def test_impossible_expectations_are_refused(self, value):
        with pytest.raises(DataError, match="intensity"):
            poisson_sample(np.array([1.0, value]), 0)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: intensity_scale(0, 64), "nphotons"),
        (lambda: intensity_scale(np.nan, 64), "nphotons"),
        (lambda: intensity_scale(1e6, 0), "N"),
        (lambda: scale_to_photons(0.0, 1e6), "probe"),
        (lambda: scale_to_photons(1.0, -1), "nphotons"),
        (lambda: photon_scale(np.zeros((1, 4, 4), complex), np.ones((1, 4, 4), complex), 10), "probe"),
        (lambda: normalise_amplitude(np.zeros((2, 4, 4))), "amplitude"),
        (lambda: normalise_amplitude(np.full((2, 4, 4), np.nan)), "amplitude"),
        (lambda: normalise_amplitude(np.zeros((0, 4, 4))), "amplitude"),
    ],
)
def test_unusable_numbers_are_refused(call, field):
    with pytest.raises(DataError, match=field):
        call()
