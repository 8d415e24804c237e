"""What an iterative reconstruction or a refinement will take, from a short trial of its engine.

The trial reconstructs two samples of the scan, one twice the other, on the whole scan's canvas. What they differ by is
the time of a pattern; the remainder is that of an epoch on a canvas of this size, however many patterns there are.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from ptycho.config import EngineConfig, validate
from ptycho.data import Scan
from ptycho.engines import State, check_settings, predictor, solve
from ptycho.engines.detector_data import PATTERN_BYTES
from ptycho.physics import canvas_for
from ptycho.physics.probe_from_data import probe_from_patterns
from ptycho.workflows.forecast import Forecast, add_saving, is_kept, reading_seconds
from ptycho.workflows.r_factor import scan_r_factor
from ptycho.workflows.run import true_object

__all__ = ["add_refinement", "forecast_engine"]

_SAMPLE = 128
"""Patterns of the smaller sample; few enough for seconds on a processor."""
_EPOCHS = 3
"""Epochs of one kind in a trial: the first also compiles, and the median of the others is taken."""
_STARTS = {"probe_from": "probe_step", "positions_from": "correct_positions", "opr_from": "opr_modes"}
"""Settings that say from which epoch on more is done, and the setting without which that is never done."""


@dataclasses.dataclass
class _Cost:
    """Seconds of an epoch: of every pattern, and whatever their number."""

    pattern: float
    fixed: float

    def of(self, patterns: int) -> float:
        return self.fixed + self.pattern * patterns


def forecast_engine(
    scan: Scan, config: EngineConfig, *, start: State | None = None, frc: bool = False, opening: float = 0.0
) -> Forecast:
    """What an engine takes, until its result is saved.

    Parameters
    ----------
    scan, config : as for :func:`ptycho.engines.solve`.
    start : the state that is refined; None reconstructs from a flat object.
    frc : with the two halves of the scan, unless its true object is known.
    opening : seconds that the command took to open the scan.

    Raises
    ------
    ConfigError, DataError, BackendError
        The work is not possible; found out before it starts.
    """
    validate(config)
    check_settings(scan, config)
    frc = frc and true_object(scan) is None
    (height, width), _ = canvas_for(scan.positions, scan.N)
    began = time.perf_counter()
    sample, larger = (_spread(scan, size) for size in (_SAMPLE, 2 * _SAMPLE))
    trials = _trials(config, start is not None)
    costs = [_measured(scan, [sample, larger], trial, start) for trial, _ in trials]
    trial_seconds = time.perf_counter() - began
    found = Forecast(
        {
            "patterns": f"{len(scan)} of {scan.N} x {scan.N}, {scan.measurement}",
            "object": f"{height} x {width} pixels",
            "epochs": f"{config.epochs} of {config.engine}",
        }
    )
    reading = 0.0 if is_kept(scan) or _amplitude_bytes(scan, config) else reading_seconds(scan) * len(scan)
    epochs = sum(count * (cost.of(len(scan)) + reading) for cost, (_, count) in zip(costs, trials, strict=True))
    found.seconds["start"] = opening + min(trial_seconds, _first_seconds(trials, costs, len(larger), trial_seconds))
    found.seconds[config.engine] = epochs
    if frc:
        found.seconds["halves"] = epochs
    state = solve(scan.subset(larger), dataclasses.replace(config, epochs=1), _part(start, larger))
    placed = _Placed(state.projection, state.weight, state.origin)
    seen, predict = scan.subset(larger), predictor(state, scan.subset(larger), config)
    judged = time.perf_counter()
    scan_r_factor(placed, state.probe, seen, predict=predict)
    judged = (time.perf_counter() - judged) / len(larger)
    found.seconds["figures"] = (judged + 2 * reading_seconds(scan)) * len(scan)
    add_saving(found, scan, state.probe, config, frc)
    found.memory += _pattern_bytes(state, scan, config, len(larger))
    return found


def add_refinement(found: Forecast, scan: Scan, config: EngineConfig, probe: np.ndarray, frc: bool) -> None:
    """Add to the forecast of a network's result what its refinement takes."""
    image, origin = canvas_for(scan.positions, scan.N)
    start = State(np.ones(image, np.complex128), origin, probe, scan.positions, scan.positions)
    more = forecast_engine(scan, config, start=start, frc=frc)
    found.facts["refinement"] = more.facts["epochs"]
    found.memory = max(found.memory, more.memory)
    found.disk += more.disk  # the network's result is kept beside the refined one
    for name, value in more.seconds.items():
        found.seconds[name] = found.seconds.get(name, 0.0) + value


