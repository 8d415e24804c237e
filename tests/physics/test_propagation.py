"""Illumination and propagation, worded as physics."""

from functools import partial

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.physics.fourier import fft2, fftshift2, ifft2, ifftshift2
from ptycho.physics.propagation import (
    diffraction_amplitude,
    diffraction_intensity,
    far_field,
    illuminate,
    intensity,
    near_field,
)
from tests.support import as_numpy


def waves(xp, dtype, shape=(3, 16, 16), seed=0):
    rng = np.random.default_rng(seed)
    return xp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype))


def energy(wave):
    return float((np.abs(as_numpy(wave)).astype(np.float64) ** 2).sum())


class TestFourier:
    @pytest.mark.parametrize("shape", [(3, 16, 16), (15, 8)])
    def test_inverse_and_parseval(self, xp, complex_dtype, assert_close, shape):
        x = waves(xp, complex_dtype, shape)
        assert_close(ifft2(fft2(x)), x)
        assert energy(fft2(x)) == pytest.approx(energy(x), rel=1e-5)

    def test_shifts_undo_each_other(self, xp, complex_dtype, assert_close):
        x = waves(xp, complex_dtype, (5, 7))
        assert_close(ifftshift2(fftshift2(x)), x, rtol=0.0)

    def test_large_stacks_take_threads_and_agree(self):
        x = waves(np, "complex64", (80, 64, 64))
        np.testing.assert_allclose(fft2(x)[3], fft2(x[3]), atol=1e-5)
        np.testing.assert_allclose(ifft2(x)[3], ifft2(x[3]), atol=1e-5)


class TestFarField:
    def test_parseval(self, xp, complex_dtype):
        x = waves(xp, complex_dtype)
        assert energy(far_field(x)) == pytest.approx(energy(x), rel=1e-5)

    def test_a_delta_gives_a_constant(self, xp, complex_dtype, assert_close):
        delta = np.zeros((16, 16), dtype=complex_dtype)
        delta[0, 0] = 1.0
        assert_close(far_field(xp.asarray(delta)), xp.asarray(np.full((16, 16), 1 / 16, dtype=complex_dtype)))

    def test_a_constant_gives_a_delta_in_the_middle(self, xp, complex_dtype, assert_close):
        peak = np.zeros((16, 16), dtype=complex_dtype)
        peak[8, 8] = 16.0
        assert_close(far_field(xp.asarray(np.ones((16, 16), dtype=complex_dtype))), xp.asarray(peak))

    def test_a_shift_keeps_the_intensity_and_tilts_the_phase(self, xp, complex_dtype, tolerance):
        x = waves(xp, complex_dtype, (16, 16))
        before, after = as_numpy(far_field(x)), as_numpy(far_field(xp.roll(x, (3, -2), axis=(0, 1))))
        k = np.arange(-8, 8)
        ramp = np.exp(-2j * np.pi * (3 * k[:, None] - 2 * k[None, :]) / 16)
        np.testing.assert_allclose(after, before * ramp, atol=8 * tolerance)

    def test_a_phase_ramp_shifts_the_pattern(self, xp, complex_dtype, tolerance):
        x = waves(xp, complex_dtype, (16, 16))
        ramp = np.exp(2j * np.pi * 5 * np.arange(16) / 16)[:, None] * np.ones(16)
        tilted = as_numpy(intensity(far_field(x * xp.asarray(ramp.astype(complex_dtype)))))
        np.testing.assert_allclose(tilted, np.roll(as_numpy(intensity(far_field(x))), 5, axis=0), atol=40 * tolerance)

    def test_numpy_agrees_with_every_namespace(self, xp, complex_dtype, tolerance):
        x = waves(xp, complex_dtype)
        wanted = np.fft.fftshift(np.fft.fft2(as_numpy(x), norm="ortho"), axes=(-2, -1))
        np.testing.assert_allclose(as_numpy(far_field(x)), wanted, atol=8 * tolerance)


FINE = {"wavelength": 1e-10, "pixel_size": 1e-8}


