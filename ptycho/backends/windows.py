"""Windows of an image on the host: weighted sums of them, and the adjoint, at memory speed.

Both are bounded by memory traffic. With numba (``pip install ptychopinn[fast]``) every window is visited once; without
it numpy goes over the window once for each of its places, which takes four to eight times as long.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

__all__ = ["add_windows", "gather_windows"]

_COMPILED_FOR = ("f4", "f8")
"""Real numbers; complex ones are pairs of them."""


def gather_windows(image: np.ndarray, corners: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Weighted sums over j of ``image[r : r + size, c : c + size]`` at J places.

    Parameters
    ----------
    image : (H, W) floating or complex.
    corners : (K, J, 2) integer, (row, col) of the first pixel at each place.
    weights : (K, J) real.
    size : n.

    Returns
    -------
    (K, n, n) of the image's dtype.

    Raises
    ------
    IndexError
        A window reaches beyond the image.
    """
    _require_inside(image.shape, corners, size)
    windows = np.empty((len(corners), size, size), dtype=image.dtype)
    width, pixels = _pairs(image)
    sums = _pairs(windows)[1]
    loops = _compiled()
    if loops is None or not _plain(pixels):
        _gather_by_numpy(sums, width, pixels, corners, weights, size)
    else:
        flat, stride = _flat(pixels, writeable=False)
        loops.gather(sums, flat, stride, _first(corners, stride, width), np.asarray(weights, pixels.dtype))
    return windows


def add_windows(image: np.ndarray, windows: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> None:
    """Add weighted windows to an image in place: the adjoint of :func:`gather_windows`.

    Parameters
    ----------
    image : (H, W) floating or complex; changed.
    windows : (K, n, n); one window broadcast to K costs no memory.
    corners : (K, J, 2) integer.
    weights : (K, J) real.

    Raises
    ------
    IndexError
        A window reaches beyond the image.
    """
    size = windows.shape[-1]
    _require_inside(image.shape, corners, size)
    if image.strides[-1] != image.itemsize:
        lined_up = np.ascontiguousarray(image)
        add_windows(lined_up, windows, corners, weights)
        image[...] = lined_up
        return
    if windows.shape[0] > 1 and windows.strides[0] == 0:
        windows = windows[:1]
    width, pixels = _pairs(image)
    if windows.dtype.kind != image.dtype.kind or windows.dtype.str[1:] not in (*_COMPILED_FOR, "c8", "c16"):
        windows = windows.astype(image.dtype)
    values = _pairs(windows)[1]
    loops = _compiled()
    if loops is None or not _plain(pixels):
        _add_by_numpy(width, pixels, np.broadcast_to(values, (len(corners), *values.shape[1:])), corners, weights, size)
        return
    flat, stride = _flat(pixels, writeable=True)
    values = np.ascontiguousarray(values).view()
    values.flags.writeable = False  # one type of array, one compilation
    loops.add(flat, stride, values, _first(corners, stride, width), np.asarray(weights, pixels.dtype), width)


def _gather_by_numpy(
    sums: np.ndarray, width: int, pixels: np.ndarray, corners: np.ndarray, weights: np.ndarray, size: int
) -> None:
    """Window by window, so that all work stays in the processor's cache."""
    part = np.empty((size, width * size), dtype=sums.dtype)
    for total, places, shares in zip(sums, corners.tolist(), weights.tolist(), strict=True):
        into = total
        for (row, col), share in zip(places, shares, strict=True):
            np.multiply(pixels[row : row + size, width * col : width * (col + size)], share, out=into)
            if into is part:
                total += part
            into = part


def _add_by_numpy(
    width: int, pixels: np.ndarray, values: np.ndarray, corners: np.ndarray, weights: np.ndarray, size: int
) -> None:
    part = np.empty((size, width * size), dtype=pixels.dtype)
    for value, places, shares in zip(values, corners.tolist(), weights.tolist(), strict=True):
        for (row, col), share in zip(places, shares, strict=True):
            np.multiply(value, share, out=part, dtype=part.dtype)
            pixels[row : row + size, width * col : width * (col + size)] += part


@functools.cache
def _compiled() -> Any:
    """The module of compiled loops, or None where numba is not installed or does not work."""
    try:
        from ptycho.backends import windows_compiled
    except ImportError:
        return None
    return windows_compiled


def _require_inside(shape: tuple[int, ...], corners: np.ndarray, size: int) -> None:
    if corners.size == 0:
        return
    lowest, highest = corners.min(axis=(0, 1)), corners.max(axis=(0, 1)) + size
    if lowest.min() < 0 or highest[0] > shape[0] or highest[1] > shape[1]:
        raise IndexError(
            f"corners: windows of {size} reach from pixel {tuple(lowest.tolist())} to {tuple(highest.tolist())} of an "
            f"image of {shape}."
        )


def _pairs(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Real numbers per value, and the values as real numbers along the last axis: real factors cost half then."""
    if values.dtype.kind != "c":
        return 1, values
    lined_up = values if values.strides[-1] == values.itemsize else np.ascontiguousarray(values)
    return 2, lined_up.view(values.real.dtype)


def _plain(pixels: np.ndarray) -> bool:
    """Whether the rows of an image (H, W) follow each other in memory in a type that is compiled for."""
    rows, cols = pixels.strides
    return (
        pixels.dtype.isnative
        and pixels.dtype.str[1:] in _COMPILED_FOR
        and cols == pixels.itemsize
        and rows >= pixels.shape[1] * cols
        and rows % cols == 0
    )


def _flat(pixels: np.ndarray, writeable: bool) -> tuple[np.ndarray, int]:
    """The memory of an image from its first pixel to its last, and the numbers from one row to the next."""
    stride = pixels.strides[0] // pixels.itemsize
    numbers = (pixels.shape[0] - 1) * stride + pixels.shape[1] if pixels.size else 0
    return np.lib.stride_tricks.as_strided(pixels, (numbers,), (pixels.itemsize,), writeable=writeable), stride


def _first(corners: np.ndarray, stride: int, width: int) -> np.ndarray:
    """(K, J) number in the flat image at which each window begins."""
    return corners[..., 0].astype(np.int64) * stride + corners[..., 1].astype(np.int64) * width