def trial_probe(scan: Scan) -> np.ndarray:
    """The scan's probe, or one estimated from its patterns, (P, N, N)."""
    if scan.probe is not None:
        return scan.probe
    return probe_from_patterns(scan.patterns, measurement=scan.measurement, mask=scan.mask)[None]


@dataclasses.dataclass
class _Placed:
    object: Any
    weight: Any
    origin: tuple[float, float]


def _spread(scan: Scan, size: int) -> np.ndarray:
    """Numbers of patterns spread over the field, its outermost ones among them, so that the canvas is the whole."""
    if size >= len(scan):
        return np.arange(len(scan))
    outermost = [pick(scan.positions[:, axis]) for pick in (np.argmin, np.argmax) for axis in (0, 1)]
    drawn = np.random.default_rng(0).choice(len(scan), size, replace=False)
    return np.unique(np.concatenate([drawn, outermost]))


def _trials(config: EngineConfig, refining: bool) -> list[tuple[EngineConfig, int]]:
    """Configurations whose last epochs are like those of the work, and how many epochs of the work each stands for."""
    most = config.epochs if refining else config.epochs // 3
    averaging = min(config.full_batch_epochs, most) if config.engine in ("rpie", "epie", "lsqml") else 0
    plain = config.epochs - averaging
    starts = {
        name: getattr(config, name) for name, needs in _STARTS.items() if getattr(config, needs) not in (0, "none")
    }
    changes = sorted({value for value in starts.values() if 0 < value < plain})
    found = []
    for first, end in zip([0, *changes], [*changes, plain], strict=True):
        begun: dict[str, Any] = {name: 0 if value <= first else config.epochs for name, value in starts.items()}
        if end > first:
            found.append((dataclasses.replace(config, epochs=_EPOCHS, full_batch_epochs=0, **begun), end - first))
    if averaging:
        begun = {name: 0 if value < config.epochs else config.epochs for name, value in starts.items()}
        trial = dataclasses.replace(config, epochs=3 * _EPOCHS, full_batch_epochs=_EPOCHS, **begun)
        found.append((trial, averaging))
    return found


def _measured(scan: Scan, samples: list[np.ndarray], config: EngineConfig, start: State | None) -> _Cost:
    """The cost of an epoch like the last ones of a trial."""
    seconds = []
    for index in samples:
        state = solve(scan.subset(index), config, _part(start, index))
        ends = np.diff(state.history["seconds"])
        seconds.append(float(np.median(ends[-(_EPOCHS - 1) :])))
    fewer, more = (len(index) for index in samples)
    if fewer == more:
        return _Cost(0.0, float(np.mean(seconds)))
    pattern = min(max((seconds[1] - seconds[0]) / (more - fewer), 0.0), seconds[1] / more)
    return _Cost(pattern, seconds[1] - pattern * more)


def _first_seconds(trials: list[Any], costs: list[_Cost], patterns: int, spent: float) -> float:
    """Seconds of the trials that are no epochs: compiling, reading, allocating."""
    epochs = sum(2 * trial.epochs * cost.of(patterns) for cost, (trial, _) in zip(costs, trials, strict=True))
    return max(0.0, spent - epochs) / (2 * len(trials))


def _part(start: State | None, index: np.ndarray) -> State | None:
    """The start of some of the patterns."""
    if start is None:
        return None
    weights = None if start.weights is None else start.weights[index]
    return dataclasses.replace(start, positions=start.positions[index], nominal=start.nominal[index], weights=weights)


def _amplitude_bytes(scan: Scan, config: EngineConfig) -> int:
    """Bytes of the amplitudes that the engine keeps; 0 where they are too many."""
    size = len(scan) * scan.N**2 * (8 if config.double else 4)
    return size if size <= PATTERN_BYTES else 0


def _pattern_bytes(state: State, scan: Scan, config: EngineConfig, trial: int) -> int:
    """Bytes that grow with the patterns beyond those of the trial: amplitudes, and what the engine keeps of each."""
    more = len(scan) - trial
    each = _amplitude_bytes(scan, config) / len(scan)
    for values in state.auxiliary.values():
        if values.shape[:1] == (trial,):
            each += 3 * values.nbytes / trial  # at work, kept for recovery, exported
    return math.ceil(more * each)