class TestNearField:
    @pytest.mark.parametrize("distance", [1e-5, -3e-6, 1e-2])
    def test_is_unitary_and_inverted_by_the_way_back(self, xp, complex_dtype, assert_close, distance):
        x = waves(xp, complex_dtype)
        there = near_field(x, distance, **FINE)
        assert energy(there) == pytest.approx(energy(x), rel=1e-5)
        assert_close(near_field(there, -distance, **FINE), x)

    def test_no_distance_changes_nothing(self, xp, complex_dtype, assert_close):
        x = waves(xp, complex_dtype)
        assert_close(near_field(x, 0.0, **FINE), x)

    def test_steps_add_up(self, xp, complex_dtype, assert_close):
        x = waves(xp, complex_dtype)
        twice = near_field(near_field(x, 2e-6, **FINE), 3e-6, **FINE)
        assert_close(twice, near_field(x, 5e-6, **FINE), rtol=1e-4)

    def test_a_flat_wave_stays_flat(self, xp, complex_dtype, assert_close):
        flat = xp.asarray(np.full((16, 16), 2 - 1j, dtype=complex_dtype))
        assert_close(near_field(flat, 1e-5, **FINE), flat)

    def test_a_gaussian_beam_spreads_as_the_textbook_says(self):
        wavelength, pixel, waist, distance = 1e-9, 1e-8, 8e-8, 2e-5
        x = (np.arange(128) - 64) * pixel
        r2 = x[:, None] ** 2 + x[None, :] ** 2
        beam = near_field(np.exp(-r2 / waist**2).astype(complex), distance, wavelength, pixel)
        power = np.abs(beam) ** 2
        width = 2 * np.sqrt((power * x[:, None] ** 2).sum() / power.sum())
        rayleigh = np.pi * waist**2 / wavelength
        assert width == pytest.approx(waist * np.sqrt(1 + (distance / rayleigh) ** 2), rel=1e-2)

    def test_evanescent_waves_are_dropped(self, complex_dtype):
        x = waves(np, complex_dtype)
        out = near_field(x, 1e-5, wavelength=1e-8, pixel_size=2e-9)
        assert np.isfinite(out).all()
        assert 0 < energy(out) < 0.5 * energy(x)

    @pytest.mark.parametrize("name", ["wavelength", "pixel_size"])
    @pytest.mark.parametrize("value", [0.0, -1e-10, float("nan")])
    def test_lengths_must_be_positive(self, name, value):
        with pytest.raises(DataError, match=f"{name}: got"):
            near_field(np.ones((4, 4), complex), 1.0, **{**FINE, name: value})


class TestDetector:
    def test_modes_add_in_intensity(self, xp, complex_dtype, assert_close):
        patches, probe = waves(xp, complex_dtype), waves(xp, complex_dtype, (2, 16, 16), seed=1)
        both = diffraction_intensity(patches, probe)
        parts = diffraction_intensity(patches, probe[:1, ...]) + diffraction_intensity(patches, probe[1:, ...])
        assert_close(both, parts)

    def test_the_probe_predicts_counts(self, xp, complex_dtype):
        patches, probe = waves(xp, complex_dtype), waves(xp, complex_dtype, (2, 16, 16), seed=1)
        expected = as_numpy(diffraction_intensity(patches, probe)).sum(axis=(1, 2))
        exit_power = np.abs(as_numpy(patches)[:, None] * as_numpy(probe)) ** 2
        np.testing.assert_allclose(expected, exit_power.sum(axis=(1, 2, 3)), rtol=1e-4)

    def test_modes_that_mix_unitarily_give_the_same_pattern(self, xp, complex_dtype, assert_close):
        patches, probe = waves(xp, complex_dtype), waves(xp, complex_dtype, (2, 16, 16), seed=1)
        a, b = probe[0, ...], probe[1, ...]
        mixed = xp.stack([0.6 * a + 0.8 * b, 0.8 * a - 0.6 * b])
        assert_close(diffraction_intensity(patches, mixed), diffraction_intensity(patches, probe), rtol=1e-4)

    def test_illuminate_shape_and_amplitude(self, xp, complex_dtype, assert_close):
        patches, probe = waves(xp, complex_dtype, (2, 3, 8, 8)), waves(xp, complex_dtype, (4, 8, 8))
        assert illuminate(patches, probe).shape == (2, 3, 4, 8, 8)
        amplitude = diffraction_amplitude(patches, probe)
        assert_close(amplitude * amplitude, diffraction_intensity(patches, probe))

    def test_near_field_detector(self, xp, complex_dtype):
        patches, probe = waves(xp, complex_dtype), waves(xp, complex_dtype, (1, 16, 16), seed=1)
        short = partial(near_field, distance=1e-6, wavelength=1e-10, pixel_size=1e-8)
        total = as_numpy(diffraction_intensity(patches, probe, short)).sum()
        assert total == pytest.approx(as_numpy(diffraction_intensity(patches, probe)).sum(), rel=1e-4)

    def test_darkness_has_a_finite_gradient(self):
        torch = pytest.importorskip("torch")
        patches = torch.zeros((1, 4, 4), dtype=torch.complex64, requires_grad=True)
        diffraction_amplitude(patches, torch.ones((1, 4, 4), dtype=torch.complex64)).sum().backward()
        assert torch.isfinite(torch.view_as_real(patches.grad)).all()

    @pytest.mark.parametrize("shape", [(16,), (8, 8), (1, 8, 8), (1, 16, 8), (1, 1, 16, 16)])
    def test_a_probe_of_another_shape_is_refused(self, shape):
        with pytest.raises(DataError, match="probe: got shape"):
            illuminate(np.ones((3, 16, 16), complex), np.ones(shape, complex))
