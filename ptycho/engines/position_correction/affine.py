r"""The affine map that all positions have in common.

Where neighbouring positions are wrong alike, the object takes up their error: scanned with positions that are stretched
by A, it comes out stretched by A, and no step shows it any more. But then every pattern sees a patch that is stretched
about its own centre. The common distortion D of the patches, the least-squares fit of :math:`P\,\nabla O \cdot D r` to
the changes of all exit waves, is therefore a direct measure of the error of the common map, where steps would need
hundreds of epochs. Positions and object are mapped by it together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

__all__ = ["AffineFit", "common_map", "fit_affine", "mapped_image", "mapped_positions"]

_STRAIN_GAIN = 2.0
"""Neighbours agree on half of a strain and on none of a rotation: the object hides that half."""
_LARGEST = 0.01
"""Largest element of the map of one epoch, so that the object can follow."""


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


def common_map(products: Sequence[np.ndarray]) -> np.ndarray:
    """The map (2, 2) of positions around their mean that the patterns of an epoch require.

    Parameters
    ----------
    products : five (N - 2, N - 2) float64, as of :func:`~ptycho.engines.position_correction.steps.slope_products`,
        summed over the patterns.
    """
    rr, rc, cc, r, c = products
    size = rr.shape[-1] + 2
    along = np.arange(1, size - 1) - size // 2
    arms: Any = (along[:, None], along[None, :])

    def moments(values: np.ndarray) -> np.ndarray:
        return np.asarray([[float((values * a * b).sum()) for b in arms] for a in arms])

    normal = np.block([[moments(rr), moments(rc)], [moments(rc), moments(cc)]])
    asked = np.asarray([float((values * arm).sum()) for values in (r, c) for arm in arms])
    normal += np.eye(4) * (1e-9 * np.trace(normal) + 1e-300)
    found = np.linalg.solve(normal, asked).reshape(2, 2)
    turn = 0.5 * (found - found.T)
    found = turn + (found - turn) * _STRAIN_GAIN
    if not np.isfinite(found).all():
        return np.eye(2)
    return np.eye(2) - found * min(1.0, _LARGEST / max(float(np.abs(found).max()), 1e-30))


def mapped_positions(positions: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Positions (M, 2) after a map (2, 2) around their mean."""
    centre = positions.mean(axis=0)
    return (positions - centre) @ matrix.T + centre


def mapped_image(image: np.ndarray, matrix: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """An object (H, W) carried along by a map around ``centre``, by cubic splines; beyond its edge the edge's value."""
    back = np.linalg.inv(matrix)
    moved = affine_transform(image.astype(np.complex128), back, centre - back @ centre, order=3, mode="nearest")
    return moved.astype(image.dtype)


def fit_affine(nominal: np.ndarray, corrected: np.ndarray) -> AffineFit:
    """Least-squares affine map from nominal to corrected positions (M, 2)."""
    centre = nominal.mean(axis=0)
    design = np.concat([nominal - centre, np.ones((nominal.shape[0], 1))], axis=1)
    solution = np.linalg.lstsq(design, corrected - centre, rcond=None)[0]
    matrix, shift = solution[:2].T, solution[2]
    rotation = math.atan2(matrix[1, 0], matrix[0, 0])
    turn = np.asarray([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    upper = turn.T @ matrix
    rest = corrected - (design @ solution + centre)
    return AffineFit(
        matrix,
        shift,
        np.asarray([upper[0, 0], upper[1, 1]]),
        math.degrees(rotation),
        float(upper[0, 1] / upper[1, 1]) if upper[1, 1] else 0.0,
        float(np.sqrt((rest**2).sum(axis=-1).mean())),
    )
