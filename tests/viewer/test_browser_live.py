"""The page of a run while it works, in a real browser."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from ptycho.config import EngineConfig
from ptycho.data import save_npz
from ptycho.viewer import LivePage, live
from ptycho.workflows.refine import reconstruct_iteratively
from tests.support import simulated_scan

ROOT = Path(__file__).parents[2]


ENDLESS = ("reconstruct", "--engine", "rpie", "--epochs", 10000, "--out", "result", "--live")


def until(condition, seconds=180.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.03)


@pytest.fixture
def scan_file(tmp_path):
    path = tmp_path / "scan.npz"
    save_npz(simulated_scan(M=300, N=32, photons=1e4), path)
    return path


def r_factor(tab):
    found = re.search(r"[Rr][ -]factor ([\d.]+)", tab.locator("#figures").inner_text())
    return float(found.group(1)) if found else None


class Steps:
    """Lets a run, in a thread of its own, do some epochs at a time."""

    def __init__(self, page):
        self.page, self.allowed, self.epoch = page, threading.Semaphore(0), 0
        self.error = None

    def counters(self, label):
        told = self.page.epochs(label)

        def tell(epoch, n_epochs, figures):
            assert self.allowed.acquire(timeout=60)
            told(epoch, n_epochs, figures)
            self.epoch = epoch

        tell.observe = told.observe
        return tell

    def run(self, scan, config):
        try:
            self.page.show(reconstruct_iteratively(scan, config, counters=self.counters))
            self.page.close("finished", "Saved in result.")
        except BaseException as error:
            self.error = error

    def go_on(self, epochs):
        wanted = self.epoch + epochs
        until(self.page.stage.looked_at)  # on a busy machine the browser may not have asked for a while
        for _ in range(epochs):
            self.allowed.release()
        until(lambda: self.error or self.epoch == wanted)
        if self.error:
            raise self.error


def pixels(tab):
    return tab.evaluate("document.getElementById('view').toDataURL()")


def test_a_run_from_its_first_epoch_to_its_end(tab, monkeypatch):
    monkeypatch.setattr(live, "_AT_LEAST", 0.0)
    monkeypatch.setattr(live, "_SHARE", float("inf"))
    monkeypatch.setattr(live, "_SERVED_SHARE", float("inf"))
    monkeypatch.setattr(live, "_PATIENCE", 30.0)
    scan = simulated_scan(M=100, N=32, photons=1e4)
    page = LivePage(scan, about={"title": "a scan"})
    steps = Steps(page)
    thread = threading.Thread(target=steps.run, args=(scan, EngineConfig(engine="rpie", epochs=12)))
    thread.start()
    tab.goto(page.url)
    until(lambda: tab.locator("#pill").inner_text() == "running")
    assert "next epoch" in tab.locator("#waiting").inner_text()
    steps.go_on(2)
    until(lambda: r_factor(tab) is not None)
    until(lambda: "after 2" in tab.locator("#object-title").inner_text().lower())
    first, picture, title = r_factor(tab), pixels(tab), tab.title()
    assert re.match(r"16 % .*rpie: a scan", title), title
    steps.go_on(4)
    until(lambda: "after 6" in tab.locator("#object-title").inner_text().lower())
    until(lambda: r_factor(tab) < first)
    until(lambda: pixels(tab) != picture)
    assert tab.locator("#charts .curve").count() >= 1
    steps.go_on(6)
    until(lambda: tab.locator("#pill").inner_text() == "finished")
    thread.join(60)
    assert not thread.is_alive()
    assert steps.error is None
    assert tab.locator("#headline").inner_text().startswith("R-factor\n0.")
    assert tab.locator("#step").inner_text() == "Saved in result."
    assert tab.locator("#banner").is_hidden()
    assert tab.title().startswith("finished")
    tab.locator("#view").focus()  # it can still be looked around in
    before = pixels(tab)
    tab.keyboard.press("+")
    until(lambda: pixels(tab) != before)


def test_a_run_that_is_killed_says_so(tab, begin, scan_file):
    process, url = begin(*ENDLESS, scan_file)
    tab.goto(url)
    until(lambda: r_factor(tab) is not None)
    process.kill()
    until(lambda: tab.locator("#banner").is_visible())
    assert "does not answer any more" in tab.locator("#banner").inner_text()
    assert tab.locator("#pill").inner_text() == "connection lost"


def test_a_run_that_is_interrupted_says_so(tab, begin, scan_file):
    process, url = begin(*ENDLESS, scan_file)
    tab.goto(url)
    until(lambda: r_factor(tab) is not None)
    process.send_signal(2)
    until(lambda: tab.locator("#pill").inner_text() == "interrupted")
    process.communicate(timeout=60)
    assert process.returncode == 130
