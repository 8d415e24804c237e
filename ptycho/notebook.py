"""What a notebook shows of an object: a table of numbers and, where Pillow is installed, small pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np

from ptycho.visible import visible

__all__ = ["summary_html"]

_SIDE = 192
"""Pixels along the longer side of a picture: three fit side by side into the column of a notebook."""


def summary_html(title: str, numbers: Mapping[str, object], pictures: Mapping[str, np.ndarray]) -> str:
    """HTML of a title, pictures and a table; every text in it is escaped.

    Parameters
    ----------
    title
        Heading.
    numbers
        Values by name, in order; those that are None are left out.
    pictures
        (H, W) real images by caption, drawn in grey between their smallest and largest finite value.

    Returns
    -------
    str
        A ``div``. Without Pillow it holds no pictures.
    """
    rows = "".join(
        f'<tr><th style="text-align:left">{_text(name)}</th><td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in numbers.items()
        if value is not None
    )
    drawn = "".join(_figure(caption, image) for caption, image in pictures.items())
    return f"<div><strong>{_text(title)}</strong>\n<div>{drawn}</div>\n<table>{rows}</table></div>"


def _figure(caption: str, image: np.ndarray) -> str:
    try:
        from PIL import Image
    except ImportError:
        return ""
    step = max(1, -(-max(image.shape) // (2 * _SIDE)))
    shown = np.asarray(image[::step, ::step], dtype=np.float64)
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    grey = (np.nan_to_num(shown, nan=low, posinf=high, neginf=low) - low) * (255.0 / ((high - low) or 1.0))
    stream = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(stream, format="png")
    scale = _SIDE / max(shown.shape)
    height, width = (max(1, round(n * scale)) for n in shown.shape)
    return (
        '<figure style="display:inline-block;margin:4px">'
        f'<img width="{width}" height="{height}" style="image-rendering:pixelated" alt="{_text(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _text(value: object) -> str:
    return html.escape(visible(f"{value:.6g}" if isinstance(value, float) else value))
