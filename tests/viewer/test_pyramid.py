"""Tiles of a large image: at full resolution the array itself, above it means of what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.viewer import pyramid as pyramids
from ptycho.viewer.pyramid import Pyramid, phase_ramp

SIDES = st.integers(1, 37)


@pytest.fixture(autouse=True, scope="module")
def _small_tiles():
    """Tiles of 8 x 8, so that small images have many of them and several levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramids, "TILE", 8)
        patch.setattr(pyramids, "_ROWS_AT_ONCE", 6)
        yield


def noise(shape, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def put_together(pyramid, level):
    """A level from its tiles, which must cover it without a gap and end where it ends."""
    height, width = (-(-side // 2**level) for side in pyramid.image.shape)
    rows = [
        np.concatenate([pyramid.tile(level, row, column) for column in range(-(-width // 8))], axis=1)
        for row in range(-(-height // 8))
    ]
    return np.concatenate(rows, axis=0)


@given(height=SIDES, width=SIDES, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_tiles_of_level_0_are_the_array(height, width, share, seed):
    image = noise((height, width), seed)
    covered = np.random.default_rng(seed).random((height, width)) < share
    whole = put_together(Pyramid(image, covered), 0)
    np.testing.assert_array_equal(whole[covered], image[covered])
    assert np.isnan(whole[~covered]).all()
    np.testing.assert_array_equal(put_together(Pyramid(image), 0), image)


@given(height=SIDES, width=SIDES, seed=st.integers(0, 99))
def test_a_level_holds_means_of_blocks(height, width, seed):
    image = noise((height, width), seed)
    pyramid = Pyramid(image)
    assert pyramid.levels == 1 + max(0, int(np.ceil(np.log2(max(height, width) / 8))))
    for level in range(1, pyramid.levels):
        side, seen = 2**level, put_together(pyramid, level)
        for row, column in np.ndindex(seen.shape):
            block = image[row * side : (row + 1) * side, column * side : (column + 1) * side]
            if block.shape == (side, side):  # at the border a half pixel stands for a whole one
                np.testing.assert_allclose(seen[row, column], block.mean(), atol=1e-5)
    with pytest.raises(LookupError):
        pyramid.tile(pyramid.levels - 1, 1, 0)


@given(height=SIDES, width=SIDES, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_level_is_unknown_just_where_nothing_below_is_known(height, width, share, seed):
    covered = np.random.default_rng(seed).random((height, width)) < share
    pyramid = Pyramid(np.ones((height, width), np.complex64), covered)
    for level in range(1, pyramid.levels):
        side, seen = 2**level, put_together(pyramid, level)
        known = np.array(
            [covered[r * side : (r + 1) * side, c * side : (c + 1) * side].any() for r, c in np.ndindex(seen.shape)]
        ).reshape(seen.shape)
        np.testing.assert_array_equal(np.isfinite(seen), known)
        np.testing.assert_array_equal(seen[known], 1)


@pytest.mark.parametrize("bad", [(-1, 0, 0), (2, 0, 0), (0, -1, 0), (0, 0, 5), (0, 4, 0)])
def test_no_tile_outside_the_image(bad):
    with pytest.raises(LookupError):
        Pyramid(noise((10, 12), 0)).tile(*bad)


@given(down=st.floats(-0.5, 0.5), right=st.floats(-0.5, 0.5), level=st.floats(-3, 3), large=st.booleans())
def test_a_ramp_comes_off(down, right, level, large):
    height, width = (300, 270) if large else (40, 60)
    plane = level + down * np.arange(height)[:, None] + right * np.arange(width)
    image = (0.8 * np.exp(1j * plane)).astype(np.complex64)
    covered = np.ones(image.shape, bool)
    covered[:3] = False
    ramp = phase_ramp(image, covered)
    assert ramp is not None
    flat = Pyramid(image, covered, ramp).tile(0, 1, 2)
    assert np.abs(np.angle(flat)).max() < 0.02
    np.testing.assert_allclose(np.abs(flat), 0.8, rtol=1e-5)


def test_nothing_known_has_no_ramp_and_still_has_limits():
    covered = np.zeros((20, 20), bool)
    assert phase_ramp(np.full((20, 20), np.nan + 0j), covered) is None
    found = Pyramid(noise((20, 20), 1), covered).limits()
    assert all(low < high and np.isfinite([low, high]).all() for low, high in found.values())


def test_limits_leave_out_what_is_not_covered():
    image = np.ones((64, 64), np.complex64)
    image[:, 40:] = 1000
    covered = np.ones(image.shape, bool)
    covered[:, 40:] = False
    assert Pyramid(image, covered).limits()["amplitude"][1] < 2
