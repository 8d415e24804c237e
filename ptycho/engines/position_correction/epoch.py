"""What an epoch does to the positions: steps after every batch, and at its end momentum, the common map and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ptycho.backends import Array, array_namespace, device, get_backend, to_numpy
from ptycho.config.engines import EngineSettings
from ptycho.engines.exit_waves import SliceUpdate
from ptycho.engines.object_canvas import ObjectCanvas
from ptycho.engines.position_correction.affine import common_map, fit_affine, mapped_image, mapped_positions
from ptycho.engines.position_correction.outliers import find_outliers, search_outliers
from ptycho.engines.position_correction.steps import fitted_steps, limited, registered_steps, slope_products

__all__ = ["PositionCorrection", "constrain_positions", "farthest_move"]

_EPOCHS_PER_SEARCH = 5
"""Epochs of corrections between two searches for outliers, in which a position that was moved can settle."""

Misfits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From pattern indices (k,), or one (1,) for all, and positions (k, 2) to relative misfits (k,)."""


class PositionCorrection:
    """Collects what the patterns of an epoch require of their positions; positions are pixels of the canvas.

    Parameters
    ----------
    config : of the engine.
    nominal : (M, 2) pixels, the positions before any correction.
    size : N.
    """

    def __init__(self, config: EngineSettings, nominal: np.ndarray, size: int) -> None:
        self._config, self._nominal = config, nominal
        self._farthest = farthest_move(config, nominal, size)
        self._steps: list[tuple[np.ndarray, np.ndarray]] = []
        self._products: list[Array] | None = None

    def add(self, index: np.ndarray, slices: Sequence[SliceUpdate]) -> None:
        """Take note of what some patterns require."""
        xp = array_namespace(slices[0].exit_change)
        products = slope_products(slices)
        if self._config.correct_positions == "gradient":
            sums = [np.asarray(to_numpy(xp.sum(each, axis=(-2, -1))), dtype=np.float64) for each in products]
            steps = fitted_steps(*sums)
        else:
            steps = registered_steps(*slices[0])
        self._steps.append((index, limited(steps)))
        totals = [xp.sum(each, axis=0) for each in products]
        earlier = self._products
        self._products = totals if earlier is None else [a + b for a, b in zip(earlier, totals, strict=True)]

    def apply(self, positions: np.ndarray, length: float) -> np.ndarray:
        """Positions (M, 2) after the steps since the last call, times ``length``."""
        moved = positions.copy()
        for index, steps in self._steps:
            moved[index] += steps * length
        self._steps = []
        return moved

    def common_map(self) -> np.ndarray:
        """The map (2, 2) around the mean position that patterns since the last call require; 1 without any."""
        if self._products is None:
            return np.eye(2)
        products = [np.asarray(to_numpy(each), dtype=np.float64) for each in self._products]
        self._products = None
        return common_map(products)

    def end_epoch(
        self,
        positions: np.ndarray,
        before: np.ndarray,
        velocity: np.ndarray | None,
        canvas: ObjectCanvas,
        epoch: int,
        misfits: Misfits,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocity (M, 2) at the end of an epoch; the object on the canvas takes part in the common map.

        Parameters
        ----------
        positions, before : (M, 2) after and before the epoch's steps.
        velocity : (M, 2) of the epoch before; None in the first one.
        epoch : epochs done before this one.
        misfits : how well patterns fit where, once the canvas is mapped.
        """
        momentum = self._config.position_momentum
        change = positions - before if velocity is None else positions - before + momentum * velocity
        moved = positions + momentum * change
        matrix = self.common_map()
        for each in canvas.slices:
            image = mapped_image(to_numpy(each.object), matrix, moved.mean(axis=0))
            each.object = get_backend(each.object).asarray(image, device=device(each.object))
        moved = mapped_positions(moved, matrix)
        moved = constrain_positions(moved, self._nominal, self._farthest, self._config.affine)
        if (epoch - self._config.positions_from + 1) % _EPOCHS_PER_SEARCH == 0 and not self._config.affine:
            outliers = find_outliers(misfits(np.arange(len(moved)), moved))
            moved = search_outliers(
                outliers, moved, self._nominal, self._farthest, lambda k, places: misfits(np.asarray([k]), places)
            )
        return moved, change


def farthest_move(config: EngineSettings, nominal: np.ndarray, size: int) -> float:
    """How far a position may move, pixels, for nominal positions (M, 2) and patterns of side ``size``."""
    if config.position_limit is not None:
        return config.position_limit
    return size / 8 + float(np.max(nominal.max(axis=0) - nominal.min(axis=0))) / 50


def constrain_positions(positions: np.ndarray, nominal: np.ndarray, farthest: float, affine: bool) -> np.ndarray:
    """Corrected positions (M, 2) without a common shift, if wanted affine, and none farther than ``farthest``."""
    moved = positions - nominal
    moved = moved - moved.mean(axis=0)
    if affine:
        fit = fit_affine(nominal, nominal + moved)
        moved = fit(nominal, nominal.mean(axis=0)) - nominal
    length = np.linalg.norm(moved, axis=-1, keepdims=True)
    return nominal + moved * np.minimum(1.0, farthest / np.maximum(length, 1e-30))
