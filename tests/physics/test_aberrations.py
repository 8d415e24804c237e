"""Zernike polynomials and aberrated probes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import (
    apply_aberrations,
    far_field,
    focused_probe,
    idealised_probe,
    near_field,
    noll_to_zernike,
    zernike_polynomial,
)

NOLL = {
    1: (0, 0), 2: (1, 1), 3: (1, -1), 4: (2, 0), 5: (2, -2), 6: (2, 2), 7: (3, -1), 8: (3, 1), 9: (3, -3),
    10: (3, 3), 11: (4, 0), 12: (4, 2), 13: (4, -2), 14: (4, 4), 15: (4, -4), 22: (6, 0), 37: (8, 0),
}  # fmt: skip


def disc_quadrature(radial=24, angular=64):
    """Nodes and weights that integrate polynomials over the unit disc exactly, normalised to mean."""
    x, w = np.polynomial.legendre.leggauss(radial)
    rho, weight = (x + 1) / 2, w * (x + 1) / 2
    theta = 2 * np.pi * np.arange(angular) / angular
    return rho[:, None], theta[None, :], (weight / weight.sum())[:, None] / angular


@pytest.mark.parametrize(("j", "order"), NOLL.items())
def test_nolls_table(j, order):
    assert noll_to_zernike(j) == order


def test_known_forms():
    rho, theta = np.array([0.0, 0.3, 1.0]), np.array([0.1, 2.0, -1.0])
    np.testing.assert_allclose(zernike_polynomial(2, rho, theta), 2 * rho * np.cos(theta))
    np.testing.assert_allclose(zernike_polynomial(4, rho, theta), np.sqrt(3) * (2 * rho**2 - 1))
    np.testing.assert_allclose(zernike_polynomial(5, rho, theta), np.sqrt(6) * rho**2 * np.sin(2 * theta))
    np.testing.assert_allclose(zernike_polynomial(11, rho, theta), np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1))


@given(st.integers(1, 45), st.integers(1, 45))
def test_polynomials_are_orthonormal_over_the_disc(i, j):
    rho, theta, weight = disc_quadrature()
    product = (weight * zernike_polynomial(i, rho, theta) * zernike_polynomial(j, rho, theta)).sum()
    assert product == pytest.approx(float(i == j), abs=1e-9)


@given(st.dictionaries(st.integers(1, 21), st.floats(-3, 3), max_size=5))
def test_power_and_far_field_amplitude_are_kept(coefficients):
    probe = focused_probe(32, dtype=np.complex128)
    aberrated = apply_aberrations(probe, coefficients)
    np.testing.assert_allclose((np.abs(aberrated) ** 2).sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.abs(far_field(aberrated)), np.abs(far_field(probe)), atol=1e-12)


@given(st.dictionaries(st.integers(1, 15), st.floats(-2, 2), min_size=1, max_size=4))
def test_opposite_aberrations_cancel(coefficients):
    probe = focused_probe(32, dtype=np.complex128)
    there = apply_aberrations(probe, coefficients, pupil_radius=9.0)
    back = apply_aberrations(there, {j: -c for j, c in coefficients.items()}, pupil_radius=9.0)
    np.testing.assert_allclose(back, probe, atol=1e-12)


def test_no_aberration_changes_nothing_and_keeps_the_type():
    probe = idealised_probe(32)
    same = apply_aberrations(probe, {})
    assert same.dtype == np.complex64
    np.testing.assert_allclose(same, probe, atol=1e-6)


def test_the_coefficient_is_the_rms_wavefront_error():
    n, radius = 256, 100.0
    field = np.zeros((n, n), complex)
    field[n // 2, n // 2] = 1.0  # flat pupil
    for j in (4, 7, 11):
        phase = np.angle(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(apply_aberrations(field, {j: 0.2}, radius)))))
        offset = np.arange(n) - n // 2
        inside = np.hypot(offset[:, None], offset) <= radius
        assert phase[inside].std() == pytest.approx(0.2, rel=0.02)
        assert phase[inside].mean() == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize(("j", "axis"), [(2, 1), (3, 0)])
def test_a_tilt_moves_the_probe(j, axis):
    """Z2 is tilted along the columns, Z3 along the rows: 2 c rho is a shift of c N / (pi R) pixels."""
    n, radius, shift = 64, 32.0 * np.sqrt(2), 5  # the whole pupil lies inside the radius
    probe = np.exp(-((np.arange(n) - n // 2)[:, None] ** 2 + (np.arange(n) - n // 2) ** 2) / 18.0).astype(complex)
    moved = apply_aberrations(probe, {j: -shift * np.pi * radius / n}, pupil_radius=radius)
    np.testing.assert_allclose(moved, np.roll(probe, shift, axis=axis), atol=1e-12)


def test_defocus_is_propagation():
    """Z4 in the pupil is the paraxial phase of free space, up to a constant."""
    n, wavelength, pixel, distance = 64, 1e-10, 2e-8, 1e-4
    probe = np.exp(-((np.arange(n) - n // 2)[:, None] ** 2 + (np.arange(n) - n // 2) ** 2) / 60.0).astype(complex)
    radius = 32.0 * np.sqrt(2)
    edge = np.pi * wavelength * distance * (radius / (n * pixel)) ** 2
    aberrated = apply_aberrations(probe, {4: -edge / (2 * np.sqrt(3))}, pupil_radius=radius)
    propagated = near_field(probe, distance, wavelength, pixel)
    constant = np.vdot(propagated, aberrated)
    np.testing.assert_allclose(aberrated, propagated * constant / abs(constant), atol=1e-5)


@pytest.mark.parametrize(
    ("probe", "zernike", "radius", "field"),
    [
        (np.ones((4, 5), complex), {4: 1.0}, None, "probe"),
        (np.zeros((8, 8), complex), {4: 1.0}, None, "probe"),
        (np.ones((8, 8), complex), {0: 1.0}, 4.0, "Noll"),
        (np.ones((8, 8), complex), {4: np.nan}, 4.0, "zernike"),
        (np.ones((8, 8), complex), {4: 1.0}, -1.0, "pupil_radius"),
    ],
)
def test_unusable_input_is_refused(probe, zernike, radius, field):
    with pytest.raises(DataError, match=field):
        apply_aberrations(probe, zernike, radius)
