"""A run's page: what it is told, when pictures are made, and that it never stands in the run's way."""

from __future__ import annotations

import dataclasses
import http.client
import json
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest

from ptycho.config import EngineConfig
from ptycho.observers import Observer
from ptycho.viewer import LivePage, live
from ptycho.viewer.picture import Picture
from ptycho.viewer.stage import Stage
from ptycho.workflows.r_factor import sample_of
from ptycho.workflows.refine import reconstruct_iteratively
from tests.support import simulated_scan


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(M=20, N=16)


@pytest.fixture
def page(scan, monkeypatch):
    monkeypatch.setattr(live, "_PATIENCE", 0.05)  # nobody here says farewell
    made = LivePage(scan, about={"title": "test"})
    yield made
    made.close()


def ask(page, name, timeout=20, **query):
    address = urlsplit(page.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        connection.request("GET", f"{address.path}{name}?{urlencode(query)}")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def watch(page, client="c", looks=1):
    """What an open page asks first."""
    return ask(page, "state", client=client, looks=looks)


def shown(scan):
    return SimpleNamespace(
        object=scan.object, origin=(0.0, 0.0), probe=scan.probe, weight=np.ones(scan.object.shape, np.float32)
    )


def test_callbacks_are_told_and_look_on(page):
    page.epochs("rpie")(3, 10, {"r_factor": 0.25})
    page.counter("estimate")(1, 4)
    page.epochs("train")(1, 5, {"loss": 2.0, "val_loss": float("nan"), "learning_rate": 1e-3})
    state = watch(page)
    steps = {step["words"]: step for step in state["steps"]}
    rpie = next(step for words, step in steps.items() if words.endswith("rpie"))
    assert (rpie["done"], rpie["total"]) == (3, 10)
    assert (steps["Physics estimate"]["done"], steps["Physics estimate"]["total"]) == (1, 4)
    assert steps["Training"]["metrics"]["val_loss"] is None
    charts = {chart["title"]: [(each["name"], each["y"]) for each in chart["series"]] for chart in state["charts"]}
    assert charts["R-factor"] == [(rpie["words"], [0.25])]
    assert ("training", [2.0]) in charts["Loss"]
    assert state["status"] == "running"
    assert state["elapsed"] >= 0
    for callback in (page.epochs("rpie"), page.counter("estimate")):
        assert isinstance(callback, Observer)


def test_no_picture_is_made_while_nobody_looks(page, scan):
    def make():
        pytest.fail("a picture was made")

    observe = page.counter("estimate").observe
    observe(make)
    watch(page, looks=0)  # a page that is open behind another window
    observe(make)
    assert "picture" not in ask(page, "state", client="c", looks=0)


def test_a_picture_is_made_for_who_looks_and_not_too_often(page, scan):
    made = []
    watch(page)
    tell = page.counter("estimate")
    for done in range(1, 20):
        tell(done, 20)
        tell.observe(lambda: made.append(1) or shown(scan))
    assert len(made) == 1
    state = watch(page)
    assert page.stage.picture(state["picture"]).object is scan.object
    sampled = {each["name"]: each["y"] for chart in state["charts"] for each in chart["series"]}
    assert next(iter(sampled.values()))[0] < 0.5  # R of what is true, on a few patterns


def test_what_does_not_go_by_rounds_has_no_curve(page, scan):
    watch(page)
    tell = page.counter("reconstruct")
    tell(64, 300)
    tell.observe(lambda: shown(scan))
    state = watch(page)
    assert "picture" in state
    assert state["charts"] == []


def test_pictures_take_a_small_share_of_the_time(page, scan, monkeypatch):
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    watch(page)
    observe, made = page.counter("estimate").observe, []

    def slow():
        made.append(time.sleep(0.05))
        return shown(scan)

    began = time.monotonic()
    while time.monotonic() - began < 1.0:
        observe(slow)
    assert 1 <= len(made) <= 2  # each of them is paid by twenty times as long without


def test_what_cannot_be_shown_does_not_stop_the_run(page, scan, caplog):
    watch(page)
    page.counter("estimate").observe(lambda: 1 / 0)
    page.counter("estimate").observe(lambda: pytest.fail("it was tried again"))
    page.show(SimpleNamespace())
    assert caplog.text.count("no more pictures") == 1
    assert "cannot show the result" in caplog.text


def test_halves_of_the_scan_are_not_shown(page):
    watch(page)
    page.epochs("half 1").observe(lambda: pytest.fail("a half was shown"))
    page.epochs("half 1")(1, 2, {"r_factor": 0.3})
    assert watch(page)["charts"] == []


def test_who_waits_is_told_of_the_next_change(page):
    version = watch(page)["version"]
    later = threading.Timer(0.2, page.told, ("train", 1, 2))
    later.start()
    began = time.monotonic()
    state = ask(page, "state", client="c", after=version, pace=0, looks=1)
    assert 0.1 < time.monotonic() - began < 5
    assert state["version"] > version


def test_the_end_is_told_before_the_server_goes(scan):
    page = LivePage(scan)
    version, states = watch(page)["version"], []

    def follow():
        states.append(ask(page, "state", client="c", after=version, pace=10, looks=1))
        time.sleep(0.3)  # the page fetches its last picture
        states.append(ask(page, "about"))
        ask(page, "farewell", client="c")

    reader = threading.Thread(target=follow)
    reader.start()
    time.sleep(0.2)
    began = time.monotonic()
    page.close("finished", "Saved in out.")
    assert 0.2 < time.monotonic() - began < 4
    reader.join(5)
    assert (states[0]["ended"], states[0]["status"], states[0]["message"]) == (True, "finished", "Saved in out.")
    with pytest.raises(OSError, match="refused"):
        watch(page)


def test_the_end_does_not_wait_where_nobody_looks(scan):
    page = LivePage(scan)
    began = time.monotonic()
    page.close()
    assert time.monotonic() - began < 1


def test_a_page_that_was_closed_is_forgotten(monkeypatch):
    from ptycho.viewer import stage as stages

    monkeypatch.setattr(stages, "_STILL_THERE", 0.1)
    stage = Stage({})
    assert not stage.looked_at()
    stage.wait("a", -1, 0.0, True)
    assert stage.looked_at()
    time.sleep(0.15)
    assert not stage.looked_at()


def test_many_pages_do_not_pile_up():
    stage = Stage({})
    for number in range(100):
        stage.wait(f"client {number}", -1, 0.0, True)
    assert len(stage._watchers) <= 32


def test_an_engine_shows_its_epochs(page, scan, monkeypatch):
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    monkeypatch.setattr(live, "_SHARE", 1.0)
    monkeypatch.setattr(live, "_SERVED_SHARE", 1.0)
    watch(page)
    seen = []
    page.stage.put = lambda picture, patterns: seen.append(picture)
    result = reconstruct_iteratively(scan, EngineConfig(epochs=4, engine="rpie"), counters=page.epochs)
    assert seen
    assert seen[-1].probe.shape == (1, 16, 16)
    assert not np.array_equal(seen[0].object, result.object)  # a copy that the run did not change
    state = watch(page)
    rpie = state["charts"][0]["series"][0]
    assert rpie["y"] == pytest.approx(result.history["r_factor"])


def test_an_engine_shows_its_slices(page, scan, monkeypatch):
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    watch(page)
    seen = []
    page.stage.put = lambda picture, patterns: seen.append((picture, patterns))
    config = EngineConfig(epochs=1, slices=2, slice_spacing=1e-3)
    result = reconstruct_iteratively(scan, config, counters=page.epochs)
    picture, patterns = seen[-1]
    assert picture.names()[:3] == ["object", "slice 1", "slice 2"]
    np.testing.assert_allclose(picture.object, picture.slices.prod(axis=0), rtol=1e-5)
    kept = sample_of(len(scan))
    predicted = [patterns.at(picture, int(index))[1]["predicted"] for index in kept]
    np.testing.assert_allclose(predicted, result.predicted * patterns.fit(picture)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("settings", [{"propagation": "near"}, {"interpolation": "fourier"}])
def test_an_engine_of_another_kind_predicts_in_its_own_way(page, scan, monkeypatch, settings):
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    watch(page)
    seen = []
    page.stage.put = lambda picture, patterns: seen.append((picture, patterns))
    moved = scan.replace(positions=scan.positions + 0.4)
    result = reconstruct_iteratively(moved, EngineConfig(epochs=1, **settings), counters=page.epochs)
    picture, patterns = seen[-1]
    kept = sample_of(len(scan)).tolist()

    def predicted(shown):
        return np.stack([patterns.at(shown, index)[1]["predicted"] for index in kept]) / patterns.fit(shown)[0]

    np.testing.assert_allclose(predicted(picture), result.predicted, rtol=1e-4, atol=1e-3)
    usual = predicted(dataclasses.replace(picture, predict=None))
    assert np.abs(usual - result.predicted).max() > 0.1


@pytest.mark.parametrize(("side", "kept"), [(8, 2), (6000, 1)])
def test_old_pictures_are_let_go_of_a_large_one_at_once(side, kept):
    stage = Stage({})
    flat = np.broadcast_to(np.complex64(1), (side, side))
    for _ in range(4):
        stage.put(Picture(flat, (0.0, 0.0), np.ones((1, 4, 4)), np.zeros((1, 2))))
    assert len(stage._pictures) == kept
    assert stage.newest() is stage.picture(4)
    with pytest.raises(LookupError):
        stage.picture(4 - kept)
