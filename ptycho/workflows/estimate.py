"""The object and probe from which a network starts: a few iterations of the rpie engine over the scan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ptycho.config import EngineConfig
from ptycho.data import Scan
from ptycho.data.lazy import in_memory
from ptycho.engines import State, solve
from ptycho.observers import Progress, notify
from ptycho.physics.probe import scale_probe_to_counts

__all__ = ["Estimate", "scan_estimate"]

logger = logging.getLogger(__name__)

_PROBE_STEP = 0.5
"""Half steps of a probe whose object is still far away; with whole ones it takes up the object's errors."""
_FULL_BATCH_EPOCHS = 2
"""Of few epochs all in all: the network corrects what noise they leave."""


class Estimate(NamedTuple):
    """What an engine makes of a scan before the network corrects it."""

    object: np.ndarray
    """(H, W) complex64, dimensionless."""
    weight: np.ndarray
    """(H, W) float32, the summed probe intensity."""
    origin: tuple[float, float]
    """Position (row, col) of pixel [0, 0]."""
    probe: np.ndarray
    """(P, N, N) complex64, sqrt(photons) of the model; refined where that was wanted."""


def scan_estimate(
    scan: Scan,
    probe: np.ndarray,
    nphotons: float,
    iterations: int,
    brightness: float | None = None,
    refine_probe: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """The object that the rpie engine makes of a scan, in the model's units.

    Parameters
    ----------
    scan : the measurement.
    probe : (P, N, N) complex; in sqrt(photons) of the model where ``brightness`` is None, else its power follows from
        that.
    nphotons : mean photons per pattern in the model's units.
    iterations : epochs of the engine, from an object of one value; its last ones take the whole scan at once.
    brightness : power of the beam over the mean power of a pattern.
    refine_probe : update the probe too, from the second epoch on.
    seed : of the order in which patterns are taken.
    progress : called after every epoch; an observer receives the :class:`Estimate` so far.

    Raises
    ------
    DataError
        No pattern holds light, or scan and probe do not belong together.
    """
    if brightness is not None:
        probe = scale_probe_to_counts(probe, brightness * nphotons)
    units = float(np.sqrt(nphotons / scan.mean_total_counts()))
    config = EngineConfig(
        engine="rpie",
        epochs=iterations,
        full_batch_epochs=_FULL_BATCH_EPOCHS,
        probe_step=_PROBE_STEP if refine_probe else 0.0,
        probe_from=1,
        rescale_probe=False,
        seed=seed,
    )
    state = solve(
        scan.replace(probe=np.asarray(probe / units, dtype=np.complex64)),
        config,
        callbacks=() if progress is None else (_Epochs(progress, units),),
        pattern_bytes=None if in_memory(scan.patterns) else 0,
        recover=False,
    )
    return _in_units(state, units, None if refine_probe else probe)


def _in_units(state: State, units: float, probe: np.ndarray | None = None) -> Estimate:
    """A state with its probe in the model's units; a probe that was kept is returned as it was given."""
    modes = np.asarray(state.probe * units if probe is None else probe, dtype=np.complex64)
    weight = state.weight
    weight *= np.float32(units**2)
    return Estimate(state.object, weight, state.origin, modes)


class _Epochs:
    """Passes an engine's epochs on to a callback that counts them, and may observe the estimate."""

    def __init__(self, progress: Any, units: float) -> None:
        self._progress, self._units = progress, units

    def __call__(self, epoch: int, epochs: int, metrics: Any) -> None:
        self._progress(epoch, epochs)

    def observe(self, make_snapshot: Callable[[], State]) -> None:
        """See :class:`~ptycho.observers.Observer`."""
        notify(self._progress, lambda: _in_units(make_snapshot(), self._units))
