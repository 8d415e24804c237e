"""The files of the page and its colour maps."""

from __future__ import annotations

import functools
from importlib import resources
from types import MappingProxyType

import numpy as np

__all__ = ["COLOUR_MAPS", "colour_maps", "page_files"]

COLOUR_MAPS = ("gray", "viridis", "cividis", "magma", "twilight", "RdBu_r")
"""Matplotlib's names of the perceptually uniform maps, of a cyclic one and of a diverging one."""

_KINDS = MappingProxyType(
    {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
)


@functools.cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of every file of the page by the requested name; the page itself is ``""``."""
    found = {}
    for item in resources.files("ptycho.viewer").joinpath("page").iterdir():
        ending = "." + item.name.rpartition(".")[2]
        if ending in _KINDS:
            found["" if item.name == "index.html" else item.name] = (item.read_bytes(), _KINDS[ending])
    return found


@functools.cache
def colour_maps() -> dict[str, list[int]]:
    """256 colours of each map as a flat list of red, green and blue from 0 to 255."""
    from matplotlib import colormaps

    shares = np.linspace(0, 1, 256)
    return {name: (colormaps[name](shares)[:, :3] * 255).round().astype(int).ravel().tolist() for name in COLOUR_MAPS}
