"""Windows on the host: the compiled loops and numpy's against a plain sum, on arrays of every layout."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backends import windows


@pytest.fixture(params=["compiled", "numpy"])
def loops(request, monkeypatch):
    """The two ways of doing the same."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        assert windows._compiled() is not None
    else:
        monkeypatch.setattr(windows, "_compiled", lambda: None)


def drawn(seed, dtype, places=4, count=5, size=3):
    rng = np.random.default_rng(seed)

    def values(*shape):
        numbers = rng.normal(size=(*shape, 2))
        return (numbers @ [1, 1j] if np.dtype(dtype).kind == "c" else numbers[..., 0]).astype(dtype)

    image, stack = values(9, 11), values(count, size, size)
    corners = np.stack(
        [rng.integers(0, 9 - size + 1, (count, places)), rng.integers(0, 11 - size + 1, (count, places))], -1
    )
    return (
        image,
        stack,
        corners.astype(rng.choice([np.int32, np.int64])),
        rng.random((count, places)).astype(image.real.dtype),
    )


def laid(image, layout):
    """The same values, in other memory."""
    if layout == "part of a larger one":
        large = np.zeros((image.shape[0] + 2, image.shape[1] + 3), image.dtype)
        large[1:-1, 2:-1] = image
        return large[1:-1, 2:-1]
    if layout == "columns first":
        return np.asfortranarray(image)
    return image[::-1].copy()[::-1] if layout == "upside down" else image.copy()


LAYOUTS = ["plain", "part of a larger one", "columns first", "upside down"]


@pytest.mark.usefixtures("loops")
class TestBothWays:
    @given(seed=st.integers(0, 99), layout=st.sampled_from(LAYOUTS),
           dtype=st.sampled_from(["float32", "float64", "complex64", "complex128"]))  # fmt: skip
    def test_a_weighted_sum_of_what_lies_there(self, seed, layout, dtype):
        image, stack, corners, weights = drawn(seed, dtype)
        found = windows.gather_windows(laid(image, layout), corners, weights, 3)
        assert found.dtype == image.dtype
        for window, places, shares in zip(found, corners, weights, strict=True):
            desired = sum(w * image[r : r + 3, c : c + 3] for (r, c), w in zip(places, shares, strict=True))
            np.testing.assert_allclose(window, desired, rtol=0, atol=1e-5)

        into = laid(image, layout)
        windows.add_windows(into, stack, corners, weights)
        desired = image.astype("complex128")
        for window, places, shares in zip(stack, corners, weights, strict=True):
            for (r, c), w in zip(places, shares, strict=True):
                desired[r : r + 3, c : c + 3] += w * window
        np.testing.assert_allclose(into, desired, rtol=0, atol=1e-5)

    @given(seed=st.integers(0, 99), pair=st.sampled_from([("complex64", "complex128"), ("float32", "float64"),
                                                          ("float32", "complex64"), ("longdouble", "float64"),
                                                          ("int16", "float32"), ("float16", "float32")]))  # fmt: skip
    def test_the_sum_has_the_precision_of_the_image(self, seed, pair):
        narrow, wide = pair
        _, stack, corners, weights = drawn(seed, "float64")
        stack = (10 * stack).astype(narrow)
        one, other = np.zeros((9, 11), wide), np.zeros((9, 11), wide)
        windows.add_windows(one, stack, corners, weights)
        windows.add_windows(other, stack.astype(wide), corners, weights)
        np.testing.assert_array_equal(one, other)

    @given(seed=st.integers(0, 99))
    def test_one_is_the_adjoint_of_the_other(self, seed):
        image, stack, corners, weights = drawn(seed, "complex128", places=2)
        into = np.zeros_like(image)
        windows.add_windows(into, stack, corners, weights)
        gathered = windows.gather_windows(image, corners, weights, 3)
        assert np.vdot(gathered, stack) == pytest.approx(np.vdot(image, into), rel=1e-12)

    def test_the_same_window_everywhere_and_none_at_all(self):
        image, stack, corners, weights = drawn(0, "complex64")
        one, many = np.zeros_like(image), np.zeros_like(image)
        windows.add_windows(one, np.broadcast_to(stack[0], stack.shape), corners, weights)
        windows.add_windows(many, np.repeat(stack[:1], len(stack), axis=0), corners, weights)
        np.testing.assert_array_equal(one, many)
        windows.add_windows(one, stack[:0], corners[:0], weights[:0])
        np.testing.assert_array_equal(one, many)
        assert windows.gather_windows(image, corners[:0], weights[:0], 3).shape == (0, 3, 3)

    @pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (7, 0), (0, 9)])
    def test_nothing_outside_is_touched(self, corner):
        image, stack, _, _ = drawn(0, "float32")
        corners, weights = np.asarray([[corner]]), np.ones((1, 1), np.float32)
        with pytest.raises(IndexError, match="windows of 3 reach from"):
            windows.gather_windows(image, corners, weights, 3)
        with pytest.raises(IndexError, match="windows of 3 reach from"):
            windows.add_windows(image, stack[:1], corners, weights)

    def test_what_nothing_is_compiled_for(self):
        image, _, corners, weights = drawn(0, "float64")
        found = windows.gather_windows(image.astype(np.longdouble), corners, weights, 3)
        assert found.dtype == np.longdouble
        np.testing.assert_allclose(found, windows.gather_windows(image, corners, weights, 3), rtol=0, atol=1e-12)


def test_without_a_folder_to_keep_what_is_compiled(monkeypatch):
    numba = pytest.importorskip("numba")
    from ptycho.backends import windows_compiled

    def njit(*, cache=False, nogil, fastmath):
        if cache:
            raise RuntimeError("cannot cache function 'add': no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert windows_compiled._compiled(test_without_a_folder_to_keep_what_is_compiled) is (
        test_without_a_folder_to_keep_what_is_compiled
    )
