"""Lists, single modes, rectangles and real waves: what the public physics takes beside (..., N, N) arrays."""

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.physics import (
    accumulate_patches,
    diffraction_amplitude,
    diffraction_intensity,
    extract_patches,
    far_field,
    illuminate,
    mae,
    near_field,
    poisson_nll,
    reassemble,
)
from tests.support import array, as_numpy

RNG = np.random.default_rng(3)


def wave(*shape):
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", [(8, 6), (2, 5, 7), (1, 4), (3, 1)])
def test_far_field_of_a_rectangle(xp, shape, assert_close):
    """Zero frequency at [H//2, W//2], energy kept, on both axes even or odd."""
    given = wave(*shape)
    desired = np.fft.fftshift(np.fft.fft2(given, norm="ortho"), axes=(-2, -1))
    assert_close(far_field(array(xp, given)), array(xp, desired.astype(np.complex64)))


@pytest.mark.parametrize("kind", ["float32", "int32"])
@pytest.mark.parametrize("propagate", [far_field, lambda x: near_field(x, 1e-3, 1e-10, 1e-7)])
def test_real_waves_are_complex_ones(xp, kind, propagate, assert_close):
    given = RNG.integers(0, 9, (4, 6)).astype(kind)
    assert_close(propagate(array(xp, given)), propagate(array(xp, given.astype(np.complex64))))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
@pytest.mark.parametrize("step", [illuminate, diffraction_intensity, diffraction_amplitude])
def test_a_probe_without_an_axis_of_modes_is_one_mode(xp, step, lead, assert_close):
    patches, probe = array(xp, wave(*lead, 8, 8)), wave(8, 8)
    assert_close(step(patches, array(xp, probe)), step(patches, array(xp, probe[None])))


def test_illumination_has_an_axis_of_modes(xp):
    assert illuminate(array(xp, wave(5, 8, 8)), array(xp, wave(8, 8))).shape == (5, 1, 8, 8)
    assert illuminate(array(xp, wave(8, 6)), array(xp, wave(2, 8, 6))).shape == (2, 8, 6)


@pytest.mark.parametrize("shape", [(8,), (1, 1, 8, 8), (6, 6), (2, 8, 6)])
def test_a_probe_of_another_shape(xp, shape):
    with pytest.raises(DataError, match=r"probe: got shape .* expected \(modes, N, N\), or \(N, N\) for one mode"):
        illuminate(array(xp, wave(3, 8, 8)), array(xp, wave(*shape)))


def test_positions_as_a_list_go_with_any_framework(xp, assert_close):
    image, where = wave(12, 12), [[5, 6.5], [4.25, 7]]
    patches = extract_patches(array(xp, image), where, 4)
    assert_close(patches, extract_patches(array(xp, image), np.asarray(where), 4))
    assert_close(accumulate_patches(patches, where, (12, 12)), accumulate_patches(patches, np.asarray(where), (12, 12)))
    assert_close(reassemble(patches, where).object, reassemble(patches, np.asarray(where)).object)


def test_lists_are_numpy_arrays():
    image, where = RNG.normal(size=(9, 9)), [(4, 4), (3, 5)]
    patches = extract_patches(image.tolist(), where, 3)
    np.testing.assert_array_equal(patches, extract_patches(image, np.asarray(where), 3))
    np.testing.assert_array_equal(accumulate_patches(patches.tolist(), where, (9, 9))[3:6, 3:6].shape, (3, 3))
    np.testing.assert_allclose(far_field([[1, 0], [0, 0]]), np.full((2, 2), 0.5))
    np.testing.assert_allclose(as_numpy(poisson_nll(I_pred=[[1.0, 2.0]], I_meas=[[1, 0]])), 1.5)
    np.testing.assert_allclose(mae(A_pred=[1.0, 2.0], A_meas=[1, 0], mask=[True, True]), 1.0)


@pytest.mark.parametrize("image", [[[1, 2], [3]], [["a"]], [None], [], 3.0])
def test_what_is_no_image(image):
    with pytest.raises(DataError, match="image: "):
        extract_patches(image, [[1, 1]], 2)


@pytest.mark.parametrize("given", [[1, 2, 3], 4j])
def test_a_wave_needs_two_axes(given):
    with pytest.raises(DataError, match=r"exit_wave: got shape .* expected \(\.\.\., H, W\)"):
        far_field(given)


class TestLossesTakeTheirArgumentsByName:
    def test_positions_warn_for_one_version(self):
        with pytest.warns(FutureWarning, match=r"poisson_nll takes its arguments by name, I_pred= and I_meas= first"):
            found = poisson_nll(np.ones((2, 2)), np.full((2, 2), 3), floor=0.1)
        assert found == poisson_nll(I_pred=np.ones((2, 2)), I_meas=np.full((2, 2), 3), floor=0.1)
        with pytest.warns(FutureWarning, match="mae takes its arguments by name"):
            assert mae(np.ones((2, 2)), np.zeros((2, 2)), np.eye(2, dtype=bool)) == 1.0

    @pytest.mark.parametrize("loss", [poisson_nll, mae])
    def test_too_many_twice_or_missing(self, loss):
        one = np.ones((2, 2))
        with pytest.raises(TypeError):
            loss(one, one, one, one, one)
        with pytest.raises(TypeError):
            loss(one, one, **{loss.__name__.replace("poisson_nll", "I_pred").replace("mae", "A_pred"): one})
        with pytest.raises(TypeError):
            loss()
