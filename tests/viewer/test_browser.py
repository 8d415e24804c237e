"""The page of a finished result as a reader sees it, in a real browser."""

from __future__ import annotations

import dataclasses
import re
import time

import numpy as np
import pytest

from ptycho.viewer import serve_result
from tests.support import simulated_scan, true_result

COLOURS = """(id) => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let k = 0; k < data.length; k += 4) if (data[k + 3]) seen.add(data.slice(k, k + 3).join());
  return seen.size;
}"""
"""How many colours a canvas shows."""
PIXELS = """(id) => document.getElementById(id).toDataURL()"""


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(M=60, N=32, photons=1e5, modes=2)


@pytest.fixture(scope="module")
def result(scan):
    return true_result(
        scan,
        origin=(5.0, -7.0),
        positions=scan.positions + np.array([5.0, -7.0]),
        pixel_size=2e-8,
        history={"loss": [3.0, 2.0, 1.5], "r_factor": [0.5, 0.2, 0.1]},
        provenance={
            "data": {"name": "<img src=x onerror=alert(1)>"},
            "command": "ptycho run <script>alert(1)</script>",
        },
        truth=scan.object,
    )


@pytest.fixture
def served(result, scan, tab):
    """The result's page in a tab, drawn."""
    moved = scan.replace(positions=result.positions)
    server = serve_result(result, moved)
    tab.goto(server.url)
    drawn(tab)
    yield tab
    server.close()


