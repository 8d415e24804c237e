r"""The step of every position.

Gradient: an exit wave changes by :math:`P\,(\partial_r O\,\delta_r + \partial_c O\,\delta_c)` when its patch moves by
:math:`\delta`; the displacement is the least-squares fit of that to the change that the pattern requires (Odstrcil,
Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018), section 2.5).

Cross-correlation: the patch that the pattern requires is registered to the present patch, weighted by the probe (Zhang
et al., Opt. Express 21, 13592 (2013)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptycho.backends import Array, array_namespace, to_numpy
from ptycho.engines.exit_waves import SliceUpdate
from ptycho.physics.fourier import fft2, ifft2
from ptycho.physics.propagation import intensity

__all__ = ["fitted_steps", "limited", "registered_steps", "slope_products"]

_LONGEST = 0.5
"""Pixels. Slopes of the object are known from pixel to pixel only: a longer step would leave the linear range."""
_HALF_SEEN = 2.0
"""A pattern has no phases: the change that it requires is about half of the one that a displacement makes."""


def fitted_steps(rr: np.ndarray, rc: np.ndarray, cc: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Least-squares displacements (k, 2), pixels.

    Parameters
    ----------
    rr, rc, cc : (k,) products of the exit waves' slopes along rows and columns.
    r, c : (k,) products of the slopes with the change that the patterns require.
    """
    determinant = rr * cc - rc * rc + 1e-9 * (rr + cc) ** 2 + 1e-300
    steps = np.stack([cc * r - rc * c, rr * c - rc * r], axis=-1) / determinant[:, None]
    return steps * _HALF_SEEN


def limited(steps: np.ndarray) -> np.ndarray:
    """Steps (k, 2) of at most half a pixel; none where they are not finite."""
    steps = np.where(np.isfinite(steps), steps, 0.0)
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    return steps * np.minimum(1.0, _LONGEST / np.maximum(length, 1e-30))


def registered_steps(patches: Array, probe: Array, difference: Array) -> np.ndarray:
    """Peak of the correlation of wanted and present patches, (k, 2) pixels, refined by a parabola.

    Parameters
    ----------
    patches : (k, N, N) complex.
    probe : (P, N, N) complex, or (k, P, N, N) where each pattern has its own.
    difference : (k, P, N, N) complex, the change that the patterns require.
    """
    xp = array_namespace(patches, probe, difference)
    light = xp.sum(intensity(probe), axis=-3)
    update = xp.sum(xp.conj(probe) * difference, axis=-3) / xp.astype(light + 0.05 * xp.max(light), patches.dtype)
    window = xp.astype(light / xp.max(light), patches.dtype)
    mean = xp.sum(patches * window, axis=(-2, -1), keepdims=True) / xp.sum(window, axis=(-2, -1), keepdims=True)
    present = fft2((patches - mean) * window)
    wanted = fft2((patches + update - mean) * window)
    peak = to_numpy(intensity(ifft2(wanted * xp.conj(present)))) ** 0.5
    return -_peak_offsets(peak)  # the wanted patch shows the object from the other side


def _peak_offsets(peak: np.ndarray) -> np.ndarray:
    """Offsets (k, 2) of the maxima of periodic images (k, N, N) near [0, 0], refined by parabolas."""
    size = peak.shape[-1]
    near = peak[:, np.arange(-2, 3)[:, None] % size, np.arange(-2, 3)[None, :] % size]
    top = np.argmax(np.reshape(near[:, 1:4, 1:4], (-1, 9)), axis=-1)
    rows, cols, each = top // 3 + 1, top % 3 + 1, np.arange(top.size)

    def vertex(below: np.ndarray, at: np.ndarray, above: np.ndarray) -> np.ndarray:
        return 0.5 * (below - above) / np.minimum(below - 2 * at + above, -1e-30)

    middle = near[each, rows, cols]
    down = rows - 2 + vertex(near[each, rows - 1, cols], middle, near[each, rows + 1, cols])
    right = cols - 2 + vertex(near[each, rows, cols - 1], middle, near[each, rows, cols + 1])
    return np.stack([down, right], axis=-1)


def slope_products(slices: Sequence[SliceUpdate]) -> list[Array]:
    """What :func:`fitted_steps` takes the sums of, pixel by pixel, (k, N - 2, N - 2) each.

    Slices move together. Their effects on the exit waves are taken to be independent of each other.
    """
    products = _slice_products(slices[0])
    for update in slices[1:]:
        products = [a + b for a, b in zip(products, _slice_products(update), strict=True)]
    return products


def _slice_products(update: SliceUpdate) -> list[Array]:
    xp, patches = array_namespace(*update), update.patches
    rows = 0.5 * (patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1])
    cols = 0.5 * (patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2])
    inner = update.illumination[..., 1:-1, 1:-1]
    light = xp.sum(intensity(inner), axis=-3)
    wanted = xp.sum(xp.conj(inner) * update.exit_change[..., 1:-1, 1:-1], axis=1)
    return [
        light * intensity(rows),
        light * xp.real(xp.conj(rows) * cols),
        light * intensity(cols),
        xp.real(xp.conj(rows) * wanted),
        xp.real(xp.conj(cols) * wanted),
    ]
