"""The report stands alone: pictures inside, no scripts, nothing fetched, no mark-up from the data."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from ptycho.evaluation import fourier_ring_correlation
from ptycho.workflows.report import report_html
from ptycho.workflows.results import Reconstruction


class Page(HTMLParser):
    """Tags, attributes and text of a document; tags that are not closed in order are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "hr", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def pictures(self) -> list[np.ndarray]:
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        head = "data:image/png;base64,"
        assert all(source.startswith(head) for source in sources)
        return [imread(io.BytesIO(base64.b64decode(source[len(head) :]))) for source in sources]


def result(**options) -> Reconstruction:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 32, 32))
    weight = np.zeros((32, 32))
    weight[4:-4, 3:-6] = 1
    values = {
        "object": np.exp(0.2j * noise[0]),
        "weight": weight,
        "origin": (0.0, 0.0),
        "positions": rng.uniform(8, 24, (7, 2)),
        "probe": np.ones((2, 16, 16)),
    }
    return Reconstruction(**(values | options))


def full(**options) -> Reconstruction:
    rng = np.random.default_rng(1)
    amplitudes = np.abs(rng.normal(size=(2, 2, 16, 16)))
    values = {
        "pixel_size": 9e-9,
        "history": {"loss": [3.0, 1.0], "val_loss": [3.5, 1.25]},
        "figures": {"r_factor": 0.0712},
        "provenance": {
            "seed": 3,
            "versions": {"numpy": "2.9.9"},
            "command": "ptycho run a.npz",
            "data": {"name": "star"},
        },
        "measured": amplitudes[0],
        "predicted": amplitudes[1],
        "frc": {"phase": fourier_ring_correlation(*rng.normal(size=(2, 32, 32)), pixel_size=9e-9)},
    }
    return result(**(values | options))


def test_report_stands_alone():
    text = report_html(full())
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset", "action")]
    assert not re.search(r"https?://|url\(|@import", text)


def test_report_shows_figures_and_where_they_come_from():
    page = Page(report_html(full()))
    assert "0.071" in page.text
    for words in ("star", "2.9.9", "ptycho run a.npz", "9 nm"):
        assert words in page.text, words
    pictures = page.pictures()
    assert len(pictures) == 8
    for picture in pictures:
        assert min(picture.shape[:2]) > 100
        assert np.ptp(picture[..., :3]) > 0.5


def test_what_is_not_there_is_not_drawn():
    page = Page(report_html(result()))
    assert len(page.pictures()) == 5
    assert "nan" not in page.text.lower()


@pytest.mark.parametrize("field", ["command", "name", "key"])
def test_mark_up_in_the_data_stays_text(field):
    evil = '<script>alert("1")</script>'
    origin = {"command": evil if field == "command" else "", "data": {"name": evil if field == "name" else ""}}
    page = Page(report_html(full(provenance=origin | ({evil: 1} if field == "key" else {}))))
    assert "script" not in {tag for tag, _ in page.tags}
    assert evil in page.text


@pytest.mark.parametrize(("truth", "words"), [(np.ones((32, 32)), "true one"), (None, "halves of the scan")])
def test_fourier_ring_correlation_says_what_was_compared(truth, words):
    assert words in Page(report_html(full(truth=truth), {"frc": b""})).text
