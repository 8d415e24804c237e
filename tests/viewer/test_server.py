"""The server of a page over HTTP: what it answers, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import struct
import tomllib
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho
from ptycho.errors import ConfigError
from ptycho.viewer import PageServer
from ptycho.viewer.assets import COLOUR_MAPS, page_files
from ptycho.viewer.frames import frame
from ptycho.viewer.patterns import Patterns
from ptycho.viewer.picture import Picture
from ptycho.viewer.stage import Stage
from tests.support import simulated_scan

FORBIDDEN, WRONG_HOST = 403, 421


class Page:
    """A browser without pictures."""

    def __init__(self, stage):
        self.stage, self.server = stage, PageServer(stage)
        address = urlsplit(self.server.url)
        self.host, self.port, self.root = address.hostname, address.port, address.path

    def ask(self, path, method="GET", **headers):
        """Status, headers and body of an answer to a path as it stands."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def get(self, name, **query):
        status, _, body = self.ask(f"{self.root}{name}?{urlencode(query)}")
        assert status == 200, (name, query, status, body)
        return body

    def json(self, name, **query):
        return json.loads(self.get(name, **query))

    def arrays(self, name, **query):
        return unpacked(self.get(name, **query))


def unpacked(body):
    """The opposite of :func:`ptycho.viewer.frames.frame`, as the page's JavaScript does it."""
    length = struct.unpack_from("<I", body)[0]
    header, start, arrays = json.loads(body[4 : 4 + length]), 4 + length, {}
    for each in header.pop("arrays"):
        assert start % 4 == 0
        count = int(np.prod(each["shape"], dtype=int)) * each["floats"]
        values = np.frombuffer(body, "<f4", count, start)
        arrays[each["name"]] = (values.view("<c8") if each["floats"] == 2 else values).reshape(each["shape"])
        start += 4 * count
    assert start == len(body)
    return header, arrays


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(M=12, N=16, modes=2)


@pytest.fixture(scope="module")
def page(scan):
    stage = Stage({"title": "<b>é & co", "live": False}, Patterns(scan))
    image = np.tile(scan.object, (30, 13))  # 1440 x 624
    weight = np.ones(image.shape, np.float32)
    weight[:100] = 0
    stage.put(Picture(image, (0.0, 0.0), scan.probe, scan.positions, lambda: weight, pixel_size=1e-8))
    stage.change(status="result", charts=[], steps=[])
    served = Page(stage)
    yield served
    served.server.close()


@pytest.fixture(scope="module")
def version(page):
    return page.json("state", client="c")["picture"]


def test_the_page_refers_to_nothing_outside_and_runs_nothing_inline(page):
    status, headers, body = page.ask(page.root)
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    text = body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son[a-z]+\s*=|\sstyle\s*=|<style", text)
    named = re.findall(r'(?:src|href)="([^"#]+)"', text)
    for name in named:
        assert name.startswith("data:") or page.ask(page.root + name)[0] == 200, name
    for content, _ in page_files().values():
        found = set(re.findall(r"https?://[^\s\"'`]+", content.decode()))
        assert found <= {"http://www.w3.org/2000/svg"}, found
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", content.decode()
        )
    imported = {
        name for content, _ in page_files().values() for name in re.findall(r'from "\./([^"]+)"', content.decode())
    }
    assert imported <= set(page_files())


def test_every_file_of_the_page_is_installed():
    root = Path(ptycho.__file__).parents[1]
    package_data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ptycho"]
    installed = {path.name for pattern in package_data for path in (root / "ptycho").glob(pattern)}
    assert {name or "index.html" for name in page_files()} <= installed


def test_every_answer_is_locked_in(page, version):
    paths = ["", "main.js", "about", f"picture?version={version}", "nothing"]
    for path in [*(page.root + each for each in paths), "/wrong/"]:
        _, headers, _ = page.ask(path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers


def test_only_this_machine_is_listened_to(page):
    assert page.host == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((other, page.port), timeout=5)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "", "0.0.0.0:{port}"]
)
def test_another_name_for_this_machine_is_refused(page, host):
    status, _, body = page.ask(page.root, Host=host.format(port=page.port))
    assert status == WRONG_HOST
    assert b"ptycho" not in body


def test_its_own_names_are_accepted(page):
    for host in ("127.0.0.1", "localhost"):
        assert page.ask(page.root, Host=f"{host}:{page.port}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/about", "/x/about", "//about", "{short}/about", "{root}x/about"])
def test_without_the_secret_nothing_is_answered(page, path):
    root = page.root.strip("/")
    status, _, body = page.ask(path.format(short="/" + root[:-1], root="/" + root))
    assert status == FORBIDDEN
    assert root.encode() not in body


