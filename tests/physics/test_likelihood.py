"""Losses in diffraction space: values, widening, masks and gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.errors import DataError
from ptycho.physics import mae, poisson_nll
from tests.support import array

REALS = ["float32", "float64"]
LOSSES = {
    "poisson_nll": lambda predicted, measured, mask=None: poisson_nll(I_pred=predicted, I_meas=measured, mask=mask),
    "mae": lambda predicted, measured, mask=None: mae(A_pred=predicted, A_meas=measured, mask=mask),
}


def patterns(seed=0, shape=(3, 8, 8), dtype=np.float64):
    """Expected values well above zero, and counts drawn from them."""
    rng = np.random.default_rng(seed)
    expected = rng.uniform(0.5, 40.0, shape)
    return expected.astype(dtype), rng.poisson(expected).astype(np.uint16)


def tolerance(dtype):
    return 1e-5 if np.dtype(dtype) == np.float32 else 1e-12


@pytest.mark.parametrize("dtype", REALS)
class TestValues:
    def test_poisson_is_the_formula(self, xp, dtype):
        expected, counts = patterns(dtype=dtype)
        loss = poisson_nll(I_pred=array(xp, expected), I_meas=array(xp, counts))
        wide = expected.astype(np.float64)
        assert loss.dtype == getattr(xp, dtype)
        assert loss.shape == ()
        np.testing.assert_allclose(float(loss), np.mean(wide - counts * np.log(wide)), rtol=tolerance(dtype))

    def test_mae_is_the_formula(self, xp, dtype):
        expected, counts = patterns(dtype=dtype)
        measured = np.sqrt(counts).astype(dtype)
        loss = mae(A_pred=array(xp, expected), A_meas=array(xp, measured))
        assert loss.dtype == getattr(xp, dtype)
        np.testing.assert_allclose(float(loss), np.abs(expected - measured).mean(), rtol=tolerance(dtype))

    @pytest.mark.parametrize("counter", ["uint16", "uint8", "int32", "float32", "float64"])
    def test_counts_of_any_type_give_the_same_loss(self, xp, dtype, counter):
        expected, counts = patterns(dtype=dtype)
        predicted = array(xp, expected)
        other = poisson_nll(I_pred=predicted, I_meas=array(xp, counts.astype(counter)))
        assert float(other) == float(poisson_nll(I_pred=predicted, I_meas=array(xp, counts.astype(dtype))))

    def test_large_uint16_counts_do_not_wrap(self, xp, dtype):
        counts = np.full((1, 4, 4), 65535, dtype=np.uint16)
        predicted = array(xp, np.full((1, 4, 4), 65535.0, dtype=dtype))
        expected = 65535 * (1 - np.log(65535.0))
        np.testing.assert_allclose(float(poisson_nll(I_pred=predicted, I_meas=array(xp, counts))), expected, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", REALS)
class TestMask:
    @pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
    def test_bad_pixels_contribute_nothing(self, xp, dtype, loss, shape):
        """The loss is that of the good pixels alone, bit for bit whatever the bad ones hold."""
        expected, counts = patterns(dtype=dtype)
        mask = np.random.default_rng(1).random(shape) < 0.7
        bad = np.broadcast_to(~mask, expected.shape)
        dirty, dirty_pred = counts.astype(dtype), expected.copy()
        dirty[bad], dirty_pred[bad] = np.nan, np.inf
        args = array(xp, expected), array(xp, counts), array(xp, mask)
        clean = float(LOSSES[loss](*args))
        dirty_loss = float(LOSSES[loss](array(xp, dirty_pred), array(xp, dirty), args[2]))
        alone = float(LOSSES[loss](array(xp, expected[~bad]), array(xp, counts[~bad])))
        assert dirty_loss == clean
        np.testing.assert_allclose(clean, alone, rtol=tolerance(dtype))

    def test_no_good_pixel_gives_zero(self, xp, dtype, loss):
        expected, counts = patterns(dtype=dtype)
        mask = array(xp, np.zeros((8, 8), dtype=bool))
        assert float(LOSSES[loss](array(xp, expected), array(xp, counts), mask)) == 0.0


@pytest.mark.parametrize("dtype", REALS)
def test_poisson_where_nothing_is_predicted(xp, dtype):
    """No light predicted: without photons the loss is 0, with photons it is finite and worse."""
    nothing = array(xp, np.zeros((1, 4, 4), dtype=dtype))
    dark = poisson_nll(I_pred=nothing, I_meas=array(xp, np.zeros((1, 4, 4), dtype=np.uint16)))
    lit = poisson_nll(I_pred=nothing, I_meas=array(xp, np.ones((1, 4, 4), dtype=np.uint16)))
    assert float(dark) == 0.0
    assert 0.0 < float(lit) < np.inf


@given(
    hnp.arrays(np.float64, (2, 4, 4), elements=st.floats(0.05, 1e4)),
    st.floats(0.9, 1.1).filter(lambda factor: abs(factor - 1) > 1e-3),
)
def test_poisson_is_least_at_the_measured_counts(counts, factor):
    assert poisson_nll(I_pred=counts, I_meas=counts) < poisson_nll(I_pred=counts * factor, I_meas=counts)


class TestGradients:
    """Autograd of torch against central differences in double precision."""

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_against_finite_differences(self, loss, masked):
        torch = pytest.importorskip("torch")
        expected, counts = patterns(shape=(2, 4, 4))
        expected[0, 0, 0] = 2e-4  # below the floor: the tangent
        mask = np.random.default_rng(2).random((4, 4)) < 0.7 if masked else None
        predicted = torch.tensor(expected, requires_grad=True)
        LOSSES[loss](predicted, torch.tensor(counts), None if mask is None else torch.tensor(mask)).backward()
        step = 1e-6
        numeric = np.zeros_like(expected)
        for where in np.ndindex(expected.shape):
            h = min(step, expected[where] / 4)
            up, down = expected.copy(), expected.copy()
            up[where] += h
            down[where] -= h
            numeric[where] = (LOSSES[loss](up, counts, mask) - LOSSES[loss](down, counts, mask)) / (2 * h)
        np.testing.assert_allclose(predicted.grad.numpy(), numeric, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("dtype", REALS)
    def test_finite_where_nothing_is_predicted(self, dtype):
        """Zero intensity, and zero amplitude behind it: finite, and pushing the intensity up where photons fell."""
        torch = pytest.importorskip("torch")
        predicted = torch.zeros((2, 4, 4), dtype=getattr(torch, dtype), requires_grad=True)
        counts = torch.tensor(np.arange(32).reshape(2, 4, 4).astype(np.uint16))
        poisson_nll(I_pred=predicted, I_meas=counts).backward()
        gradient = predicted.grad.numpy().ravel()
        assert np.isfinite(gradient).all()
        assert gradient[0] > 0
        assert (gradient[1:] < 0).all()

    def test_bright_pixels_in_single_precision(self):
        """The slope 1 - I_meas / I_pred is small and must not come out of the difference of large numbers."""
        torch = pytest.importorskip("torch")
        counts = torch.tensor([1e3, 1e4, 1e5])
        predicted = (counts * 1.001).requires_grad_()
        poisson_nll(I_pred=predicted, I_meas=counts).backward()
        np.testing.assert_allclose(predicted.grad.numpy() * 3, 1 - 1 / 1.001, rtol=1e-3)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_bad_pixels_have_no_gradient(self, loss):
        torch = pytest.importorskip("torch")
        expected, counts = patterns(dtype=np.float32)
        dirty = counts.astype(np.float32)
        mask = np.ones((8, 8), dtype=bool)
        mask[2, 3], dirty[:, 2, 3] = False, np.nan
        predicted = torch.tensor(expected, requires_grad=True)
        LOSSES[loss](predicted, torch.tensor(dirty), torch.tensor(mask)).backward()
        gradient = predicted.grad.numpy()
        assert (gradient[:, 2, 3] == 0).all()
        assert np.isfinite(gradient).all()
        assert (np.delete(gradient.reshape(3, -1), 2 * 8 + 3, axis=1) != 0).any()


@pytest.mark.parametrize("floor", [0.0, -1.0, float("nan")])
def test_floor_must_be_positive(floor):
    with pytest.raises(DataError, match="floor"):
        poisson_nll(I_pred=np.ones((1, 2, 2)), I_meas=np.ones((1, 2, 2)), floor=floor)
