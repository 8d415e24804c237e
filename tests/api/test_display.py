"""One line of `repr`, pictures and numbers in a notebook, one figure of a scan and of a reconstruction."""

import sys

import numpy as np
import pytest

from ptycho import Bundle, Reconstruction, Scan, State, TrainingConfig
from ptycho.data.lazy import LazyPatterns
from ptycho.evaluation import plot_reconstruction, plot_scan
from ptycho.notebook import summary_html
from ptycho.workflows.trained_model import trained_models
from tests.support import simulated_scan

BAD_NAME = "<script>alert('x')</script>\x1b[2J\n\"&"


def result(**given):
    rng = np.random.default_rng(0)
    image = np.exp(1j * rng.normal(size=(20, 24)))
    fields = {"metrics": {"r_factor": 0.125}, "history": {"loss": [2.0, 1.0]}} | given
    return Reconstruction(
        image, np.ones((20, 24)), (0, 0), rng.normal(size=(9, 2)), rng.normal(size=(2, 8, 8)), **fields
    )


def bundle():
    params = {"probe/real": np.ones((1, 64, 64)), "probe/imag": np.zeros((1, 64, 64)), "log_scale": np.zeros(())}
    return Bundle(params, TrainingConfig(), 1.0, 1e5, 64, {"loss": [3.0, 2.5]})


def state():
    return State(
        np.ones((2, 9, 9), complex), (0.0, 0.0), np.ones((1, 4, 4), complex), np.zeros((5, 2)), np.zeros((5, 2))
    )


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (result(), ["object of 20x24", "9 patterns", "2 probe mode(s) of 8x8", "R-factor 0.125"]),
        (result(metrics={}), ["object of 20x24"]),
        (state(), ["object of 2x9x9", "5 positions", "0 epochs"]),
        (bundle(), ["Bundle(", "architecture cnn", "N 64", "parameters 8193", "epochs 2", "loss 2.5"]),
        (trained_models(bundle())["autoencoder"], ["TrainedModel(", "N 64"]),
        (Bundle({}, TrainingConfig(), 1.0, 1e5, 64), ["parameters 0", "epochs 0"]),
        (simulated_scan(5, 8), ["5 patterns of 8x8"]),
        (simulated_scan(5, 8).replace(name=BAD_NAME), ["5 patterns of 8x8"]),
    ],
)
def test_repr_is_one_line(shown, words):
    line = repr(shown)
    assert line.isprintable()
    assert len(line) < 200
    for word in words:
        assert word in line


@pytest.mark.parametrize("shown", [result(), bundle(), simulated_scan(5, 8)], ids=lambda x: type(x).__name__)
def test_a_notebook_shows_pictures_and_numbers(shown, monkeypatch):
    page = shown._repr_html_()
    assert page.count("<img ") >= 1
    assert "<th" in page
    monkeypatch.setitem(sys.modules, "PIL", None)
    bare = shown._repr_html_()
    assert "<img " not in bare
    assert bare.count("<th") == page.count("<th")


def test_what_a_file_says_is_escaped():
    page = simulated_scan(5, 8).replace(name=BAD_NAME)._repr_html_()
    assert "<script" not in page
    assert "\x1b" not in page
    page = summary_html(BAD_NAME, {BAD_NAME: BAD_NAME}, {BAD_NAME: np.ones((2, 2))})
    assert "<script" not in page
    assert 'alt="&lt;script' in page


@pytest.mark.parametrize("image", [np.full((3, 3), np.nan), np.zeros((1, 500)), np.array([[np.inf, -np.inf, 1.0]])])
def test_pictures_of_odd_values(image):
    assert "<img " in summary_html("odd", {}, {"image": image})


def test_patterns_that_cannot_be_read_leave_the_numbers(tmp_path):
    np.save(tmp_path / "bad.npy", np.full((4, 8, 8), -1.0))
    scan = Scan(np.load(tmp_path / "bad.npy", mmap_mode="r"), "counts", np.zeros((4, 2)))
    page = scan._repr_html_()
    assert "4 of 8 x 8" in page
    assert "<img " not in page


class TestFigures:
    def drawn(self, figure):
        figure.canvas.draw()
        return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]

    def test_of_a_scan(self, tmp_path):
        scan = simulated_scan(5, 8).replace(name="$x$ " + BAD_NAME)
        assert self.drawn(plot_scan(scan)) == [
            "mean of 5 patterns",
            "pattern 0",
            "5 positions",
            "probe amplitude, first mode",
        ]
        np.save(tmp_path / "patterns.npy", scan.patterns)
        lazy = scan.replace(patterns=np.load(tmp_path / "patterns.npy", mmap_mode="r"), probe=None)
        assert isinstance(lazy.patterns, LazyPatterns)
        assert len(self.drawn(plot_scan(lazy))) == 3

    @pytest.mark.parametrize("shown", [result(), result(history={}), state()], ids=["both", "bare", "state"])
    def test_of_a_reconstruction(self, shown):
        assert self.drawn(plot_reconstruction(shown)) == [
            "amplitude",
            "phase",
            "probe amplitude, first mode",
            "history",
        ]

    def test_a_figure_is_its_own(self):
        from matplotlib import pyplot

        before = pyplot.get_fignums()
        plot_scan(simulated_scan(5, 8))
        assert pyplot.get_fignums() == before
