"""What all engines share: the scan, the object's canvas, probe and positions on one backend, and the frame of an epoch.

An engine is one file: a subclass of :class:`Engine` that says in :meth:`Engine.visit` what one pass over the patterns
changes, with a dataclass of its own settings where it has any, registered in the entry-point group ``ptycho.engines``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from ptycho.backends import Array, get_backend, resolve_device
from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.batches import make_batches
from ptycho.engines.constraints import constrain_object, constrain_probe
from ptycho.engines.detector_data import PATTERN_BYTES, DetectorData
from ptycho.engines.exit_waves import ExitWaveChange, exit_wave_change, pattern_misfits
from ptycho.engines.object_canvas import make_canvas
from ptycho.engines.opr import probes_of
from ptycho.engines.position_correction import PositionCorrection
from ptycho.engines.propagator import make_propagator
from ptycho.engines.start import starting_state
from ptycho.engines.state import State
from ptycho.errors import ConfigError
from ptycho.physics.propagation import intensity

__all__ = ["Engine"]

_CHUNK_PIXELS = 2**17
"""Pixels of exit waves that are worked on at once: what fits a processor's cache."""


class Engine:
    """An iterative solver. A subclass says what an epoch does; everything else is here.

    Parameters
    ----------
    scan : the measurement.
    config : validated settings, of the class :attr:`settings`.
    state : where to start; None starts from an object of one value and the scan's probe.
    pattern_bytes : amplitudes that are kept; those of a larger scan are read in every epoch.

    Attributes
    ----------
    canvas : :class:`~ptycho.engines.object_canvas.ObjectCanvas`, the object.
    probe : (P, N, N) complex of the backend, in the unit of :attr:`data`.
    positions : (M, 2) float64 of the host, pixels of the canvas.
    data : :class:`~ptycho.engines.detector_data.DetectorData`, the measured amplitudes.
    propagator : from behind the object to the detector and back.
    epoch : epochs done.
    step : length of all updates; below 1 after a divergence.
    auxiliary : arrays of the backend that the engine carries from epoch to epoch, by name; saved with the state.

    Raises
    ------
    DataError
        Scan, probe and object do not belong together.
    BackendError
        The backend is not there, or lacks what the engine needs.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> from ptycho.engines.pie import RPIE
    >>> issubclass(RPIE, ptycho.Engine)
    True
    """

    settings: ClassVar[type[EngineConfig]] = EngineConfig
    """The engine's settings: EngineConfig, or a dataclass derived from it with the engine's own fields."""
    default_batch: ClassVar[int] = 16
    default_backend: ClassVar[str] = "numpy"
    can_slice: ClassVar[bool] = True
    can_vary_probe: ClassVar[bool] = False
    from_state = False
    """Whether a state was given to start from: then there is little left to learn but noise to average."""

    def __init__(
        self, scan: Scan, config: EngineConfig, state: State | None = None, *, pattern_bytes: int = PATTERN_BYTES
    ) -> None:
        self.config = config
        self.backend = get_backend(config.backend or self.default_backend)
        self._device = resolve_device(self.backend, config.device)
        self._real, self._complex = ("float64", "complex128") if config.double else ("float32", "complex64")
        self.data = DetectorData(scan, self.backend, self._device, self._real, pattern_bytes)
        begin = starting_state(scan, config, self.data, state)
        self._origin, self._nominal = begin.origin, begin.nominal
        self.history = {name: list(values) for name, values in begin.history.items()}
        self.epoch, self.step = begin.epoch, 1.0
        image = self.backend.asarray(begin.object, dtype=self._complex, device=self._device)  # nobody else's: no copy
        self.canvas = make_canvas(image, scan.N, self._real, config.interpolation)
        count = len(self.canvas.slices)
        self._spacing = (config.slice_spacing or begin.spacing) if count > 1 else None
        self.probe = self.to_device(begin.probe * self.data.unit)
        self._power = float(self.backend.xp.sum(intensity(self.probe)))
        self.positions = begin.positions - np.asarray(begin.origin)
        self.auxiliary: dict[str, Array] = {name: self.to_device(values) for name, values in begin.auxiliary.items()}
        if begin.components is not None and begin.weights is not None and len(begin.components) == config.opr_modes:
            components = self.to_device(begin.components * self.data.unit)
            self.auxiliary |= {"components": components, "weights": self.to_device(begin.weights)}
        self.check(config, count)
        self.propagator = make_propagator(scan, config, self.to_device, count, self._spacing)
        nominal = begin.nominal - np.asarray(begin.origin)
        self.position_correction = PositionCorrection(config, nominal, self.data.size)
        self._exit_wave_change = {wanted: self._compiled(wanted) for wanted in (False, True)}
        self._residual: Any = None
        self._measured: Any = None
        self._total = math.nan

    @classmethod
    def chosen(cls, config: EngineConfig) -> type[Engine]:
        """The engine for some settings; another class where one entry point stands for several."""
        return cls

    @classmethod
    def check(cls, config: EngineConfig, count: int) -> None:
        """Refuse settings that this engine cannot follow, with an object of ``count`` slices."""
        if config.opr_modes and not cls.can_vary_probe:
            raise ConfigError(
                f"opr_modes = {config.opr_modes} is for rpie, epie and lsqml: set it to 0, or take another engine."
            )
        if count == 1 and config.slice_spacing is not None:
            raise ConfigError(f"slice_spacing = {config.slice_spacing:g} needs slices: set slices to 2 or more too.")
        if count > 1 and not cls.can_slice:
            raise ConfigError(f"slices = {count} is for rpie, epie, lsqml and gradient: take another engine.")
        if count > 1 and config.correct_positions == "correlation":
            raise ConfigError(
                f"correct_positions = correlation compares flat patches and not slices = {count}: take gradient."
            )

    def visit(self, last: int) -> None:
        """Go over the patterns once: change object and probe, and report residuals to :meth:`add_residual`.

        Parameters
        ----------
        last : number of the epoch at which the reconstruction ends.
        """
        raise TypeError(f"{type(self).__name__} has no epoch of its own.")

    def run_epoch(self, last: int) -> float:
        """Visit every pattern once and return the R-factor met on the way; ``last`` as for :meth:`visit`."""
        momentum = self.config.momentum
        before = None if momentum == 0 else self._copy(self.canvas.object)
        positions = self.positions
        self._residual = self._measured = None
        self.visit(last)
        if before is not None:
            change = self.canvas.object - before
            if "velocity" in self.auxiliary:
                change = change + momentum * self.auxiliary["velocity"]
            self.auxiliary["velocity"] = change
            self.canvas.object = self.canvas.object + momentum * change
        for each in self.canvas.slices:
            each.object = constrain_object(each.object, self.config)
        self.probe = constrain_probe(self.probe, self.config, self._power, self.backend)
        if self.correcting_positions:
            self._correct_positions(positions)
        self.epoch += 1
        if math.isnan(self._total):
            self._total = float(self._measured)
        return float(self._residual) / self._total

    def add_residual(self, residual: Array, measured: Array) -> None:
        """Add the sum of absolute differences, 0-d, of patterns with measured amplitudes (k, N, N)."""
        self._residual = residual if self._residual is None else self._residual + residual
        if math.isnan(self._total):  # every epoch sees the same patterns
            total = self.backend.xp.sum(measured)
            self._measured = total if self._measured is None else self._measured + total

    @property
    def correcting_positions(self) -> bool:
        """Whether positions are corrected in this epoch."""
        return self.config.correct_positions != "none" and self.epoch >= self.config.positions_from

    @property
    def correcting_probe(self) -> bool:
        """Whether the probe is updated in this epoch."""
        return self.config.probe_step > 0 and self.epoch >= self.config.probe_from

    def exit_wave_change(self, patches: Array, probe: Array, measured: Array) -> ExitWaveChange:
        """What some patterns require, for their positions too where these are corrected.

        Parameters
        ----------
        patches, probe, measured : as of :func:`~ptycho.engines.exit_waves.exit_wave_change`.
        """
        return self._exit_wave_change[self.correcting_positions](patches, probe, measured)

    def patches(self, index: np.ndarray) -> Array:
        """Patches (k, N, N) of the object at the positions of some patterns; (S, k, N, N) of more than one slice."""
        return self.canvas.patches(self.positions[index], self.data.size)

    def probes(self, index: np.ndarray) -> Array:
        """The probes of some patterns: (P, N, N) where all are lit alike, else (k, P, N, N)."""
        if "components" not in self.auxiliary:
            return self.probe
        weights = self.backend.to_numpy(self.auxiliary["weights"])[index]
        return probes_of(self.probe, self.auxiliary["components"], self.to_device(weights))

    def relative_misfits(self, index: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Misfits of patterns (k,) at positions (k, 2), over their amplitudes; NaN where nothing was measured.

        Parameters
        ----------
        index : (k,), or (1,) for one pattern at all positions.
        positions : pixels of the canvas.
        """
        found = np.full(len(positions), math.nan)
        usable = np.isin(np.broadcast_to(index, found.shape), self.data.usable)
        for part in self.split(np.flatnonzero(usable)):
            patterns = index if index.size == 1 else index[part]
            measured, patches = self.data(patterns), self.canvas.patches(positions[part], self.data.size)
            misfits = pattern_misfits(patches, self.probes(patterns), measured, self.data.good, self.propagator)
            found[part] = self.backend.to_numpy(misfits / self.backend.xp.sum(measured, axis=(-2, -1)))
        return found

    def batches(self, size: int | None = None) -> Iterator[np.ndarray]:
        """Indices of the patterns of each update of this epoch; the seed and the epoch's number decide."""
        rng = np.random.default_rng([self.config.seed, self.epoch])
        usable, kind = self.data.usable, self.config.batches
        wanted = size or self.config.engine_batch_size or self.default_batch
        if wanted >= usable.size:
            return iter([usable])
        if kind == "random" and (batches := self.data.random_batches(wanted, rng)) is not None:
            return batches
        return self.data.prefetched(usable[part] for part in make_batches(kind, self.positions[usable], wanted, rng))

    def chunks(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Parts of a batch that are worked on at once, in the order in which they are read."""
        pools = self.data.pools(index)
        for pool in pools if len(pools) == 1 else self.data.prefetched(pools):
            yield from self.split(pool)

    def split(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Parts of some patterns of which the exit waves fit a processor's cache."""
        at_once = max(1, _CHUNK_PIXELS // math.prod(self.probe.shape))
        return (index[first : first + at_once] for first in range(0, index.size, at_once))

    def to_device(self, values: np.ndarray) -> Array:
        """A host array on the backend, in the engine's precision."""
        dtype = {"c": self._complex, "f": self._real}.get(np.asarray(values).dtype.kind)
        return self.backend.asarray(np.array(values), dtype=dtype, device=self._device)

    def export(self, auxiliary: bool = True, copy: bool = True) -> State:
        """What is known now, on the host; without the auxiliary arrays for observers, without a copy at the end."""
        kept = self.auxiliary if auxiliary else {}
        numbers = {name: self.backend.to_numpy(values) for name, values in kept.items()}
        components = numbers.pop("components", None)
        return State(
            object=np.array(self.backend.to_numpy(self.canvas.object), copy=True if copy else None),
            origin=self._origin,
            probe=self.backend.to_numpy(self.probe) / self.data.unit,
            positions=self.positions + np.asarray(self._origin),
            nominal=self._nominal,
            epoch=self.epoch,
            history={name: list(values) for name, values in self.history.items()},
            spacing=self._spacing,
            propagation=self.config.propagation,
            interpolation=self.config.interpolation,
            components=None if components is None else components / self.data.unit,
            weights=numbers.pop("weights", None),
            auxiliary=numbers,
        )

    def snapshot(self) -> dict[str, Any]:
        """What :meth:`restore` needs to return here."""
        return {
            "object": self._copy(self.canvas.object),
            "probe": self._copy(self.probe),
            "positions": self.positions,
            "auxiliary": {name: self._copy(values) for name, values in self.auxiliary.items()},
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Return to where :meth:`snapshot` was called, but for the number of epochs done."""
        self.canvas.object, self.probe = self._copy(kept["object"]), self._copy(kept["probe"])
        self.positions = kept["positions"]
        self.auxiliary = {name: self._copy(values) for name, values in kept["auxiliary"].items()}

    def _compiled(self, for_positions: bool) -> Callable[[Array, Array, Array], ExitWaveChange]:
        good, noise, photon = self.data.good, self.config.noise, self.data.unit**2
        return self.backend.jit(
            lambda patches, probe, measured: exit_wave_change(
                patches, probe, measured, good, noise, photon, self.propagator, for_positions
            )
        )

    def _correct_positions(self, before: np.ndarray) -> None:
        """End an epoch whose steps led from the positions ``before`` to the present ones."""
        velocity = self.auxiliary.get("position_velocity")
        self.positions, change = self.position_correction.end_epoch(
            self.positions,
            before,
            None if velocity is None else self.backend.to_numpy(velocity),
            self.canvas,
            self.epoch,
            self.relative_misfits,
        )
        self.auxiliary["position_velocity"] = self.to_device(change)

    def _copy(self, values: Array) -> Array:
        return self.backend.xp.asarray(values, copy=True)
