"""The report: one file that needs nothing else, says what matters first, and lets nothing of the data become markup."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ptycho.evaluation import FRC
from ptycho.workflows.report import draw_pictures, duration, headline_metrics, report_html
from ptycho.workflows.results import Reconstruction


class Outline(HTMLParser):
    """Tags, addresses and visible text of a page; remembers tags that were not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.open, self.text, self.images = [], [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "action", "data", "srcset")]
        if tag == "img":
            self.images.append(attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    image = rng.uniform(0.5, 1, (48, 56)) * np.exp(1j * rng.normal(0, 0.2, (48, 56)))
    curve = FRC(np.linspace(0.05, 0.5, 10), np.linspace(1, 0, 10), np.full(10, 100.0))
    return Reconstruction(
        object=image,
        weight=np.ones(image.shape),
        origin=(0, 0),
        positions=rng.uniform(10, 40, (20, 2)),
        probe=np.ones((1, 16, 16), complex),
        pixel_size=2e-8,
        history={"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.5, 2.0]},
        provenance={
            "created": "2025-01-01T00:00:00+00:00",
            "command": "ptycho run <script>alert(1)</script> & co",
            "seed": 5,
            "data": {"name": 'a "b" <i>c</i>', "sha256": "ab" * 32, "wavelength": None},
            "config": {"model": {"N": 16}},
        },
        metrics={"r_factor": 0.17345, "seconds": 312.0, "ssim_amplitude": 0.5, "ssim_phase": 0.625},
        frc={"phase": curve, "complex": curve},
        measured=rng.uniform(0, 3, (2, 16, 16)),
        predicted=rng.uniform(0, 3, (2, 16, 16)),
        truth=image,
    )


@pytest.fixture(scope="module")
def pictures(result):
    return draw_pictures(result)


@pytest.fixture(scope="module")
def page(result, pictures):
    return report_html(result, pictures)


def test_every_part_has_its_picture(pictures, page):
    expected = {"amplitude", "phase", "complex", "probe", "truth", "positions", "patterns", "history", "frc"}
    assert set(pictures) == expected
    images = Outline(page).images
    assert {image["alt"] for image in images} == expected
    for image in images:
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert data == pictures[image["alt"]]
        assert data.startswith(b"\x89PNG")


def test_the_file_needs_nothing_outside_itself(page):
    outline = Outline(page)
    assert outline.open == []
    assert not {"script", "link", "iframe", "object", "embed"} & set(outline.tags)
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert "default-src 'none'" in page


def test_what_matters_comes_first(page):
    text = Outline(page).text
    for part in ("0.173", "5 min 12 s", "0.500 / 0.625", "20", "complex: 7 of 10 rings above 1/2 bit, 5 above 0.5"):
        assert part in text, part
    assert text.index("R-factor") < text.index("Object") < text.index("Provenance")


def test_provenance_is_told_completely(page):
    text = " ".join(Outline(page).text.split())
    for part in ("ab" * 32, "model.N 16", "seed 5", "wavelength not given", "2025-01-01T00:00:00+00:00"):
        assert part in text, part


def test_names_are_text_and_never_markup(page):
    outline = Outline(page)
    assert "<script>alert(1)</script> & co" in outline.text
    assert 'a "b" <i>c</i>' in outline.text
    assert "i" not in outline.tags


def test_the_kind_of_frc_is_said(result, pictures, page):
    assert "compared with the true one" in page
    result = Reconstruction(**{**vars(result), "truth": None})
    assert "Two halves of the scan" in report_html(result, pictures)


def test_a_bare_reconstruction_has_a_report():
    result = Reconstruction(
        np.exp(1j * np.linspace(0, 1, 1200).reshape(30, 40)),
        np.ones((30, 40)),
        (0, 0),
        np.ones((3, 2)),
        np.ones((1, 8, 8)),
    )
    outline = Outline(report_html(result))
    assert {image["alt"] for image in outline.images} == {"amplitude", "phase", "complex", "probe", "positions"}
    assert [label for label, *_ in headline_metrics(result)] == ["Patterns"]
    both = Reconstruction(**{**vars(result), "metrics": {"r_factor": 0.15, "r_factor_estimate": 0.16}})
    assert headline_metrics(both)[0][1:] == ("0.150", "Σ |s A − √I| / Σ √I, all patterns; physics estimate alone 0.160")


def test_a_truth_elsewhere_is_left_out(result):
    lonely = np.zeros(result.object.shape)
    lonely[:10, :10] = 1
    assert "truth" not in draw_pictures(Reconstruction(**{**vars(result), "weight": lonely}))


def test_headline_without_pixel_size_counts_pixels(result):
    tiles = {
        label: value for label, value, _ in headline_metrics(Reconstruction(**{**vars(result), "pixel_size": None}))
    }
    assert tiles["FRC half period"].endswith("pixels")
    assert {label: value for label, value, _ in headline_metrics(result)}["FRC half period"].endswith("nm")
    dead = FRC(np.asarray([0.25, 0.5]), np.zeros(2), np.full(2, 50.0))
    tiles = headline_metrics(Reconstruction(**{**vars(result), "frc": {"amplitude": dead}}))
    assert ("FRC half period", "none", "amplitude: 0 of 2 rings above 1/2 bit, 0 above 0.5") in tiles


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2 s"), (99.97, "1 min 40 s"), (312.4, "5 min 12 s"), (3599.7, "60 min 00 s"), (7530, "2 h 05 min")],
)
def test_durations_are_easy_to_read(seconds, text):
    assert duration(seconds) == text
