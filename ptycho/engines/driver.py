"""The one loop around every engine: epochs, best state, recovery, checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config.deprecated import former_names_of
from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.engine import Engine
from ptycho.engines.propagator import make_propagator
from ptycho.engines.registry import configured
from ptycho.engines.state import State, load_state, save_state
from ptycho.errors import DataError, OutputError
from ptycho.observers import notify

__all__ = ["Callback", "check_settings", "solve"]

logger = logging.getLogger(__name__)

Callback = Callable[[int, int, Mapping[str, float]], None]
"""Told of (epochs done, all epochs, figures of the last one)."""

_DIVERGED = 2.0
_CLEARLY_WORSE = 1.3
"""What is met on the way differs with the batches: a whole-scan epoch meets the state before it."""
_RECOVERY_LIMIT = 6
"""Each halves the steps, so that they end at a sixty-fourth."""


def solve(
    scan: Scan,
    config: EngineConfig,
    state: State | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    every: float = 10.0,
    pattern_bytes: int | None = None,
    recover: bool = True,
) -> State:
    """Reconstruct object and probe of a scan.

    Parameters
    ----------
    scan : the measurement.
    config : the engine and its settings.
    state : where to start; None starts from a flat object and the scan's probe.
    callbacks : told of every epoch; observers among them receive the :class:`~ptycho.engines.state.State`.
    checkpoint : file that keeps the state during the work and at its end. If it is there, and of the same scan and
        settings, the work goes on from it, to the same result. The caller removes it when the result is saved.
    every : seconds between two checkpoints; the first follows the first epoch.
    pattern_bytes : bytes of amplitudes that are kept in memory; None for the engine's limit of 1 GiB. Those of a larger
        scan are read in every epoch.
    recover : keep a copy of the best state, to return to where an epoch diverges. False saves this memory.

    Returns
    -------
    State
        The last one, or the best where the last is clearly worse. Its history holds ``r_factor``, met during each
        epoch, and ``seconds``, since the start, after each.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field; DataError also where every step diverges.
    OutputError
        A checkpoint cannot be written; an earlier one is kept.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> state = ptycho.solve(scan, ptycho.EngineConfig(epochs=3))
    >>> len(state.history["r_factor"])
    3
    """
    kind, config = configured(config)
    from_state = state is not None
    label = "" if checkpoint is None else _label(scan, config, state)
    if checkpoint is not None and Path(checkpoint).is_file():
        state = load_state(checkpoint, label)
        logger.info("The work goes on after epoch %d.", state.epoch)
        if state.epoch >= config.epochs:
            return state
    elif state is not None:
        state = dataclasses.replace(state.copy(), epoch=0, history={}, auxiliary={})
    engine = kind(scan, config, state, **({} if pattern_bytes is None else {"pattern_bytes": pattern_bytes}))
    engine.from_state = from_state
    before = engine.history["seconds"][-1] if engine.history.get("seconds") else 0.0
    started, saved = time.perf_counter(), -math.inf
    best, kept, recoveries = _best_so_far(engine), engine.snapshot() if recover else {}, 0
    while engine.epoch < config.epochs:
        r_factor = engine.run_epoch(config.epochs)
        if recover and not r_factor < _DIVERGED * best:
            recoveries += 1
            _recover(engine, kept, r_factor, recoveries)
            continue
        now = time.perf_counter()
        _record(engine, r_factor=r_factor, seconds=before + now - started)
        for tell in callbacks:
            tell(engine.epoch, config.epochs, {"r_factor": r_factor})
            notify(tell, lambda: engine.export(auxiliary=False))
        if recover and (r_factor <= best or engine.epoch == 1):
            best, kept = min(best, r_factor), engine.snapshot()
        if checkpoint is not None and now - saved >= every and engine.epoch < config.epochs:
            save_state(engine.export(), checkpoint, label)
            saved = time.perf_counter()
    if recover and engine.history["r_factor"][-1] > _CLEARLY_WORSE * best:
        logger.warning("The last epoch is worse than the best (R %.4f): the best state is kept.", best)
        engine.restore(kept)
    done = engine.export(copy=False)
    if checkpoint is not None:
        try:
            save_state(done, checkpoint, label)
        except OutputError as error:  # the result itself may still find room
            logger.warning("%s", error)
    return done


def check_settings(scan: Scan, config: EngineConfig) -> None:
    """Refuse what :func:`solve` would refuse of the settings of a scan, before a start for it is there.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    kind, config = configured(config)
    slices = config.slices or 1
    kind.check(config, slices)
    make_propagator(scan, config, np.asarray, slices, config.slice_spacing)


def _best_so_far(engine: Engine) -> float:
    return min(engine.history.get("r_factor", []), default=math.inf)


def _record(engine: Engine, **figures: float) -> None:
    for name, value in figures.items():
        engine.history.setdefault(name, []).append(value)


def _recover(engine: Engine, kept: dict[str, Any], r_factor: float, recoveries: int) -> None:
    """Go back to the best state with shorter steps."""
    if recoveries > _RECOVERY_LIMIT:
        raise DataError(
            f"The reconstruction diverges (R {r_factor:.3g}) even with steps of {engine.step:g}; expected patterns, "
            "positions and a probe that belong together: 'ptycho doctor' says what may be wrong."
        )
    engine.restore(kept)
    engine.step /= 2
    logger.warning(
        "Epoch %d diverges (R %.3g): back to the best state, steps times %g.", engine.epoch, r_factor, engine.step
    )


def _label(scan: Scan, config: EngineConfig, state: State | None) -> str:
    digest = hashlib.sha256(scan.fingerprint().encode())
    names = {new: old for old, new in former_names_of(type(config)).items()}  # as version 0.1 wrote them
    settings = {names.get(name, name): value for name, value in dataclasses.asdict(config).items()}
    digest.update(repr(sorted(settings.items())).encode())
    if state is not None:
        digest.update(state.object.tobytes() + state.probe.tobytes() + state.positions.tobytes())
    return digest.hexdigest()
