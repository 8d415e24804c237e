r"""Corrections of the scan positions.

Gradient: an exit wave changes by :math:`P\,(\partial_r O\,\delta_r + \partial_c O\,\delta_c)` when its patch moves by
:math:`\delta`; the displacement is the least-squares fit of that to the change that the pattern asks for (Odstrcil,
Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018), section 2.5).

Cross-correlation: the patch that the pattern asks for is registered to the patch that stands there, in the light of the
probe (Zhang et al., Opt. Express 21, 13592 (2013)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptycho.backends import Array, NumpyBackend, array_namespace, to_numpy
from ptycho.config.engines import EngineSettings
from ptycho.physics.fourier import fft2, ifft2
from ptycho.physics.propagation import intensity

__all__ = [
    "AffineFit",
    "constrain_positions",
    "farthest_move",
    "fit_affine",
    "fitted_steps",
    "limited",
    "registered_steps",
]

_host = NumpyBackend.xp
_LONGEST = 0.5
_HALF_SEEN = 2.0
"""A pattern has no phases: the change that it asks for is about half of the one that a displacement makes."""


@dataclass(frozen=True)
class AffineFit:
    """An affine map of positions, taken apart.

    Attributes
    ----------
    matrix : (2, 2), ``corrected - mean = matrix @ (nominal - mean) + shift``.
    shift : (2,) pixels, (row, col).
    scale : (2,) along rows and columns.
    rotation : degrees.
    shear : tangent of the angle that the axes lack to a right one.
    rest : root mean square of what the map does not explain, pixels.
    """

    matrix: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    rotation: float
    shear: float
    rest: float

    def __call__(self, positions: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Map positions (M, 2) around the ``centre`` of those that were fitted."""
        return (positions - centre) @ self.matrix.T + centre + self.shift


def fitted_steps(rr: np.ndarray, rc: np.ndarray, cc: np.ndarray, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Least-squares displacements (k, 2), pixels.

    Parameters
    ----------
    rr, rc, cc : (k,) products of the exit waves' slopes along rows and columns.
    r, c : (k,) products of the slopes with the change that the patterns ask for.
    """
    determinant = rr * cc - rc * rc + 1e-9 * (rr + cc) ** 2 + 1e-300
    steps = _host.stack([cc * r - rc * c, rr * c - rc * r], axis=-1) / determinant[:, None]
    return steps * _HALF_SEEN


def limited(steps: np.ndarray) -> np.ndarray:
    """Steps (k, 2) of at most half a pixel; none where they are not finite."""
    steps = _host.where(_host.isfinite(steps), steps, 0.0)
    length = _host.linalg.norm(steps, axis=-1, keepdims=True)
    return steps * _host.minimum(1.0, _LONGEST / _host.maximum(length, 1e-30))


def registered_steps(patches: Array, probe: Array, difference: Array) -> np.ndarray:
    """Peak of the correlation of wanted and present patches, (k, 2) pixels, refined by a parabola.

    Parameters
    ----------
    patches : (k, N, N) complex.
    probe : (P, N, N) complex, or (k, P, N, N) where each pattern has its own.
    difference : (k, P, N, N) complex, the change that the patterns ask for.
    """
    xp = array_namespace(patches, probe, difference)
    light = xp.sum(intensity(probe), axis=-3)
    update = xp.sum(xp.conj(probe) * difference, axis=-3) / xp.astype(light + 0.05 * xp.max(light), patches.dtype)
    window = xp.astype(light / xp.max(light), patches.dtype)
    mean = xp.sum(patches * window, axis=(-2, -1), keepdims=True) / xp.sum(window, axis=(-2, -1), keepdims=True)
    present = fft2((patches - mean) * window)
    wanted = fft2((patches + update - mean) * window)
    peak = to_numpy(intensity(ifft2(wanted * xp.conj(present)))) ** 0.5
    size = peak.shape[-1]
    near = peak[:, _host.arange(-2, 3)[:, None] % size, _host.arange(-2, 3)[None, :] % size]
    top = _best_of_nine(near[:, 1:4, 1:4])
    rows, cols, each = top // 3 + 1, top % 3 + 1, _host.arange(top.size)

    def vertex(below: np.ndarray, at: np.ndarray, above: np.ndarray) -> np.ndarray:
        return 0.5 * (below - above) / _host.minimum(below - 2 * at + above, -1e-30)

    middle = near[each, rows, cols]
    down = rows - 2 + vertex(near[each, rows - 1, cols], middle, near[each, rows + 1, cols])
    right = cols - 2 + vertex(near[each, rows, cols - 1], middle, near[each, rows, cols + 1])
    return -_host.stack([down, right], axis=-1)  # the wanted patch shows the object from the other side


def _best_of_nine(values: np.ndarray) -> np.ndarray:
    return _host.argmax(_host.reshape(values, (-1, 9)), axis=-1)


def farthest_move(config: EngineSettings, nominal: np.ndarray, size: int) -> float:
    """How far a position may move, pixels, for nominal positions (M, 2) and patterns of side ``size``."""
    if config.position_limit is not None:
        return config.position_limit
    return size / 8 + float(_host.max(nominal.max(axis=0) - nominal.min(axis=0))) / 50


def constrain_positions(positions: np.ndarray, nominal: np.ndarray, farthest: float, affine: bool) -> np.ndarray:
    """Corrected positions (M, 2) without a common shift, if wanted affine, and none farther than ``farthest``."""
    moved = positions - nominal
    moved = moved - moved.mean(axis=0)
    if affine:
        fit = fit_affine(nominal, nominal + moved)
        moved = fit(nominal, nominal.mean(axis=0)) - nominal
    length = _host.linalg.norm(moved, axis=-1, keepdims=True)
    return nominal + moved * _host.minimum(1.0, farthest / _host.maximum(length, 1e-30))


def fit_affine(nominal: np.ndarray, corrected: np.ndarray) -> AffineFit:
    """Least-squares affine map from nominal to corrected positions (M, 2)."""
    centre = nominal.mean(axis=0)
    design = _host.concat([nominal - centre, _host.ones((nominal.shape[0], 1))], axis=1)
    solution = np.linalg.lstsq(design, corrected - centre, rcond=None)[0]
    matrix, shift = solution[:2].T, solution[2]
    rotation = math.atan2(matrix[1, 0], matrix[0, 0])
    turn = _host.asarray([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    upper = turn.T @ matrix
    rest = corrected - (design @ solution + centre)
    return AffineFit(
        matrix,
        shift,
        _host.asarray([upper[0, 0], upper[1, 1]]),
        math.degrees(rotation),
        float(upper[0, 1] / upper[1, 1]) if upper[1, 1] else 0.0,
        float(_host.sqrt((rest**2).sum(axis=-1).mean())),
    )
