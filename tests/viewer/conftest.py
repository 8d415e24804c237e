"""A real browser for the pages, where one is found: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil

import pytest

_NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium():
    """Chromium without a window; PTYCHO_TEST_BROWSER may name another one of its family."""
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    named = os.environ.get("PTYCHO_TEST_BROWSER")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    with driver.sync_playwright() as playwright:
        if found is None and not os.path.exists(playwright.chromium.executable_path):
            pytest.skip("no browser: apt-get install chromium, or playwright install chromium")
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom Chromium runs only without its own sandbox
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=not root)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A new tab; in the end nothing has gone wrong in it, and nobody was asked but the page's server."""
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if _matters(line) else None)
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert not wrong
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in asked)


def _matters(line):
    """Errors and warnings, but for what the tests bring about: they look into canvases, and end servers."""
    brought_about = any(words in line.text for words in ("getImageData", "net::ERR_CONNECTION"))
    return line.type in ("error", "warning") and not brought_about
