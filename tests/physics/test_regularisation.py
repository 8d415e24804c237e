"""Losses in the sample plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.physics import complex_mae, squared_gradient
from tests.support import array

PRECISIONS = [("complex64", "float32", 1e-5), ("complex128", "float64", 1e-12)]


def waves(seed, shape=(3, 7, 9), dtype="complex128"):
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.2, 1, shape) * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))).astype(dtype)


@pytest.mark.parametrize(("dtype", "real", "rtol"), PRECISIONS)
class TestValues:
    def test_total_variation(self, xp, dtype, real, rtol):
        stack = waves(0, dtype=dtype)
        value = squared_gradient(array(xp, stack))
        expected = (np.abs(np.diff(stack, axis=-1)) ** 2).sum() + (np.abs(np.diff(stack, axis=-2)) ** 2).sum()
        assert value.dtype == getattr(xp, real)
        np.testing.assert_allclose(float(value), expected, rtol=rtol)

    def test_total_variation_of_a_real_image(self, xp, dtype, real, rtol):
        image = np.random.default_rng(3).random((6, 5)).astype(real)
        expected = (np.diff(image, axis=0) ** 2).sum() + (np.diff(image, axis=1) ** 2).sum()
        np.testing.assert_allclose(float(squared_gradient(array(xp, image))), expected, rtol=10 * rtol)

    def test_complex_mae(self, xp, dtype, real, rtol):
        a, b = waves(1, dtype=dtype), waves(2, dtype=dtype)
        value = complex_mae(array(xp, a), array(xp, b))
        expected = np.abs(np.abs(a) - np.abs(b)).mean() + np.abs(np.angle(a * b.conj())).mean()
        assert value.dtype == getattr(xp, real)
        np.testing.assert_allclose(float(value), expected, rtol=rtol)

    def test_phases_beside_pi_are_close(self, xp, dtype, real, rtol):
        a = array(xp, np.exp(1j * np.full((4, 4), np.pi - 0.01)).astype(dtype))
        b = array(xp, np.exp(1j * np.full((4, 4), -np.pi + 0.01)).astype(dtype))
        np.testing.assert_allclose(float(complex_mae(a, b)), 0.02, rtol=1e-4)


@given(st.complex_numbers(max_magnitude=10), st.floats(-3, 3))
def test_a_constant_has_no_variation_and_a_ramp_has_its_slope(value, slope):
    assert squared_gradient(np.full((5, 6), value)) == 0
    ramp = np.broadcast_to(slope * np.arange(6.0), (5, 6))
    np.testing.assert_allclose(squared_gradient(ramp), 5 * 5 * slope**2, atol=1e-12)


@given(hnp.arrays(np.float64, (4, 4), elements=st.floats(0.1, 2)), st.floats(-3, 3))
def test_a_common_phase_costs_its_angle(amplitude, angle):
    wave = amplitude.astype(complex)
    np.testing.assert_allclose(complex_mae(wave * np.exp(1j * angle), wave), abs(angle), atol=1e-9)


@pytest.mark.parametrize("loss", ["squared_gradient", "complex_mae"])
def test_gradients_against_finite_differences(loss):
    torch = pytest.importorskip("torch")
    start, other = waves(4, (5, 5)), waves(5, (5, 5))

    def value(wave):
        return squared_gradient(wave) if loss == "squared_gradient" else complex_mae(wave, other)

    leaf = torch.tensor(start, requires_grad=True)
    (squared_gradient(leaf) if loss == "squared_gradient" else complex_mae(leaf, torch.tensor(other))).backward()
    step, numeric = 1e-6, np.zeros_like(start)
    for where in np.ndindex(start.shape):
        for unit in (1.0, 1j):
            up, down = start.copy(), start.copy()
            up[where] += step * unit
            down[where] -= step * unit
            numeric[where] += unit * (value(up) - value(down)) / (2 * step)
    np.testing.assert_allclose(leaf.grad.numpy(), numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_mae_has_a_finite_gradient_where_there_is_no_light(dtype):
    torch = pytest.importorskip("torch")
    a, b = waves(6, (4, 4), dtype), waves(7, (4, 4), dtype)
    a[0, 0], b[1, 1], a[2, 2], b[2, 2] = 0, 0, 0, 0
    leaf = torch.tensor(a, requires_grad=True)
    value = complex_mae(leaf, torch.tensor(b))
    value.backward()
    assert torch.isfinite(value)
    assert np.isfinite(leaf.grad.numpy()).all()
    assert (leaf.grad.numpy() != 0).sum() >= 13
