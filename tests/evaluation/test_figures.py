"""Figures are drawn from what is covered, carry a scale bar only where the pixel size is known, and stay off pyplot."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.image import imread

from ptycho.errors import DataError
from ptycho.evaluation import fourier_ring_correlation
from ptycho.evaluation.drawing import UNCOVERED, hue_brightness, length_text, limits, nice_length
from ptycho.evaluation.figures import (
    amplitude_figure,
    complex_figure,
    frc_figure,
    loss_figure,
    patterns_figure,
    phase_figure,
    png_bytes,
    positions_figure,
    probe_figure,
)

OBJECT_FIGURES = [amplitude_figure, phase_figure, complex_figure]


@pytest.fixture(scope="module")
def covered_disc(images):
    """An object with a steep ramp, wild outside the disc that its weight covers."""
    image = images.ramped(images.textured((60, 72)), (0.3, -0.2), 1.0)
    rows, cols = np.indices(image.shape)
    weight = np.where(np.hypot(rows - 30, cols - 36) < 22, 1.0, 0.0)
    return np.where(weight > 0, image, 1e4), weight


def shown(figure):
    """The first picture of a figure, as an array, and its colour limits."""
    picture = figure.axes[0].images[0]
    return picture.get_array(), picture.get_clim()


def texts(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize("draw", OBJECT_FIGURES)
@pytest.mark.parametrize("pixel_size", [None, 9e-9])
def test_scale_bar_needs_a_pixel_size(covered_disc, draw, pixel_size):
    figure = draw(*covered_disc, pixel_size=pixel_size)
    assert ("nm" in texts(figure)) == (pixel_size is not None)
    assert ("pixels" in figure.axes[0].get_xlabel()) == (pixel_size is None)


def test_limits_come_from_inside_the_coverage(covered_disc):
    for draw in (amplitude_figure, phase_figure):
        values, (low, high) = shown(draw(*covered_disc))
        assert -np.pi <= low < high < 2, draw  # 1e4 lies outside the disc
        assert np.ma.getmaskarray(values).any()


def test_phase_is_shown_without_ramp_and_global_phase(images, covered_disc):
    bent, weight = covered_disc
    flat = np.where(weight > 0, images.textured((60, 72)), 1)
    first, second = (shown(phase_figure(image, weight))[0] for image in (bent, flat))
    np.testing.assert_allclose(first.compressed(), second.compressed(), atol=1e-6)


def test_what_is_not_covered_is_grey(covered_disc):
    colours, _ = shown(complex_figure(*covered_disc))
    np.testing.assert_allclose(colours[0, 0], to_rgb(UNCOVERED))
    assert np.ptp(colours[colours.shape[0] // 2, colours.shape[1] // 2]) > 0.1


def test_hue_is_the_phase_and_brightness_the_amplitude():
    phases = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    colours = rgb_to_hsv(hue_brightness(0.5 * np.exp(1j * phases)[None], 1.0))[0]
    np.testing.assert_allclose(np.exp(2j * np.pi * colours[:, 0]), np.exp(1j * phases), atol=1e-9)
    np.testing.assert_allclose(colours[:, 2], 0.5)
    assert hue_brightness(np.full((1, 1), 7.0 + 0j), 1.0).max() == 1


@pytest.mark.parametrize("n_modes", [1, 2, 5])
def test_probe_modes_show_their_share(n_modes):
    modes = np.sqrt(np.arange(n_modes, 0, -1))[:, None, None] * np.ones((n_modes, 16, 16), dtype=complex)
    figure = probe_figure(modes)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert len(titles) == n_modes
    assert (f"{200 / (n_modes + 1):.3g} %" in titles[0]) == (n_modes > 1)


def test_positions_lie_on_their_coverage():
    positions = np.asarray([[3.0, 10.0], [5.5, 2.0]])
    figure = positions_figure(positions, np.ones((8, 12)), origin=(1.0, 2.0))
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), positions[:, ::-1])
    assert figure.axes[0].images[0].get_extent() == [1.5, 13.5, 8.5, 0.5]


def test_predicted_patterns_are_put_on_the_scale_of_the_measured():
    measured = np.abs(np.random.default_rng(0).normal(size=(2, 16, 16))) * 30
    pictures = [axes.images[0] for axes in patterns_figure(measured, measured * 7).axes if axes.images]
    np.testing.assert_allclose(pictures[0].get_array(), measured[0] ** 2)
    np.testing.assert_allclose(pictures[2].get_array(), measured[0] ** 2)
    assert pictures[0].get_clim() == pictures[2].get_clim()
    with pytest.raises(DataError, match="predicted"):
        patterns_figure(measured, measured[:1])


def test_loss_curves_of_training_and_validation():
    lines = {line.get_label(): line for line in loss_figure({"loss": [9, 1, 0.1], "val_loss": [8, 2, 1]}).axes[0].lines}
    np.testing.assert_allclose(lines["training"].get_ydata(), [9, 1, 0.1])
    np.testing.assert_allclose(lines["validation"].get_xdata(), [1, 2, 3])
    png_bytes(loss_figure({"loss": [1.0]}))


def test_frc_is_drawn_with_both_thresholds(images):
    curve = fourier_ring_correlation(images.noise((32, 32), 0), images.noise((32, 32), 1), pixel_size=5e-9)
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in frc_figure({"phase": curve}).axes[0].lines]
    for wanted in (curve.correlation, curve.half_bit):
        assert any(line.shape == wanted.shape and np.allclose(line, wanted) for line in drawn)
    assert any(np.all(line == 0.5) for line in drawn)
    with pytest.raises(DataError):
        frc_figure({})


def test_flat_and_unknown_values_have_limits():
    for values in (np.zeros(5), np.full(5, 3.0), np.full(5, np.nan)):
        low, high = limits(values)
        assert low < high


@pytest.mark.parametrize(("metres", "text"), [(2e-7, "200 nm"), (5e-6, "5 µm"), (1e-3, "1 mm")])
def test_lengths_read_well(metres, text):
    assert length_text(metres) == text
    assert 0.1 * metres < nice_length(metres) < 0.5 * metres


def test_equal_figures_are_equal_files(covered_disc):
    first, second = (png_bytes(amplitude_figure(*covered_disc)) for _ in range(2))
    assert first == second
    assert min(imread(io.BytesIO(first)).shape[:2]) > 200


def test_pyplot_is_never_loaded():
    code = (
        "import sys, numpy as np; from ptycho.evaluation.figures import *;"
        "png_bytes(complex_figure(np.ones((9, 9), complex))); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
