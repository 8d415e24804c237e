"""What the figures show: limits from covered pixels, grey elsewhere, scale bars, hues, thresholds; and no pyplot."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ptycho.errors import DataError
from ptycho.evaluation import compare, figures, fourier_ring_correlation
from ptycho.evaluation.drawing import (
    UNCOVERED,
    bounding_box,
    hue_brightness,
    length_text,
    limits,
    nice_length,
    png_bytes,
    thinned,
)


@pytest.fixture(scope="module")
def scene(images):
    """An object that is covered in the middle only, with rubbish around it."""
    image = images.ramped(images.textured((60, 80), 1), (0.05, -0.1), 1.0)
    weight = np.zeros(image.shape, dtype=np.float32)
    weight[10:50, 20:70] = 5
    return np.where(weight > 0, image, 40.0 + 0j), weight


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def shown(figure):
    return figure.axes[0].images[0]


def test_amplitude_limits_come_from_covered_pixels(scene):
    image, weight = scene
    picture = shown(figures.amplitude_figure(image, weight))
    low, high = picture.get_clim()
    inside = np.abs(image[weight > 0])
    assert (low, high) == pytest.approx(tuple(np.percentile(inside, [0.5, 99.5])))
    assert high < 2
    data = picture.get_array()
    assert data.shape == (44, 54)  # the covered box and a margin
    assert np.count_nonzero(~data.mask) == 40 * 50


def test_phase_is_shown_without_its_ramp(scene, images):
    image, weight = scene
    data = shown(figures.phase_figure(image, weight)).get_array()
    assert abs(data.mean()) < 0.1
    slopes = [np.ma.mean(np.diff(data, axis=axis)) for axis in (0, 1)]
    np.testing.assert_allclose(slopes, 0, atol=0.02)
    assert shown(figures.phase_figure(image, weight)).get_cmap().name == "gray"
    wrapped = shown(figures.phase_figure(images.textured((60, 60), 2, phase=3.0, sigma=3)))
    assert wrapped.get_cmap().name == "twilight"
    assert wrapped.get_clim() == pytest.approx((-np.pi, np.pi))


def test_a_scale_bar_stands_where_the_pixel_size_is_known(scene):
    image, weight = scene
    for draw in (figures.amplitude_figure, figures.phase_figure, figures.complex_figure):
        assert "100 nm" in texts(draw(image, weight, pixel_size=10e-9))
        plain = draw(image, weight, origin=(100, 200))
        assert not any("nm" in text for text in texts(plain))
        assert plain.axes[0].get_xlabel() == "column (pixels)"
        assert shown(plain).get_extent() == [217.5, 271.5, 151.5, 107.5]
    assert "50 nm" in texts(figures.probe_figure(np.ones((1, 32, 32), complex), pixel_size=10e-9))


def test_hue_is_phase_and_brightness_is_amplitude():
    colours = hue_brightness(np.asarray([[1, 1j, -1, -1j, 0, 0.5, 7]]), brightest=1.0)[0]
    assert np.argmax(colours[0]) == 0  # red at phase 0
    assert colours[1][1] > colours[1][2]  # towards green at pi/2
    np.testing.assert_allclose(colours[2], [0.15, 1, 1], atol=1e-6)  # cyan at pi
    assert colours[3][2] > colours[3][1]  # towards blue at -pi/2
    np.testing.assert_array_equal(colours[4], 0)
    np.testing.assert_allclose(colours[5], colours[0] / 2)
    np.testing.assert_allclose(colours[6], colours[0])


def test_uncovered_pixels_are_grey_in_the_complex_picture(scene):
    image, weight = scene
    picture = shown(figures.complex_figure(image, weight)).get_array()
    np.testing.assert_allclose(picture[0, 0], to_rgb(UNCOVERED))
    assert np.abs(picture[20, 20] - to_rgb(UNCOVERED)).max() > 0.1


def test_probe_modes_carry_their_share_of_the_power():
    modes = np.stack([np.full((16, 16), 3.0 + 0j), np.full((16, 16), 1j)])
    figure = figures.probe_figure(modes)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["Mode 1: 90 %", "Mode 2: 10 %"]
    many = figures.probe_figure(np.ones((9, 16, 16), complex))
    assert sum(axes.get_title(loc="left").startswith("Mode") for axes in many.axes) == 6


def test_positions_lie_on_their_coverage():
    positions = np.asarray([[10.0, 30.0], [12.0, 40.0], [14.0, 50.0]])
    weight = np.zeros((20, 40))
    weight[5:15, 5:35] = 1
    figure = figures.positions_figure(positions, weight, origin=(2, 20))
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), positions[:, ::-1])
    assert axes.images[0].get_extent() == [19.5, 59.5, 21.5, 1.5]
    assert axes.get_title(loc="left") == "3 scan positions"
    scaled = figures.positions_figure(positions, weight, origin=(2, 20), pixel_size=1e-6).axes[0]
    assert scaled.get_xlabel() == "column (µm)"
    bare = figures.positions_figure(np.tile(positions, (5000, 1))).axes[0]
    assert len(bare.collections[0].get_offsets()) <= 4000
    assert bare.get_ylim()[0] > bare.get_ylim()[1]


def test_patterns_share_one_logarithmic_scale():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 30, size=(5, 16, 16))
    measured = np.sqrt(rng.poisson((2 * predicted) ** 2))
    mask = np.ones((16, 16), dtype=bool)
    mask[3, 4] = False
    figure = figures.patterns_figure(measured, predicted, mask=mask)
    pictures = [axes.images[0] for axes in figure.axes[:12]]
    assert all(type(picture.norm).__name__ == "LogNorm" for picture in pictures[:8])
    assert len({picture.get_clim() for picture in pictures[:8]}) == 1
    np.testing.assert_allclose(pictures[4].get_array(), 4 * predicted[0] ** 2, rtol=0.05)
    assert pictures[0].get_array().mask[3, 4]
    assert float(figure.axes[0].get_title(loc="left").split("=")[1]) < 0.05
    with pytest.raises(DataError, match="measured: got shape"):
        figures.patterns_figure(measured, predicted[:3])


def test_patterns_without_light_can_be_drawn():
    assert png_bytes(figures.patterns_figure(np.zeros((1, 8, 8)), np.zeros((1, 8, 8)))).startswith(b"\x89PNG")


def test_loss_curves_are_told_apart():
    figure = figures.loss_figure({"loss": [100.0, 10.0, 1.0], "val_loss": [120.0, 20.0, float("nan")], "lr": [1, 1, 1]})
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["training", "validation"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 3])
    assert axes.get_yscale() == "log"
    negative = figures.loss_figure({"loss": [-1.0, -5.0]}).axes[0]
    assert negative.get_yscale() == "linear"
    assert [line.get_label() for line in figures.loss_figure({"mae_loss": [1.0]}).axes[0].lines] == ["mae_loss"]
    assert "no loss was recorded" in texts(figures.loss_figure({}))


def test_frc_figure_has_both_thresholds_and_the_crossings(images):
    pair = [images.textured((64, 64), 1) + 0.3 * images.noise((64, 64), seed) for seed in (2, 3)]
    curve = fourier_ring_correlation(*pair, pixel_size=1e-8)
    figure = figures.frc_figure({"phase": curve, "complex": curve})
    axes = figure.axes[0]
    labels = [line.get_label() for line in axes.lines]
    assert labels[0].startswith("complex: ")
    assert {"1/2-bit threshold", "0.5 threshold"} <= set(labels)
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert dots[0].get_xdata()[0] == pytest.approx(curve.cutoff())
    assert axes.child_axes[0].get_xlabel() == "spatial frequency (1 / µm)"
    with pytest.raises(DataError, match="no curve"):
        figures.frc_figure({})


def test_comparison_shows_both_on_the_same_limits(images):
    truth = images.textured((64, 64), 5)

    class Result:
        object = truth + 0.1 * images.noise(truth.shape, 1)
        weight = np.ones(truth.shape)
        origin = (0, 0)

    figure = figures.comparison_figure(compare(Result(), truth), pixel_size=1e-9)
    estimate, reference = (figure.axes[index].images[0] for index in (0, 1))
    assert estimate.get_clim() == reference.get_clim()
    assert figure.axes[2].images[0].get_clim()[0] == -figure.axes[2].images[0].get_clim()[1]


def test_constant_and_unfinite_images_have_usable_limits():
    for values in (np.ones(5), np.zeros(5), np.asarray([np.nan]), np.full(3, -2.0)):
        low, high = limits(values)
        assert high > low


@pytest.mark.parametrize(
    ("extent", "length"), [(1.0, 0.2), (4.0, 1.0), (8e-6, 2e-6), (3.9e-6, 5e-7), (20.0, 5.0), (80.0, 20.0)]
)
def test_scale_bars_are_round(extent, length):
    assert nice_length(extent) == pytest.approx(length)


def test_lengths_have_the_unit_that_suits_them():
    assert [length_text(x) for x in (2e-10, 5e-9, 2e-7, 1e-6, 5e-4, 2e-3)] == [
        "0.2 nm",
        "5 nm",
        "200 nm",
        "1 µm",
        "500 µm",
        "2 mm",
    ]


def test_bounding_box_stays_inside_the_image():
    covered = np.zeros((20, 30), dtype=bool)
    covered[0:5, 27:30] = True
    assert bounding_box(covered) == (slice(0, 7), slice(25, 30))
    assert bounding_box(np.zeros((4, 5), dtype=bool)) == (slice(0, 4), slice(0, 5))


def test_weight_of_another_shape_is_refused(scene):
    with pytest.raises(DataError, match="weight: got shape"):
        figures.amplitude_figure(scene[0], np.ones((3, 3)))


def test_the_same_figure_gives_the_same_bytes(scene):
    first, second = (png_bytes(figures.amplitude_figure(*scene)) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_figures_touch_no_global_state_of_matplotlib():
    code = (
        "import sys, numpy as np; from ptycho.evaluation import figures;"
        "figures.png_bytes(figures.complex_figure(np.ones((20, 20), complex)));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("side", [20, 1663, 1664, 5000])
def test_pictures_of_large_objects_are_drawn_from_fewer_pixels(side):
    rows, cols = thinned((slice(3, 3 + side), slice(0, 7)))
    chosen = range(10**6)[rows]
    assert len(chosen) <= 1663
    assert len(chosen) >= min(side, 832)
    assert rows.start == 3
    assert 0 <= rows.stop - (3 + side) < rows.step == cols.step
    assert (rows.stop - rows.start) % rows.step == 0