def until(condition, seconds=60.0):
    """Wait for something to become true; the page's own policy forbids Playwright to wait inside the page."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.03)


def drawn(tab, canvas="view", colours=8):
    until(lambda: tab.evaluate(COLOURS, canvas) >= colours)


def note(tab, words):
    """Wait for words beside the patterns; all that is said there."""
    until(lambda: words in tab.locator("#pattern-note").inner_text())
    return tab.locator("#pattern-note").inner_text()


def place(tab, row, column, result):
    """Where a pixel of the object is on the screen while all of it is shown."""
    box = tab.locator("#view").bounding_box()
    scale = min(box["width"], box["height"]) / max(result.object.shape) * 0.98
    middle = np.array([box["y"] + box["height"] / 2, box["x"] + box["width"] / 2])
    y, x = middle + (np.array([row, column]) + 0.5 - np.array(result.object.shape) / 2) * scale
    return float(x), float(y)


def reading(tab):
    """Row, column, amplitude and phase that the page says are under the cursor."""
    text = tab.locator("#readout").inner_text()
    found = re.search(r"row (-?[\d.]+), column (-?[\d.]+).*amplitude ([\d.e+-]+), phase (-?[\d.]+) rad", text)
    assert found, text
    return [float(value) for value in found.groups()]


def test_a_finished_result_is_shown_as_it_is(served, result):
    served.locator("#flat").uncheck()
    served.wait_for_timeout(200)
    for row, column in ((10, 20), (70, 33)):
        x, y = place(served, row, column, result)
        served.mouse.move(x, y)
        shown_row, shown_column, amplitude, phase = reading(served)
        assert (shown_row, shown_column) == (row + 5, column - 7)
        assert amplitude == pytest.approx(abs(result.object[row, column]), rel=1e-3)
        assert phase == pytest.approx(np.angle(result.object[row, column]), abs=2e-3)
    assert served.locator("#title").inner_text() == "<img src=x onerror=alert(1)>"
    assert "<script>" in served.locator("#subtitle").inner_text()
    assert served.locator("#headline").inner_text().startswith("R-factor\n0.100")
    assert served.locator(".chart").count() == 2
    drawn(served, "probe-view")


def test_wheel_and_drag_move_about(served, result):
    x, y = place(served, 48, 48, result)
    served.mouse.move(x, y)
    before, pixels = reading(served), served.evaluate(PIXELS, "view")
    for _ in range(8):
        served.mouse.wheel(0, -120)
    until(lambda: served.evaluate(PIXELS, "view") != pixels)
    assert reading(served)[:2] == before[:2]  # what was under the cursor stays there
    served.mouse.move(x + 40, y)
    assert reading(served)[1] - before[1] < 5  # and what lies beside it is nearer now
    served.mouse.move(x, y)
    served.mouse.down()
    served.mouse.move(x + 150, y + 100, steps=4)
    served.mouse.up()
    served.mouse.move(x + 150, y + 100)
    assert reading(served)[:2] == pytest.approx(before[:2], abs=1)
    assert served.locator("#triple, #shown").first.is_hidden()  # a drag is no click
    served.get_by_role("button", name="whole").click()
    served.mouse.move(x, y)
    assert reading(served)[:2] == before[:2]


def test_colours_quantities_and_limits(served):
    seen = {served.evaluate(PIXELS, "view")}
    for quantity, colours in (("phase", "twilight"), ("amplitude", "magma"), ("amplitude", "viridis"), ("complex", "")):
        served.locator("#quantity").select_option(quantity)
        if colours:
            served.locator("#colours").select_option(colours)
        served.wait_for_timeout(150)
        seen.add(served.evaluate(PIXELS, "view"))
    assert len(seen) == 5
    served.locator("#quantity").select_option("amplitude")
    served.get_by_label("Lowest value").fill("0.9")
    served.keyboard.press("Enter")
    served.wait_for_timeout(150)
    assert served.evaluate(PIXELS, "view") not in seen
    served.get_by_role("button", name="auto").click()
    served.wait_for_timeout(150)
    assert served.evaluate(PIXELS, "view") in seen


def test_a_click_shows_measured_and_predicted(served, result):
    row, column = result.positions[17] - np.array(result.origin)
    served.mouse.click(*place(served, row, column, result))
    said = note(served, "photons")
    number = int(served.get_by_label("Number of the position").input_value())
    np.testing.assert_array_equal(result.positions[number], result.positions[17])
    for name in ("measured", "predicted", "difference"):
        assert served.locator(f"#{name}").is_visible()
        drawn(served, name)
    assert float(re.search(r"R (0\.\d+)", said).group(1)) < 0.2
    first = served.evaluate(PIXELS, "measured")
    served.get_by_role("button", name="Next position").click()
    until(lambda: served.evaluate(PIXELS, "measured") != first)
    served.locator("#measured").hover()
    assert "photons" in served.locator("#pattern-readout").inner_text()


def test_everything_by_keyboard(served, result):
    served.locator("#view").focus()
    served.keyboard.press("+")
    served.keyboard.press("ArrowLeft")
    served.keyboard.press("ArrowDown")
    moved = reading(served)
    assert moved[0] > 5 + 48
    assert moved[1] < -7 + 48
    served.keyboard.press("Enter")
    note(served, "photons")
    chosen = served.get_by_label("Number of the position").input_value()
    served.locator("#view").focus()
    served.keyboard.press("n")
    until(lambda: served.locator("#index").input_value() == str((int(chosen) + 1) % 60))
    served.keyboard.press("0")
    served.keyboard.press("Tab")
    assert served.evaluate("document.activeElement.tagName") in ("INPUT", "SELECT", "BUTTON")
    unnamed = served.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas, progress")].filter((each) =>
          !(each.ariaLabel || each.labels?.length || each.textContent.trim())).map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_without_the_scan_a_sentence_says_so(result, tab):
    server = serve_result(result, missing="The scan is not there any more.")
    tab.goto(server.url)
    drawn(tab)
    assert "The scan is not there any more." in tab.locator("#pattern-note").inner_text()
    index = tab.get_by_label("Number of the position")
    index.fill("0")
    index.press("Enter")
    drawn(tab, "measured")  # one of the patterns that the result keeps
    index.fill("1")
    index.press("Enter")
    assert "not there any more" in note(tab, "Position 1 ")
    assert tab.locator("#measured").is_hidden()
    assert tab.locator("#predicted").is_visible()
    server.close()


def test_a_large_object_comes_in_parts(result, tab):
    rng = np.random.default_rng(0)
    image = np.exp(1j * rng.uniform(-1, 1, (3000, 2600)).astype(np.float32)).astype(np.complex64)
    large = dataclasses.replace(result, object=image, weight=np.ones(image.shape, np.float32), truth=None)
    server, tiles = serve_result(large), []
    tab.on("request", lambda request: tiles.append(request.url) if "/tile?" in request.url else None)
    tab.goto(server.url)
    drawn(tab)
    tab.wait_for_timeout(300)
    whole = [url for url in tiles if "image=object" in url]
    assert not any("level=0" in url for url in whole)
    assert len(whole) <= 10
    tab.locator("#flat").uncheck()
    tab.locator("#view").focus()
    for _ in range(6):
        tab.keyboard.press("+")

    def is_fine():
        tab.keyboard.press("ArrowRight")
        said = tab.locator("#readout").inner_text()
        return "phase" in said and "mean of" not in said

    until(is_fine)
    row, column, _, phase = reading(tab)
    assert phase == pytest.approx(np.angle(image[int(row) - 5, int(column) + 7]), abs=2e-3)
    finest = [url for url in tiles if "level=0" in url and "image=object" in url]
    assert 1 <= len(finest) < 30
    server.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(served, scheme):
    served.emulate_media(color_scheme=scheme)
    ink, paper = served.evaluate(
        """["color", "backgroundColor"].map((name) =>
          getComputedStyle(document.body)[name].match(/[0-9.]+/g).map(Number).reduce((sum, part) => sum + part, 0))"""
    )
    assert (paper > ink) == (scheme == "light")
    assert abs(paper - ink) > 400
