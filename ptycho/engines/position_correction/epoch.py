"""The end of an epoch that corrects positions: momentum, the map that all have in common, limits, outliers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ptycho.backends import NumpyBackend
from ptycho.engines.exit_waves import pattern_misfits
from ptycho.engines.position_correction.affine import mapped_image, mapped_positions
from ptycho.engines.position_correction.outliers import find_outliers, search_outliers
from ptycho.engines.position_correction.steps import constrain_positions, farthest_move

if TYPE_CHECKING:
    from ptycho.engines.engine import Engine

__all__ = ["relative_misfits", "settle_positions"]

_host = NumpyBackend.xp
_SEARCH_EVERY = 5
"""Epochs of corrections between two looks for positions that went astray."""


def settle_positions(engine: Engine, before: np.ndarray) -> None:
    """Carry the epoch's corrections on, and keep the positions within their limits.

    Parameters
    ----------
    engine : after the visit of all patterns.
    before : (M, 2) pixels, the positions before it.
    """
    config, fetch = engine.config, engine.backend.to_numpy
    change = engine.positions - before
    if "position_velocity" in engine.auxiliary:
        change = change + config.position_momentum * fetch(engine.auxiliary["position_velocity"])
    engine.auxiliary["position_velocity"] = engine.to_device(change)
    moved = engine.positions + config.position_momentum * change
    common = engine.moves.common()
    for image in engine.canvas.slices:
        image.object = engine.to_device(mapped_image(fetch(image.object), common, moved.mean(axis=0)))
    moved = mapped_positions(moved, common)
    nominal = engine.nominal - _host.asarray(engine.origin)
    farthest = farthest_move(config, nominal, engine.measured.size)
    moved = constrain_positions(moved, nominal, farthest, config.affine)
    if (engine.epoch - config.positions_from + 1) % _SEARCH_EVERY == 0 and not config.affine:
        outliers = find_outliers(relative_misfits(engine, moved))
        moved = search_outliers(outliers, moved, nominal, farthest, lambda k, places: _misfits_at(engine, k, places))
    engine.positions = moved


def relative_misfits(engine: Engine, positions: np.ndarray) -> np.ndarray:
    """Misfit (M,) of every pattern over its amplitudes; NaN where nothing was measured."""
    found = _host.full(engine.measured.count, math.nan)
    for part in engine.chunks(engine.measured.usable):
        measured = engine.measured(part)
        patches = engine.canvas.patches(positions[part], engine.measured.size)
        away = pattern_misfits(patches, engine.probes(part), measured, engine.measured.good, engine.detector)
        found[part] = engine.backend.to_numpy(away / engine.backend.xp.sum(measured, axis=(-2, -1)))
    return found


def _misfits_at(engine: Engine, index: int, places: np.ndarray) -> np.ndarray:
    """Misfits (k,) of one pattern at places (k, 2)."""
    one, found = _host.asarray([index]), []
    measured, probe = engine.measured(one), engine.probes(one)
    for part in engine.chunks(_host.arange(places.shape[0])):
        patches = engine.canvas.patches(places[part], engine.measured.size)
        misfits = pattern_misfits(patches, probe, measured, engine.measured.good, engine.detector)
        found.append(engine.backend.to_numpy(misfits))
    return _host.concat(found)
