"""Patches at sub-pixel positions: exact adjoint pair, edges, invariances, parity, gradients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backends import get_backend
from ptycho.errors import DataError
from ptycho.physics.patches import accumulate_patches, extract_patches, place_patches
from tests.support import array, as_numpy, compiles_every_shape, tolerance

COMPLEX = {"float32": "complex64", "float64": "complex128"}


def complex_normal(rng, shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def slow_extract(image, positions, size):
    """The definition, pixel by pixel, in double precision."""
    height, width = image.shape

    def pixel(row, col):
        return image[row, col] if 0 <= row < height and 0 <= col < width else 0.0

    patches = np.zeros((len(positions), size, size), dtype=np.complex128)
    for k, (p, q) in enumerate(positions):
        top, left = p - size // 2, q - size // 2
        r0, c0 = int(np.floor(top)), int(np.floor(left))
        fr, fc = top - r0, left - c0
        for i in range(size):
            for j in range(size):
                patches[k, i, j] = (1 - fr) * (
                    (1 - fc) * pixel(r0 + i, c0 + j) + fc * pixel(r0 + i, c0 + j + 1)
                ) + fr * ((1 - fc) * pixel(r0 + i + 1, c0 + j) + fc * pixel(r0 + i + 1, c0 + j + 1))
    return patches


@st.composite
def geometries(draw, xp):
    """Image shape, patch size, positions, many of them across the edge or far outside, and a seed.

    A namespace that compiles every shape is given one, and other positions in it.
    """
    one = compiles_every_shape(xp)
    shape = (9, 11) if one else draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    size = 4 if one else draw(st.integers(1, 7))
    coordinate = st.floats(-30, 40, allow_nan=False, width=32)
    positions = draw(st.lists(st.tuples(coordinate, coordinate), min_size=3 if one else 1, max_size=3 if one else 5))
    return shape, size, np.array(positions, dtype=np.float64), draw(st.integers(0, 2**16))


class TestAdjoint:
    @pytest.mark.parametrize("kind", ["real", "complex"])
    @given(data=st.data())
    def test_dot_product(self, xp, dtype, kind, data):
        shape, size, positions, seed = data.draw(geometries(xp))
        rng = np.random.default_rng(seed)
        wanted = dtype if kind == "real" else COMPLEX[dtype]
        image = array(xp, complex_normal(rng, shape).real if kind == "real" else complex_normal(rng, shape), wanted)
        stack = (len(positions), size, size)
        patches = array(xp, complex_normal(rng, stack).real if kind == "real" else complex_normal(rng, stack), wanted)
        where = array(xp, positions)
        left = np.vdot(as_numpy(patches).astype(complex), as_numpy(extract_patches(image, where, size)))
        right = np.vdot(as_numpy(accumulate_patches(patches, where, shape)), as_numpy(image).astype(complex))
        scale = np.linalg.norm(as_numpy(image)) * np.linalg.norm(as_numpy(patches))
        assert abs(left - right) <= tolerance(dtype) * scale

    @given(data=st.data())
    def test_extract_is_the_definition(self, xp, data):
        shape, size, positions, seed = data.draw(geometries(xp))
        image = complex_normal(np.random.default_rng(seed), shape)
        patches = extract_patches(array(xp, image), array(xp, positions), size)
        np.testing.assert_allclose(as_numpy(patches), slow_extract(image, positions, size), atol=1e-12)

    @given(data=st.data())
    def test_total_is_kept_inside(self, xp, data):
        shape, size, positions, seed = data.draw(geometries(xp))
        patches = complex_normal(np.random.default_rng(seed), (len(positions), size, size))
        windows, corners, weights = place_patches(array(xp, patches), array(xp, positions), shape)
        np.testing.assert_array_equal(as_numpy(windows), patches)
        np.testing.assert_allclose(as_numpy(weights).sum(axis=1), 1.0, atol=1e-12)
        assert as_numpy(corners).min() >= 0
        assert (as_numpy(corners) + size <= np.array(shape) + 2 * (size + 1)).all()


class TestValues:
    @pytest.mark.parametrize("size", [1, 4, 5, 8])
    def test_whole_positions_are_slices(self, xp, complex_dtype, assert_close, size):
        image = complex_normal(np.random.default_rng(1), (20, 24)).astype(complex_dtype)
        corners = np.array([[0, 0], [3, 7], [20 - size, 24 - size]])
        patches = extract_patches(array(xp, image), array(xp, corners + size // 2), size)
        wanted = np.stack([image[r : r + size, c : c + size] for r, c in corners])
        assert_close(patches, array(xp, wanted), rtol=0.0)

    def test_the_middle_pixel_lies_on_the_position(self, xp):
        image = np.zeros((16, 16))
        image[5, 9] = 1.0
        patch = as_numpy(extract_patches(array(xp, image), array(xp, [[5.0, 9.0]]), 8))[0]
        assert patch[4, 4] == 1.0
        assert patch.sum() == 1.0

    def test_rows_come_before_columns(self, xp):
        image = np.arange(16.0)[:, None] * np.ones(16)
        patch = as_numpy(extract_patches(array(xp, image), array(xp, [[8.25, 8.0]]), 4))[0]
        np.testing.assert_allclose(patch, (np.arange(6, 10) + 0.25)[:, None] * np.ones(4))

    @pytest.mark.parametrize("corner", [(-6, 0), (0, -6), (9, 0), (0, 9), (-1000, 0), (1e6, 1e6)])
    def test_neighbours_outside_are_zero(self, xp, corner):
        image = np.ones((10, 10))
        patch = as_numpy(extract_patches(array(xp, image), array(xp, [np.array(corner) + 3.5]), 6))[0]
        wanted = slow_extract(image, [np.array(corner) + 3.5], 6)[0].real
        np.testing.assert_allclose(patch, wanted)

    @pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "bool"])
    def test_whole_numbers_are_widened(self, xp, kind):
        if kind == "uint16" and xp.__name__.endswith("torch"):
            image = np.arange(64).reshape(8, 8).astype("int16")
        else:
            image = np.arange(64).reshape(8, 8).astype(kind)
        positions = array(xp, [[4.5, 4.0]])
        patches = extract_patches(array(xp, image), positions, 4)
        np.testing.assert_allclose(
            as_numpy(patches), as_numpy(extract_patches(array(xp, image, "float32"), positions, 4))
        )
        placed = accumulate_patches(array(xp, image[None]), positions, (8, 8))
        np.testing.assert_allclose(
            as_numpy(placed), as_numpy(accumulate_patches(array(xp, image[None], "float32"), positions, (8, 8)))
        )

    def test_leading_axes_and_order(self, xp, complex_dtype, assert_close):
        rng = np.random.default_rng(2)
        image = array(xp, complex_normal(rng, (20, 20)), complex_dtype)
        positions = rng.uniform(2, 18, (6, 2))
        flat = extract_patches(image, array(xp, positions), 4)
        folded = extract_patches(image, array(xp, positions.reshape(2, 3, 2)), 4)
        assert_close(folded, xp.reshape(flat, (2, 3, 4, 4)), rtol=0.0)
        single = extract_patches(image, array(xp, positions[4]), 4)
        assert_close(single, flat[4, ...], rtol=0.0)
        order = rng.permutation(6)
        assert_close(extract_patches(image, array(xp, positions[order]), 4), xp.take(flat, array(xp, order), axis=0))
        placed = accumulate_patches(flat, array(xp, positions), (20, 20))
        shuffled = accumulate_patches(xp.take(flat, array(xp, order), axis=0), array(xp, positions[order]), (20, 20))
        assert_close(shuffled, placed)

    def test_namespaces_agree(self, xp, dtype, complex_dtype, tolerance):
        rng = np.random.default_rng(3)
        image, positions = complex_normal(rng, (30, 31)).astype(complex_dtype), rng.uniform(-4, 34, (9, 2))
        ours = extract_patches(array(xp, image), positions, 8)  # host positions for any framework
        wanted = extract_patches(image, positions, 8)
        np.testing.assert_allclose(as_numpy(ours), wanted, atol=tolerance)
        placed = accumulate_patches(ours, positions, (30, 31))
        np.testing.assert_allclose(
            as_numpy(placed), accumulate_patches(wanted, positions, (30, 31)), atol=4 * tolerance
        )

    def test_inputs_are_only_read(self):
        image, positions = np.ones((8, 8)), np.array([[4.5, 4.5]])
        image.flags.writeable = positions.flags.writeable = False
        patches = extract_patches(image, positions, 4)
        patches.flags.writeable = False
        accumulate_patches(patches, positions, (8, 8))


class TestGradients:
    """PyTorch's gradients against central differences, double precision."""

    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def setting(self, torch, seed=0):
        rng = np.random.default_rng(seed)
        image = torch.tensor(complex_normal(rng, (9, 10)))
        positions = torch.tensor(rng.uniform(0.1, 0.4, (4, 2)) + rng.integers(-1, 9, (4, 2)))
        weights = torch.tensor(complex_normal(rng, (4, 5, 5)))
        return image, positions, weights

    @pytest.mark.parametrize("operation", ["extract", "accumulate"])
    @pytest.mark.parametrize("argument", ["values", "positions"])
    def test_against_differences(self, torch, operation, argument):
        image, positions, patches = self.setting(torch)
        target = torch.tensor(
            complex_normal(np.random.default_rng(9), (4, 5, 5) if operation == "extract" else (9, 10))
        )

        def loss(values, where):
            if operation == "extract":
                out = extract_patches(values, where, 5)
            else:
                out = accumulate_patches(values, where, (9, 10))
            return torch.sum(torch.abs(out - target) ** 2)

        values = image if operation == "extract" else patches
        if argument == "values":
            point, f = values, lambda v: loss(v, positions)
        else:
            point, f = positions, lambda p: loss(values, p)
        _, gradient = get_backend("pytorch").value_and_grad(f)(point)
        rng = np.random.default_rng(4)
        for _ in range(4):
            step = rng.normal(size=point.shape)
            if point.is_complex():
                step = step + 1j * rng.normal(size=point.shape)
            step = torch.tensor(step)
            numeric = (f(point + 1e-5 * step) - f(point - 1e-5 * step)) / 2e-5
            analytic = (
                torch.sum((torch.conj(gradient) * step).real) if step.is_complex() else torch.sum(gradient * step)
            )
            assert abs(float(numeric - analytic)) <= 1e-6 * abs(float(numeric)) + 1e-7


class TestErrors:
    def test_image_must_be_flat(self):
        with pytest.raises(DataError, match=r"image: got shape \(2, 4, 4\)"):
            extract_patches(np.zeros((2, 4, 4)), np.zeros((1, 2)), 2)

    def test_positions_must_be_pairs(self):
        with pytest.raises(DataError, match="positions: got shape"):
            extract_patches(np.zeros((4, 4)), np.zeros((1, 3)), 2)

    def test_size_must_be_positive(self):
        with pytest.raises(DataError, match="size: got 0"):
            extract_patches(np.zeros((4, 4)), np.zeros((1, 2)), 0)

    @pytest.mark.parametrize("shape", [(2, 4, 4), (1, 4, 3), (4,)])
    def test_patches_and_positions_belong_together(self, shape):
        with pytest.raises(DataError, match="patches: got shape"):
            accumulate_patches(np.zeros(shape), np.zeros((1, 2)), (8, 8))
