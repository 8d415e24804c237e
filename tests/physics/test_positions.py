"""Scan positions: inside the object, evenly spread, reproducible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import (
    extract_patches,
    fermat_positions,
    patch_limits,
    random_positions,
    raster_positions,
)

MAKERS = {
    "raster": lambda shape, size, **more: raster_positions(shape, size, 5.3, **more),
    "jittered raster": lambda shape, size, **more: raster_positions(shape, size, 5.3, jitter=3.0, **more),
    "fermat": lambda shape, size, **more: fermat_positions(shape, size, 4.0, **more),
    "jittered fermat": lambda shape, size, **more: fermat_positions(shape, size, 4.0, jitter=3.0, **more),
    "random": lambda shape, size, **more: random_positions(shape, size, 200, **more),
}


@pytest.mark.parametrize("maker", MAKERS)
@given(
    size=st.sampled_from([7, 8, 16]),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    before=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_patches_lie_inside_the_region(maker, size, extra, before):
    """A patch taken from an image of ones, with zeros around the region, holds nothing but ones."""
    region = tuple((first, first + size + more) for first, more in zip(before, extra, strict=True))
    shape = tuple(last + 5 for _, last in region)
    where = MAKERS[maker](shape, size, region=region)
    assert where.dtype == np.float64
    assert where.ndim == 2
    assert where.shape[1] == 2
    assert len(where) >= 1
    image = np.zeros(shape)
    image[region[0][0] : region[0][1], region[1][0] : region[1][1]] = 1.0
    np.testing.assert_allclose(extract_patches(image, where, size), 1.0, atol=1e-12)


@pytest.mark.parametrize("maker", [name for name in MAKERS if name != "raster" and name != "fermat"])
def test_the_seed_decides(maker):
    make = MAKERS[maker]
    np.testing.assert_array_equal(make((60, 70), 16, rng=4), make((60, 70), 16, rng=4))
    assert (make((60, 70), 16, rng=4) != make((60, 70), 16, rng=5)).any()


class TestRaster:
    def test_steps_and_order(self):
        where = raster_positions((40, 56), 16, (6, 10))
        rows, cols = np.unique(where[:, 0]), np.unique(where[:, 1])
        np.testing.assert_allclose(np.diff(rows), 6)
        np.testing.assert_allclose(np.diff(cols), 10)
        np.testing.assert_array_equal(where, np.stack(np.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2))

    def test_centred_and_full(self):
        where = raster_positions((41, 41), 16, 6)  # room of 25 pixels: 5 points, half a pixel left on either side
        np.testing.assert_allclose(np.unique(where[:, 0]), 8.5 + 6 * np.arange(5))

    def test_a_step_that_fits_reaches_both_ends(self):
        np.testing.assert_allclose(np.unique(raster_positions((34, 34), 16, 0.1)[:, 1])[[0, -1]], [8, 26])

    def test_jitter_has_the_asked_spread(self):
        still, moved = (raster_positions((400, 400), 16, 8, jitter=jitter) for jitter in (0.0, 1.5))
        assert (moved - still).std() == pytest.approx(1.5, rel=0.05)


def test_fermat_has_one_point_per_area():
    where = fermat_positions((216, 266), 16, 5.0)
    assert len(where) == pytest.approx(200 * 250 / 25, rel=0.02)
    distance = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(where))
    nearest = distance.min(axis=1)
    assert np.quantile(nearest, 0.02) > 0.8 * 5
    assert nearest.max() < 1.3 * 5
    np.testing.assert_allclose(where[0], [108, 133])


def test_random_fills_the_room_evenly():
    low, high = patch_limits((200, 300), 64)
    part = (random_positions((200, 300), 64, 20_000) - low) / (high - low)
    assert part.min() >= 0
    assert part.max() <= 1
    for axis in (0, 1):
        counts = np.histogram(part[:, axis], 10, (0, 1))[0]
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize(("size", "expected"), [(16, (8, 24)), (15, (7, 24))])
def test_limits_are_the_outermost_centres(size, expected):
    """An even patch covers p - N/2 ... p + N/2 - 1, an odd one p - (N-1)/2 ... p + (N-1)/2."""
    low, high = patch_limits((32, 32), size)
    assert (low[0], high[0]) == expected


@pytest.mark.parametrize("maker", MAKERS)
def test_too_small_an_object_is_refused(maker):
    with pytest.raises(DataError, match=r"object: its 20 x 15 pixels are too small for a patch of 16 x 16"):
        MAKERS[maker]((20, 15), 16)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: raster_positions((40, 40), 16, 0.0), "step"),
        (lambda: raster_positions((40, 40), 16, (4.0, np.nan)), "step"),
        (lambda: raster_positions((40, 40), 16, 4.0, jitter=-1.0), "jitter"),
        (lambda: fermat_positions((40, 40), 16, -1.0), "step"),
        (lambda: random_positions((40, 40), 16, 0), "n:"),
        (lambda: random_positions((40, 40), 0, 5), "size"),
        (lambda: random_positions((40, 40), 16, 5, region=((0, 41), (0, 40))), "region"),
        (lambda: random_positions((40, 40), 16, 5, region=((-1, 40), (0, 40))), "region"),
        (lambda: random_positions((40, 40), 16, 5, region=((0, 10), (0, 40))), "too small"),
    ],
)
def test_unusable_numbers_are_refused(call, field):
    with pytest.raises(DataError, match=field):
        call()
