"""Every format has a page that states units, axes, sign, fftshift and what is lost; the pages name what exists."""

import re
from pathlib import Path

import pytest

from ptycho.config.flags import SPELLINGS
from ptycho.config.settings import field_types
from ptycho.data import available_readers, available_writers
from ptycho.data.orientation import ORIENTATIONS
from ptycho.workflows.convert import ConvertOptions
from ptycho.workflows.scans import ScanOptions

PAGES = Path(__file__).parents[2] / "docs" / "formats"


@pytest.mark.parametrize("format", [*available_readers(), "arrays"])
def test_every_format_has_a_page(format):
    text = (PAGES / f"{format}.md").read_text(encoding="utf-8")
    for topic in ("Units", "Axes", "Sign", "fftshift", "Lost"):
        assert f"**{topic}**" in text, topic
    assert f"({format}.md)" in (PAGES / "index.md").read_text(encoding="utf-8")
    if format in available_writers():
        assert all(ending in text for ending in available_writers()[format].extensions[:1])


def test_the_pages_name_flags_that_exist():
    fields = {*field_types(ScanOptions), *field_types(ConvertOptions), "force"}
    flags = {flag for name in fields for flag in SPELLINGS.get(name, (f"--{name}",))}
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for flag in re.findall(r"--([a-z][a-z-]+)", text):
            assert f"--{flag.replace('-', '_')}" in flags, f"{page.name}: {flag}"
        for orientation in re.findall(r"--orientation ([a-z-]+)", text):
            assert orientation in ORIENTATIONS
