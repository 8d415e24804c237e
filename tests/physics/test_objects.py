"""Objects to simulate with: ranges, seeds, statistics, pictures."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import (
    dead_leaves_object,
    lines_object,
    object_from_maps,
    picture_object,
    random_field_object,
)

RANDOM = {"lines": lines_object, "random field": random_field_object, "dead leaves": dead_leaves_object}


def fills(values, low, high):
    assert values.min() == pytest.approx(low, abs=1e-5)
    assert values.max() == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("maker", RANDOM)
class TestRandomObjects:
    def test_default_ranges_and_type(self, maker):
        image = RANDOM[maker]((48, 60))
        assert image.shape == (48, 60)
        assert image.dtype == np.complex64
        fills(np.abs(image), 0.3, 1.0)
        fills(np.angle(image), -0.8, 0.8)

    def test_asked_ranges_and_type(self, maker):
        image = RANDOM[maker]((48, 40), 3, (0.0, 0.5), (-3.0, 1.0), dtype=np.complex128)
        assert image.dtype == np.complex128
        fills(np.abs(image), 0.0, 0.5)
        lit = np.abs(image) > 1e-9
        assert np.angle(image)[lit].min() >= -3.0 - 1e-9
        assert np.angle(image)[lit].max() == pytest.approx(1.0, abs=1e-9)

    def test_the_seed_decides(self, maker):
        first, again, other = (RANDOM[maker]((40, 40), seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).mean() > 0.01

    def test_a_generator_goes_on(self, maker):
        rng = np.random.default_rng(0)
        assert (RANDOM[maker]((32, 32), rng) != RANDOM[maker]((32, 32), rng)).any()

    @pytest.mark.parametrize("correlated", [True, False])
    def test_phase_follows_the_amplitude_only_if_asked(self, maker, correlated):
        image = RANDOM[maker]((96, 96), 5, correlated=correlated)
        correlation = np.corrcoef(np.abs(image).ravel(), np.angle(image).ravel())[0, 1]
        assert (correlation > 0.999) == correlated
        assert correlated or abs(correlation) < 0.7

    @pytest.mark.parametrize("shape", [(1, 40), (40,), "ab", None])
    def test_a_shape_that_is_none_is_refused(self, maker, shape):
        with pytest.raises(DataError, match="shape"):
            RANDOM[maker](shape)


@given(st.tuples(st.integers(2, 40), st.integers(2, 40)), st.integers(0, 100))
def test_any_shape_and_seed(shape, seed):
    for make in RANDOM.values():
        image = make(shape, seed)
        assert image.shape == shape
        assert np.isfinite(image).all()
        assert (np.abs(image) <= 1 + 1e-6).all()


class TestLines:
    def test_statistics_are_those_of_the_published_recipe(self):
        """400 rasterised lines on 784 x 784, blurred by 1, 5 and 10 with weights 1, 2 and 5, the middle 392 x 392."""
        from scipy.ndimage import gaussian_filter
        from skimage.draw import line

        def recipe(rng):
            drawing = np.zeros((784, 784))
            for ends in rng.integers(0, 784, (400, 4)):
                drawing[line(*ends)] = 1
            blurred = gaussian_filter(drawing, 1) + 2 * gaussian_filter(drawing, 5) + 5 * gaussian_filter(drawing, 10)
            middle = blurred[196:-196, 196:-196]
            return 0.3 + 0.7 * (middle - middle.min()) / np.ptp(middle)

        def statistics(image):
            window = np.hanning(392) * np.hanning(392)[:, None]
            power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
            frequency = np.hypot(np.fft.fftfreq(392)[:, None], np.fft.fftfreq(392))
            bands = [
                power[(frequency >= a) & (frequency < b)].sum() for a, b in itertools.pairwise((0.05, 0.1, 0.2, 0.4))
            ]
            return np.array([image.mean(), image.std(), *np.sqrt(np.array(bands) / image.size)])

        ours = np.mean([statistics(np.abs(lines_object((392, 392), seed)).astype(float)) for seed in range(4)], axis=0)
        theirs = np.mean([statistics(recipe(np.random.default_rng(seed))) for seed in range(4)], axis=0)
        np.testing.assert_allclose(ours, theirs, rtol=0.1)

    def test_more_lines_cover_more(self):
        few, many = (np.abs(lines_object((100, 100), 0, n_lines=n)) for n in (3, 400))
        assert np.median(few) < 0.5 < np.median(many)

    def test_one_line_is_straight_and_blurred_as_said(self):
        """Across a line, away from its rasterised core and its ends, the amplitude is a sum of two Gaussians."""
        values = np.abs(lines_object((200, 200), 3, n_lines=1, dtype=np.complex128))
        points = np.argwhere(values > 0.85)
        centre = points.mean(axis=0)
        _, spread, (along, across) = np.linalg.svd(points - centre, full_matrices=False)
        assert spread[0] / np.sqrt(len(points)) > 20
        assert spread[1] / np.sqrt(len(points)) < 1.0
        offset = np.stack(np.indices(values.shape), axis=-1) - centre
        distance, place = offset @ across, offset @ along
        seen = (np.abs(distance) > 4) & (np.abs(place) < 20)
        profile = sum(w / s * np.exp(-(distance**2) / (2 * s * s)) for w, s in ((2, 5), (5, 10)))
        design = np.stack([profile[seen], np.ones(seen.sum())], axis=-1)
        fit = design @ np.linalg.lstsq(design, values[seen], rcond=None)[0]
        np.testing.assert_allclose(values[seen], fit, atol=0.01 * np.ptp(values[seen]))

    def test_no_lines_are_refused(self):
        with pytest.raises(DataError, match="n_lines"):
            lines_object((32, 32), n_lines=0)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_the_random_fields_spectrum_is_a_power_law(exponent):
    image = np.abs(random_field_object((256, 256), 0, exponent=exponent, dtype=np.complex128))
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    edges = np.geomspace(0.02, 0.4, 12)
    rings = [power[(frequency >= a) & (frequency < b)].mean() for a, b in itertools.pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(rings), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.2)


class TestDeadLeaves:
    def test_is_made_of_flat_leaves(self):
        """Without blur nearly all neighbours are alike, and there are many different leaves."""
        image = np.abs(dead_leaves_object((128, 128), 0, blur=0.0, dtype=np.complex128))
        assert (np.abs(np.diff(image, axis=1)) < 1e-12).mean() > 0.6
        assert len(np.unique(image.round(9))) > 50

    def test_radii_bound_the_leaves(self):
        small = np.abs(dead_leaves_object((96, 96), 0, radii=(3, 3), blur=0.0, dtype=np.complex128))
        large = np.abs(dead_leaves_object((96, 96), 0, radii=(20, 20), blur=0.0, dtype=np.complex128))
        assert len(np.unique(small.round(9))) > 4 * len(np.unique(large.round(9)))
        for row in small:
            runs = np.diff(np.flatnonzero(np.concatenate([[True], np.abs(np.diff(row)) > 1e-12, [True]])))
            assert runs.max() <= 7

    @pytest.mark.parametrize("radii", [(0.0, 5.0), (6.0, 5.0), (1.0, np.inf)])
    def test_radii_that_cannot_be_are_refused(self, radii):
        with pytest.raises(DataError, match="radii"):
            dead_leaves_object((32, 32), radii=radii)

    def test_exponent_one_is_no_special_case(self):
        assert np.isfinite(dead_leaves_object((48, 48), exponent=1.0)).all()


class TestPicture:
    def test_a_bundled_picture(self):
        image = picture_object("camera", (64, 80))
        assert image.shape == (64, 80)
        fills(np.abs(image), 0.3, 1.0)
        fills(np.angle(image), -0.8, 0.8)

    def test_an_array_keeps_its_size_and_order(self):
        picture = np.arange(12).reshape(3, 4).astype(np.uint8)
        image = picture_object(picture, dtype=np.complex128)
        np.testing.assert_allclose(np.abs(image), 0.3 + 0.7 * picture / 11)
        np.testing.assert_allclose(np.angle(image), -0.8 + 1.6 * picture / 11)

    def test_colour_becomes_luminance(self):
        colour = np.zeros((4, 4, 3))
        colour[0, 0], colour[1, 1], colour[2, 2] = [1, 0, 0], [0, 1, 0], [0, 0, 1]
        brightness = np.abs(picture_object(colour, amplitude=(0.0, 1.0)))
        assert brightness[1, 1] == pytest.approx(1.0)
        np.testing.assert_allclose(brightness[[0, 2], [0, 2]], [0.2125 / 0.7154, 0.0721 / 0.7154], rtol=1e-5)

    def test_a_file_and_its_array_are_the_same(self, tmp_path):
        from skimage import io

        picture = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
        io.imsave(tmp_path / "mine.png", picture, check_contrast=False)
        np.testing.assert_array_equal(picture_object(tmp_path / "mine.png"), picture_object(picture))
        np.testing.assert_array_equal(picture_object(str(tmp_path / "mine.png")), picture_object(picture))

    def test_a_second_picture_makes_the_phase(self):
        first, second = np.random.default_rng(0).random((2, 24, 24))
        image = picture_object(first, phase_image=second, dtype=np.complex128)
        assert np.corrcoef(np.angle(image).ravel(), second.ravel())[0, 1] > 0.999
        assert abs(np.corrcoef(np.abs(image).ravel(), second.ravel())[0, 1]) < 0.3

    def test_enlarging_is_bilinear(self):
        ramp = np.broadcast_to(np.arange(8.0), (8, 8))
        wide = np.abs(picture_object(ramp, (8, 32), amplitude=(0.0, 1.0), dtype=np.complex128))
        steps = np.diff(wide[:, 4:-4], axis=1)
        np.testing.assert_allclose(steps, steps[0, 0], rtol=1e-6)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            ("no-such-picture", "no file 'no-such-picture'.*bundled are: .*camera"),
            (np.ones(5), "expected a grey or colour image"),
            (np.ones((4, 4, 2)), "expected a grey or colour image"),
            (np.ones((4, 4), complex), "expected a grey or colour image"),
            (np.full((4, 4), np.nan), "NaN"),
        ],
    )
    def test_what_is_no_picture_is_refused(self, image, message):
        with pytest.raises(DataError, match=message):
            picture_object(image)

    def test_a_broken_file_is_refused(self, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        with pytest.raises(DataError, match="could not be read as an image"):
            picture_object(tmp_path / "broken.png")


class TestMaps:
    def test_a_constant_map_is_the_middle(self):
        image = object_from_maps(np.ones((3, 3)), np.ones((3, 3)), (0.2, 0.6), (-1.0, 2.0), np.complex128)
        np.testing.assert_allclose(image, 0.4 * np.exp(0.5j))

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((np.ones((3, 3)), np.ones((3, 4))), "object maps"),
            ((np.ones(3), np.ones(3)), "object maps"),
            ((np.ones((3, 3)), np.full((3, 3), np.inf)), "NaN or infinite"),
            ((np.ones((3, 3)), np.ones((3, 3)), (-0.1, 1.0)), "amplitude"),
            ((np.ones((3, 3)), np.ones((3, 3)), (1.0, 0.3)), "amplitude"),
            ((np.ones((3, 3)), np.ones((3, 3)), (0.3, 1.0), (1.0, -1.0)), "phase"),
            ((np.ones((3, 3)), np.ones((3, 3)), (0.3, np.nan)), "amplitude"),
        ],
    )
    def test_unusable_maps_and_ranges_are_refused(self, args, message):
        with pytest.raises(DataError, match=message):
            object_from_maps(*args)
