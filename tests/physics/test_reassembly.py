"""Stitching: perfect patches give the object back, streamed or at once; groups never mix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics.patches import extract_patches
from ptycho.physics.reassembly import (
    Canvas,
    canvas_for,
    extract_groups,
    group_canvas_size,
    merge_groups,
    merge_partials,
    reassemble,
    stitching_window,
)
from tests.support import array, as_numpy


def picture(shape=(40, 44), seed=0):
    """Linear in rows and columns, so that bilinear interpolation is exact, with a random constant."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=3) + 1j * rng.normal(size=3)
    return a + b * np.arange(shape[0])[:, None] / shape[0] + c * np.arange(shape[1])[None, :] / shape[1]


def scattered(M=30, size=8, shape=(40, 44), seed=1, whole=True):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(size // 2, np.array(shape) - size // 2 - 1, (M, 2))
    return np.round(positions) if whole else positions


class TestReassemble:
    @pytest.mark.parametrize("window", ["uniform", "crop", "array"])
    def test_perfect_patches_give_the_object(self, xp, complex_dtype, tolerance, window):
        image, positions = picture(), scattered()
        patches = extract_patches(image, positions, 8).astype(complex_dtype)
        weights = np.random.default_rng(0).uniform(0.1, 2.0, (8, 8)) if window == "array" else window
        out = reassemble(array(xp, patches), array(xp, positions), weights, shape=image.shape, origin=(0, 0))
        weight = as_numpy(out.weight)
        covered = weight > 0
        assert 0.2 < covered.mean() < 1
        np.testing.assert_allclose(as_numpy(out.object)[covered], image[covered], atol=20 * tolerance)
        assert (as_numpy(out.object)[~covered] == 1).all()
        assert out.object.dtype == getattr(xp, complex_dtype)

    @given(st.integers(0, 1000), st.floats(-50, 50), st.floats(-50, 50))
    def test_the_canvas_finds_its_place(self, seed, row, col):
        image, positions = picture(seed=seed), scattered(8, seed=seed)
        patches = extract_patches(image, positions, 8)
        moved = np.floor([row, col])
        out = reassemble(patches, positions + moved)
        first = (np.array(out.origin) - moved).astype(int)
        part = image[first[0] : first[0] + out.object.shape[0], first[1] : first[1] + out.object.shape[1]]
        assert part.shape == out.object.shape
        covered = out.weight > 0
        np.testing.assert_allclose(out.object[covered], part[covered], atol=1e-9)
        assert covered[0].any()
        assert covered[:, 0].any()
        assert covered[-1].any()
        assert covered[:, -1].any()

    def test_fractions_keep_a_flat_object_flat(self, xp, complex_dtype, tolerance):
        positions = scattered(whole=False)
        patches = np.full((30, 8, 8), 0.5 + 0.25j, dtype=complex_dtype)
        out = reassemble(array(xp, patches), array(xp, positions))
        covered = as_numpy(out.weight) > 1e-2
        np.testing.assert_allclose(as_numpy(out.object)[covered], 0.5 + 0.25j, atol=100 * tolerance)

    def test_whole_positions_of_integer_type(self, xp, complex_dtype, assert_close):
        positions = scattered().astype(np.int64)
        patches = extract_patches(picture(), positions, 8).astype(complex_dtype)
        whole = reassemble(array(xp, patches), array(xp, positions))
        assert_close(whole.object, reassemble(array(xp, patches), array(xp, positions, "float64")).object)

    def test_overlap_is_the_weighted_mean(self):
        patches = np.stack([np.full((4, 4), 1.0 + 0j), np.full((4, 4), 3.0 + 0j)])
        out = reassemble(patches, np.array([[2.0, 2.0], [2.0, 4.0]]))
        np.testing.assert_allclose(out.object[0].real, [1, 1, 2, 2, 3, 3])
        np.testing.assert_allclose(out.weight[0], [1, 1, 2, 2, 1, 1])

    def test_crop_keeps_the_middle_only(self):
        out = reassemble(np.full((1, 8, 8), 5.0 + 0j), np.array([[4.0, 4.0]]), "crop", crop=2)
        assert out.weight.sum() == 4
        assert (out.object[3:5, 3:5] == 5).all()
        assert (out.object == 1).sum() == 60

    def test_gradients_are_finite_where_nothing_lies(self):
        torch = pytest.importorskip("torch")
        patches = torch.ones((1, 4, 4), dtype=torch.complex128, requires_grad=True)
        out = reassemble(patches, torch.tensor([[4.0, 4.0]]), shape=(12, 12), origin=(0.0, 0.0))
        torch.sum(torch.abs(out.object) ** 2).backward()
        torch.testing.assert_close(patches.grad, torch.full((1, 4, 4), 2 + 0j, dtype=torch.complex128))

    def test_shape_and_origin_go_together(self):
        with pytest.raises(DataError, match="shape: expected together with origin"):
            reassemble(np.ones((1, 4, 4), complex), np.zeros((1, 2)), shape=(8, 8))


class TestCanvas:
    @pytest.mark.parametrize("window", ["uniform", "crop", "array"])
    @pytest.mark.parametrize("chunk", [1, 7, 30])
    def test_equals_reassemble_in_any_chunks_and_order(self, xp, window, chunk):
        rng = np.random.default_rng(3)
        positions = scattered(whole=False)
        patches = rng.normal(size=(30, 8, 8)) + 1j * rng.normal(size=(30, 8, 8))
        weights = rng.uniform(0.1, 1.0, (8, 8)) if window == "array" else window
        wanted = reassemble(patches, positions, weights)
        canvas = Canvas.covering(positions, 8, weights)
        order = rng.permutation(30)
        for first in range(0, 30, chunk):
            index = order[first : first + chunk]
            canvas.add(array(xp, patches[index]), array(xp, positions[index]))
        out = canvas.result("complex128")
        assert out.origin == wanted.origin
        np.testing.assert_allclose(out.weight, wanted.weight, atol=1e-12)
        np.testing.assert_allclose(out.object, wanted.object, atol=1e-9)
        single = canvas.result()
        assert (single.object.dtype, single.weight.dtype) == (np.complex64, np.float32)

    def test_an_empty_canvas_is_neutral(self):
        out = Canvas((5, 6), (0.0, 0.0), 4).result()
        assert (out.object == 1).all()
        assert (out.weight == 0).all()

    def test_groups_of_patches_are_taken(self):
        canvas, flat = Canvas((20, 20), (0, 0), 4), Canvas((20, 20), (0, 0), 4)
        patches, positions = np.random.default_rng(0).normal(size=(2, 3, 4, 4)) + 0j, scattered(6, 4, (20, 20))
        canvas.add(patches, positions.reshape(2, 3, 2))
        flat.add(patches.reshape(6, 4, 4), positions)
        np.testing.assert_array_equal(canvas.result().object, flat.result().object)

    def test_what_lies_outside_is_dropped(self):
        canvas = Canvas((6, 6), (0, 0), 4)
        canvas.add(np.full((2, 4, 4), 2.0 + 0j), np.array([[0.0, 0.0], [500.0, -500.0]]))
        assert canvas.result().weight.sum() == 4

    @given(st.lists(st.integers(0, 29), min_size=1, max_size=6, unique=True), st.booleans())
    def test_parts_laid_elsewhere_make_the_whole(self, cuts, together):
        """Each part on a canvas of its own; summed one by one, or together before."""
        rng = np.random.default_rng(5)
        positions = scattered(whole=False)
        patches = rng.normal(size=(30, 8, 8)) + 1j * rng.normal(size=(30, 8, 8))
        weights = rng.uniform(0.1, 1.0, (8, 8))
        whole = Canvas.covering(positions, 8, weights)
        whole.add(patches, positions)
        parts = []
        for numbers in np.split(np.arange(30), sorted(cuts)):
            if numbers.size:
                part = Canvas.covering(positions[numbers], 8, weights)
                part.add(patches[numbers], positions[numbers])
                parts.append(part.partial())
        canvas = Canvas.covering(positions, 8, weights)
        for part in [merge_partials(parts)] if together else parts:
            canvas.add_partial(part)
        one, other = whole.result("complex128"), canvas.result("complex128")
        np.testing.assert_allclose(other.weight, one.weight, rtol=1e-12)
        np.testing.assert_allclose(other.object, one.object, atol=1e-9)

    @pytest.mark.parametrize("origin", [(0.5, 0.0), (-1.0, 0.0), (3.0, 3.0)])
    def test_a_part_between_the_pixels_or_outside_is_refused(self, origin):
        part = Canvas((4, 4), origin, 4).partial()
        with pytest.raises(DataError, match="does not lie on the pixels of this canvas"):
            Canvas((6, 6), (0, 0), 4).add_partial(part)

    @pytest.mark.parametrize(("patches", "positions"), [((2, 4, 4), (3, 2)), ((2, 5, 5), (2, 2))])
    def test_other_shapes_are_refused(self, patches, positions):
        with pytest.raises(DataError, match="patches: got shape"):
            Canvas((9, 9), (0, 0), 4).add(np.zeros(patches, complex), np.zeros(positions))

    @pytest.mark.parametrize("positions", [np.zeros((0, 2)), np.array([[np.nan, 0.0]])])
    def test_positions_must_be_there_and_finite(self, positions):
        with pytest.raises(DataError, match="positions: expected at least one"):
            canvas_for(positions, 4)


class TestWindow:
    def test_largest_weight_is_one(self):
        assert stitching_window(np.full((4, 4), 7.0), 4).max() == 1.0

    @pytest.mark.parametrize("size", [4, 5])
    def test_crop_defaults_to_half(self, size):
        assert stitching_window("crop", size).sum() == (size // 2) ** 2

    @pytest.mark.parametrize(
        ("window", "crop", "message"),
        [
            ("hann", None, "window: got 'hann'"),
            ("crop", 0, "crop: got 0"),
            ("crop", 9, "crop: got 9"),
            (np.ones((3, 3)), None, r"window: got shape \(3, 3\)"),
            (np.zeros((4, 4)), None, "some above 0"),
            (-np.ones((4, 4)), None, "some above 0"),
            (np.full((4, 4), np.nan), None, "some above 0"),
        ],
    )
    def test_refused(self, window, crop, message):
        with pytest.raises(DataError, match=message):
            stitching_window(window, 4, crop)


def groups(B=3, size=8, spread=3.0, seed=0):
    relative = np.random.default_rng(seed).uniform(-spread, spread, (B, 4, 2))
    return relative - relative.mean(axis=1, keepdims=True)


class TestGroups:
    def test_groups_never_mix(self, xp, complex_dtype, assert_close):
        rng = np.random.default_rng(1)
        relative = groups(5).astype("float64")
        patches = (rng.normal(size=(5, 4, 8, 8)) + 1j * rng.normal(size=(5, 4, 8, 8))).astype(complex_dtype)
        side = group_canvas_size(relative, 8, 2)
        together = merge_groups(array(xp, patches), array(xp, relative), side)
        for k in range(5):
            alone = merge_groups(array(xp, patches[k : k + 1]), array(xp, relative[k : k + 1]), side)
            assert_close(alone, together[k : k + 1, ...])

    @pytest.mark.parametrize("weighted", [False, True])
    def test_perfect_patches_merge_to_the_object(self, xp, complex_dtype, tolerance, weighted):
        relative = np.round(groups())
        side = group_canvas_size(relative, 8, 2)
        objects = np.stack([picture((side, side), seed) for seed in range(3)]).astype(complex_dtype)
        patches = extract_groups(array(xp, objects), array(xp, relative), 8)
        window = array(xp, np.random.default_rng(0).uniform(0.1, 1, (8, 8)))
        window = xp.astype(window, xp.real(patches).dtype) if weighted else None
        merged = as_numpy(merge_groups(patches, array(xp, relative), side, window))
        covered = merged != 1
        assert covered.mean() > 0.2
        np.testing.assert_allclose(merged[covered], objects[covered], atol=20 * tolerance)
        again = extract_groups(array(xp, merged.astype(complex_dtype)), array(xp, relative), 8)
        np.testing.assert_allclose(as_numpy(again), as_numpy(patches), atol=20 * tolerance)

    def test_geometry_of_the_patches_read_back(self):
        side = 20
        objects = (np.arange(side)[:, None] + 1j * np.arange(side)[None, :])[None].repeat(2, axis=0)
        relative = np.array([[[-2.0, 1.0], [2.0, -1.0]], [[0.25, 0.0], [-0.25, 0.0]]])
        patches = extract_groups(objects, relative, 6)
        middle = patches[:, :, 3, 3]
        np.testing.assert_allclose(middle, 10 + relative[..., 0] + 1j * (10 + relative[..., 1]))

    @given(st.floats(0, 60), st.sampled_from([8, 16]), st.integers(2, 3))
    def test_the_canvas_grows_with_the_spread(self, spread, size, gridsize):
        relative = np.array([[[spread, 0.0], [-spread, 0.0], [0.0, spread], [0.0, -spread]]])
        side = group_canvas_size(relative, size, gridsize)
        assert side % 2 == 0
        assert side >= size + (gridsize - 1) * 4 + 10
        merged = merge_groups(np.full((1, 4, size, size), 3.0 + 0j), relative, side)
        back = extract_groups(merged, relative, size)
        np.testing.assert_allclose(back, 3.0, atol=1e-5)  # nothing cut off; weights below 1e-6 count as none

    def test_single_patches_need_no_canvas(self):
        assert group_canvas_size(np.zeros((5, 1, 2)), 64, 1) == 64

    def test_nominal_size(self):
        assert group_canvas_size(np.zeros((5, 4, 2)), 64, 2) == 78