def test_the_secret_is_long_and_new_every_time(page, scan):
    other = PageServer(Stage({}))
    other.close()
    assert len(page.root) > 20
    assert urlsplit(other.url).path != page.root


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"])
def test_nothing_but_reading(page, method):
    assert page.ask(page.root, method)[0] == 405


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "../about",
        "..%2fserver.py",
        "/etc/passwd",
        "server.py",
        "%00",
        "main.js/",
        "page/main.js",
        "__init__.py",
    ],
)
def test_a_path_opens_no_file(page, name):
    assert page.ask(page.root + name)[0] == 404


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("picture", 404),
        ("picture?version=x", 400),
        ("picture?version=999", 404),
        ("picture?version=" + 5000 * "9", 400),
        ("tile?version={version}&image=object&level=0&row=0&column=x", 400),
        ("tile?version={version}&image=object&level=99&row=0&column=0", 404),
        ("tile?version={version}&image=object&level=-1&row=0&column=0", 404),
        ("tile?version={version}&image=probe%203&level=0&row=0&column=0", 404),
        ("tile?version={version}&image=probe%20x&level=0&row=0&column=0", 404),
        ("tile?version={version}&image=weight&level=0&row=0&column=0", 404),
        ("pattern?version={version}&index=-1", 404),
        ("pattern?version={version}&index=12", 404),
        ("pattern?version={version}&index=1e3", 400),
        ("state?pace=never", 400),
        ("about?" + "&".join(f"a{k}=1" for k in range(30)), 400),
    ],
)
def test_what_cannot_be_asked(page, version, name, code):
    assert page.ask(page.root + name.format(version=version))[0] == code


@given(
    name=st.text(max_size=12),
    query=st.dictionaries(
        st.sampled_from(["version", "image", "level", "row", "column", "index", "after"]), st.text(max_size=6)
    ),
)
def test_whatever_is_asked_is_answered_or_refused(page, name, query):
    name = name if name in ("picture", "tile", "places", "pattern") else f"pictu{len(name) % 3}"
    path = f"{page.root}{name}?{urlencode(query)}"
    assert page.ask(path)[0] in (200, 400, 404)


def test_data_in_the_page_are_json(page):
    about = page.json("about")
    assert about["title"] == "<b>é & co"
    assert about["patterns"] == ""


def test_tiles_are_the_object(page, version):
    picture = page.stage.newest()
    described = page.json("picture", version=version)["images"]["object"]
    assert described["shape"] == [1440, 624]
    assert described["box"] == [98, 0, 1440, 624]  # what is known, and two pixels around it
    for row, column in ((0, 0), (1, 1), (2, 0)):
        _, arrays = page.arrays("tile", version=version, image="object", level=0, row=row, column=column)
        part = np.s_[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512]
        known = picture.covered[part]
        np.testing.assert_array_equal(arrays["tile"][known], picture.object[part][known])
        assert np.isnan(arrays["tile"][~known]).all()
    assert 0 < picture.covered.mean() < 1


def test_the_probe_places_and_scale(page, version, scan):
    about = page.json("picture", version=version)
    assert [name for name in about["images"] if name.startswith("probe")] == ["probe 1", "probe 2"]
    assert sum(about["images"][f"probe {k}"]["share"] for k in (1, 2)) == pytest.approx(1)
    assert about["pixel_size"] == 1e-8
    _, arrays = page.arrays("tile", version=version, image="probe 2", level=0, row=0, column=0)
    np.testing.assert_array_equal(arrays["tile"], scan.probe[1])
    _, arrays = page.arrays("places", version=version)
    np.testing.assert_allclose(arrays["places"][:, :2], scan.positions, rtol=1e-6)


def test_a_pattern_of_a_position(page, version, scan):
    header, arrays = page.arrays("pattern", version=version, index=3)
    np.testing.assert_allclose(arrays["measured"], scan.amplitude([3])[0], rtol=1e-6)
    assert arrays["predicted"].shape == (16, 16)
    assert header["index"] == 3
    assert header["photons"] == pytest.approx(float(scan.counts([3]).sum()))


def test_colour_maps_are_the_named_ones(page):
    maps = page.json("colours")
    assert set(maps) == set(COLOUR_MAPS)
    assert all(len(values) == 768 and 0 <= min(values) <= max(values) <= 255 for values in maps.values())
    assert maps["twilight"][:3] == pytest.approx(maps["twilight"][-3:], abs=6)


def test_numbers_that_json_lacks_are_null(page):
    header, arrays = unpacked(frame({"r": float("nan"), "deep": [np.float64("inf"), 1.5]}, {"x": np.zeros((0, 2))}))
    assert header == {"r": None, "deep": [None, 1.5]}
    assert arrays["x"].shape == (0, 2)


def test_the_secret_is_not_logged(page, caplog):
    with caplog.at_level(logging.DEBUG):
        page.json("about")
        page.ask(page.root + "nothing")
        page.ask("/wrong/")
    assert page.root.strip("/") not in caplog.text


def test_what_goes_wrong_inside_is_told_to_nobody(page, version, monkeypatch, caplog):
    monkeypatch.setattr(Picture, "places", lambda self: 1 / 0)
    status, _, body = page.ask(f"{page.root}places?version={version}")
    assert (status, body) == (500, b"Internal error")
    assert "ZeroDivisionError" in caplog.text


def test_a_taken_port_is_refused_in_a_sentence(page):
    with pytest.raises(ConfigError, match=rf"port = {page.port} cannot be used"):
        PageServer(Stage({}), page.port)


def test_a_closed_server_answers_nobody():
    server = PageServer(Stage({}))
    address = urlsplit(server.url)
    server.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address.hostname, address.port), timeout=5)
