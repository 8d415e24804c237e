r"""What an epoch says about the positions: a step for every pattern, and the map that all have in common.

Where neighbouring positions are wrong alike, the object takes up their error: scanned with positions that are stretched
by A, it comes out stretched by A, and no step says so any more. But then every pattern sees a patch that is stretched
about its own centre. The common distortion D of the patches, the least-squares fit of :math:`P\,\nabla O \cdot D r` to
the changes of all exit waves, therefore tells the error of the common map directly, where steps would need hundreds of
epochs. Positions and object are mapped by it together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from ptycho.backends import Array, NumpyBackend, array_namespace, to_numpy
from ptycho.engines.exit_waves import SliceUpdate
from ptycho.engines.position_correction.steps import fitted_steps, limited, registered_steps
from ptycho.physics.propagation import intensity

__all__ = ["Moves", "mapped_image", "mapped_positions"]

_host = NumpyBackend.xp
_STRAIN_GAIN = 2.0
"""Neighbours agree on half of a strain and on none of a rotation: the object hides that half."""
_MOST = 0.01
"""Largest element of the map of one epoch."""


class Moves:
    """Gathers the steps of batches and the distortion of an epoch.

    Parameters
    ----------
    method : ``"gradient"`` or ``"correlation"``, of the steps.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._steps: list[tuple[np.ndarray, np.ndarray]] = []
        self._maps: list[Array] | None = None

    def add(self, index: np.ndarray, slices: Sequence[SliceUpdate]) -> None:
        """What some patterns say.

        Slices move together. What they change of the exit waves is taken for independent of each other.
        """
        xp = array_namespace(slices[0].exit_change)
        maps = _products(slices[0])
        for lit in slices[1:]:
            maps = [a + b for a, b in zip(maps, _products(lit), strict=True)]
        if self._method == "gradient":
            sums = [np.asarray(to_numpy(xp.sum(m, axis=(-2, -1))), dtype=np.float64) for m in maps]
            steps = fitted_steps(*sums)
        else:
            steps = registered_steps(*slices[0])
        self._steps.append((index, limited(steps)))
        totals = [xp.sum(m, axis=0) for m in maps]
        self._maps = totals if self._maps is None else [a + b for a, b in zip(self._maps, totals, strict=True)]

    def apply(self, positions: np.ndarray, length: float) -> np.ndarray:
        """Positions (M, 2) after the steps since the last call, times ``length``."""
        moved = positions.copy()
        for index, steps in self._steps:
            moved[index] += steps * length
        self._steps = []
        return moved

    def common(self) -> np.ndarray:
        """The map (2, 2) of positions around their mean that patterns since the last call ask for; 1 without any."""
        if self._maps is None:
            return _host.eye(2)
        rr, rc, cc, r, c = (np.asarray(to_numpy(m), dtype=np.float64) for m in self._maps)
        self._maps = None
        size = rr.shape[-1] + 2
        along = _host.arange(1, size - 1) - size // 2
        arms: Any = (along[:, None], along[None, :])

        def moments(values: np.ndarray) -> np.ndarray:
            return _host.asarray([[float((values * a * b).sum()) for b in arms] for a in arms])

        normal = np.block([[moments(rr), moments(rc)], [moments(rc), moments(cc)]])
        asked = _host.asarray([float((values * arm).sum()) for values in (r, c) for arm in arms])
        normal += _host.eye(4) * (1e-9 * np.trace(normal) + 1e-300)
        found = np.linalg.solve(normal, asked).reshape(2, 2)
        turn = 0.5 * (found - found.T)
        found = turn + (found - turn) * _STRAIN_GAIN
        if not np.isfinite(found).all():
            return _host.eye(2)
        return _host.eye(2) - found * min(1.0, _MOST / max(float(_host.abs(found).max()), 1e-30))


def _products(lit: SliceUpdate) -> list[Array]:
    """What ``fitted_steps`` takes the sums of, pixel by pixel, (k, N - 2, N - 2)."""
    xp, patches = array_namespace(*lit), lit.patches
    rows = 0.5 * (patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1])
    cols = 0.5 * (patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2])
    inner = lit.illumination[..., 1:-1, 1:-1]
    light = xp.sum(intensity(inner), axis=-3)
    wanted = xp.sum(xp.conj(inner) * lit.exit_change[..., 1:-1, 1:-1], axis=1)
    return [
        light * intensity(rows),
        light * xp.real(xp.conj(rows) * cols),
        light * intensity(cols),
        xp.real(xp.conj(rows) * wanted),
        xp.real(xp.conj(cols) * wanted),
    ]


def mapped_positions(positions: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Positions (M, 2) after a map (2, 2) around their mean."""
    centre = positions.mean(axis=0)
    return (positions - centre) @ matrix.T + centre


def mapped_image(image: np.ndarray, matrix: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """An object (H, W) carried along by a map around ``centre``, by cubic splines; beyond its edge the edge's value."""
    back = np.linalg.inv(matrix)
    moved = affine_transform(image.astype(np.complex128), back, centre - back @ centre, order=3, mode="nearest")
    return _host.astype(moved, image.dtype)
