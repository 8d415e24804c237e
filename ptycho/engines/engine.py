"""What all engines share: the scan, the object's canvas, probe and positions on one backend, the turn of an epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ptycho.backends import Array, NumpyBackend, get_backend
from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.batches import make_batches
from ptycho.engines.constraints import constrain_object, constrain_probe
from ptycho.engines.detector_data import DetectorData
from ptycho.engines.exit_waves import ExitWaveChange, exit_wave_change
from ptycho.engines.object_canvas import make_canvas, slices_of
from ptycho.engines.opr import probes_of
from ptycho.engines.position_correction.affine import Moves
from ptycho.engines.position_correction.epoch import settle_positions
from ptycho.engines.position_correction.steps import farthest_move
from ptycho.engines.propagator import propagator
from ptycho.engines.state import State, place_on_canvas, resliced
from ptycho.errors import ConfigError, DataError
from ptycho.physics.modes import probe_modes
from ptycho.physics.probe_from_data import probe_from_patterns
from ptycho.physics.propagation import intensity

__all__ = ["Engine"]

logger = logging.getLogger(__name__)
_host = NumpyBackend.xp
_CHUNK_PIXELS = 2**17
"""Pixels of exit waves that are worked on at once: what fits a processor's cache."""


class Engine:
    """An iterative solver. A subclass says what an epoch does; everything else is here.

    Parameters
    ----------
    scan : the measurement.
    config : validated settings.
    state : where to start; None starts from a flat object and the scan's probe.

    Attributes
    ----------
    canvas : the object.
    probe : (P, N, N) complex of the backend, in the unit of :class:`~ptycho.engines.detector_data.DetectorData`.
    positions : (M, 2) float64 of the host, pixels of the canvas.
    epoch : epochs done.

    Raises
    ------
    DataError
        Scan, probe and object do not belong together.
    BackendError
        The backend is not there, or lacks what the engine needs.
    """

    default_batch = 16
    can_vary_probe = False
    from_state = False
    """Whether the work began from a state that was given, which has little left to learn but noise to average."""
    can_slice = True
    default_backend = "numpy"

    def __init__(self, scan: Scan, config: EngineConfig, state: State | None = None) -> None:
        self.config = config
        self.backend = get_backend(config.backend or self.default_backend)
        self.device = self.backend.best_device() if config.device == "auto" else config.device
        self.real, self.complex = ("float64", "complex128") if config.double else ("float32", "complex64")
        self.measured = DetectorData(scan, self.backend, self.device, self.real)
        state = self._first_state(scan) if state is None else self._adopted(scan, state)
        self.origin, self.nominal = state.origin, state.nominal
        self.history = {name: list(values) for name, values in state.history.items()}
        self.epoch = state.epoch
        self.canvas = make_canvas(self.to_device(state.object), scan.N, self.real, config.interpolation)
        self.spacing = (config.slice_spacing or state.spacing) if len(self.canvas.slices) > 1 else None
        self.probe = self.to_device(state.probe * self.measured.unit)
        self.positions = state.positions - _host.asarray(state.origin)
        self.power = self.probe_power()
        self.auxiliary: dict[str, Array] = {name: self.to_device(values) for name, values in state.auxiliary.items()}
        if state.components is not None and state.weights is not None and len(state.components) == config.opr_modes:
            components = self.to_device(state.components * self.measured.unit)
            self.auxiliary |= {"components": components, "weights": self.to_device(state.weights)}
        self.step = 1.0
        self.moves = Moves(config.correct_positions)
        self.check(config, len(self.canvas.slices))
        self.detector = propagator(scan, config, self.to_device, len(self.canvas.slices), self.spacing)
        good, noise, photon = self.measured.good, config.noise, self.measured.unit**2

        def changing(for_positions: bool) -> Callable[[Array, Array, Array], ExitWaveChange]:
            return self.backend.jit(
                lambda patches, probe, measured: exit_wave_change(
                    patches, probe, measured, good, noise, photon, self.detector, for_positions
                )
            )

        self._changing = {for_positions: changing(for_positions) for for_positions in (False, True)}
        self._measured_sum = float("nan")
        self._misfit: Any = None
        self._seen_sum: Any = None

    def run_epoch(self, last: int) -> float:
        """Visit every pattern once and return the R-factor met on the way.

        Parameters
        ----------
        last : number of the epoch at which the reconstruction ends.
        """
        before = self.canvas.object if self.config.momentum == 0 else self._copy(self.canvas.object)
        where = self.positions
        self._misfit = self._seen_sum = None
        self.visit(last)
        self._push(before)
        for image in self.canvas.slices:
            image.object = constrain_object(image.object, self.config)
        self.probe = constrain_probe(self.probe, self.config, self.power, self.backend)
        if self.correcting:
            settle_positions(self, where)
        self.epoch += 1
        if math.isnan(self._measured_sum):
            self._measured_sum = float(self._seen_sum)
        return float(self._misfit) / self._measured_sum

    def visit(self, last: int) -> None:
        """Visit every pattern once, and tell :meth:`add_residual` how each was met."""
        raise TypeError(f"{type(self).__name__} has no epoch of its own.")

    def add_residual(self, misfit: Array, measured: Array) -> None:
        """Add up the misfit, 0-d, of patterns with these amplitudes (k, N, N)."""
        self._misfit = misfit if self._misfit is None else self._misfit + misfit
        if math.isnan(self._measured_sum):  # every epoch sees the same patterns
            total = self.backend.xp.sum(measured)
            self._seen_sum = total if self._seen_sum is None else self._seen_sum + total

    @property
    def correcting(self) -> bool:
        """Whether positions are corrected in this epoch."""
        return self.config.correct_positions != "none" and self.epoch >= self.config.positions_from

    @property
    def correcting_probe(self) -> bool:
        """Whether the probe is updated in this epoch."""
        return self.config.probe_step > 0 and self.epoch >= self.config.probe_from

    @property
    def varying_probe(self) -> bool:
        """Whether the probe varies from pattern to pattern in this epoch."""
        return self.config.opr_modes > 0 and self.correcting_probe and self.epoch >= self.config.opr_from

    def exit_wave_change(self, patches: Array, probe: Array, measured: Array) -> ExitWaveChange:
        """What some patterns ask for, with what their positions are judged by where those are corrected."""
        return self._changing[self.correcting](patches, probe, measured)

    def probes(self, index: np.ndarray) -> Array:
        """The probes of some patterns: (P, N, N) where all are lit alike, else (k, P, N, N)."""
        if "components" not in self.auxiliary:
            return self.probe
        weights = self.backend.to_numpy(self.auxiliary["weights"])[index]
        return probes_of(self.probe, self.auxiliary["components"], self.to_device(weights))

    def empty_slice_waves(self) -> list[Array]:
        """The probe (P, N, N) as it would come to every slice if the ones before were empty."""
        waves = [self.probe]
        for _ in self.canvas.slices[1:]:
            waves.append(waves[-1] if self.detector.gap is None else self.detector.gap[0](waves[-1]))
        return waves

    def batches(self, size: int | None = None) -> list[np.ndarray]:
        """Indices of the patterns of each update of this epoch; the seed and the epoch's number decide."""
        rng = np.random.default_rng([self.config.seed, self.epoch])
        usable = self.measured.usable
        wanted = size or self.config.engine_batch_size or self.default_batch
        return [usable[part] for part in make_batches(self.config.batches, self.positions[usable], wanted, rng)]

    def chunks(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Parts of a batch that are worked on at once."""
        at_once = max(1, _CHUNK_PIXELS // math.prod(self.probe.shape))
        return (index[first : first + at_once] for first in range(0, index.size, at_once))

    def export(self, auxiliary: bool = True) -> State:
        """What is known now, on the host; without the auxiliary arrays for observers."""
        kept = self.auxiliary if auxiliary else {}
        numbers = {name: self.backend.to_numpy(values) for name, values in kept.items()}
        components = numbers.pop("components", None)
        return State(
            object=self.backend.to_numpy(self.canvas.object).copy(),  # host
            origin=self.origin,
            probe=self.backend.to_numpy(self.probe) / self.measured.unit,
            positions=self.positions + _host.asarray(self.origin),
            nominal=self.nominal,
            epoch=self.epoch,
            history={name: list(values) for name, values in self.history.items()},
            spacing=self.spacing,
            propagation=self.config.propagation,
            interpolation=self.config.interpolation,
            components=None if components is None else components / self.measured.unit,
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

    def to_device(self, values: np.ndarray) -> Array:
        """A host array on the backend, in the engine's precision."""
        kind = np.asarray(values).dtype.kind
        dtype = {"c": self.complex, "f": self.real}.get(kind)
        return self.backend.asarray(np.array(values), dtype=dtype, device=self.device)

    def probe_power(self) -> float:
        """Power of all modes."""
        return float(self.backend.xp.sum(intensity(self.probe)))

    def _copy(self, values: Array) -> Array:
        return self.backend.xp.asarray(values, copy=True)

    def _push(self, before: Array) -> None:
        """Repeat a part of the epoch's change, and of the ones before it."""
        if self.config.momentum == 0:
            return
        change = self.canvas.object - before
        if "velocity" in self.auxiliary:
            change = change + self.config.momentum * self.auxiliary["velocity"]
        self.auxiliary["velocity"] = change
        self.canvas.object = self.canvas.object + self.config.momentum * change

    def _first_state(self, scan: Scan) -> State:
        probe = scan.probe
        if probe is None:
            logger.warning("The scan has no probe: one is estimated from its mean pattern.")
            probe = probe_from_patterns(scan.patterns, measurement=scan.measurement, mask=scan.mask)[None]
        probe = _checked_probe(probe, scan)
        power = float(_host.sum(intensity(probe)))
        if self.config.rescale_probe:
            scale = math.sqrt(self.measured.brightness * self.measured.mean_total / power)
            logger.info("The probe is scaled by %.4g to the brightest patterns.", scale)
            probe, power = probe * scale, power * scale**2
        start = math.sqrt(self.measured.mean_total / power)
        if self.config.modes is not None and self.config.modes != probe.shape[0]:
            probe = _with_modes(probe, self.config.modes)
        image, origin = place_on_canvas(None, (0.0, 0.0), scan.positions, scan.N, self._border(scan), start)
        return State(resliced(image, self.config.slices or 1), origin, probe, scan.positions, scan.positions)

    def _adopted(self, scan: Scan, state: State) -> State:
        """A given state, its object on a canvas that holds every patch."""
        probe = _checked_probe(state.probe, scan)
        if state.positions.shape != scan.positions.shape:
            raise DataError(
                f"positions: the result has {len(state.positions)} and the scan {len(scan)}; give the scan that the "
                "result was made from."
            )
        if not bool(_host.all(_host.isfinite(_host.abs(state.object)))):
            raise DataError("object: some of its pixels are not finite; start from another result.")
        if state.epoch > 0:  # resumed: the canvas is the one that the auxiliary arrays belong to
            return state.copy()
        if self.config.modes is not None and self.config.modes != probe.shape[0]:
            probe = _with_modes(probe, self.config.modes)
        placed = []
        for one in slices_of(state.object):
            fill = complex(_host.mean(_host.abs(one)))
            placed.append(place_on_canvas(one, state.origin, state.positions, scan.N, self._border(scan), fill))
        image, origin = _host.stack([grown for grown, _ in placed]), placed[0][1]
        before, after = state.object.shape[-2:], image.shape[1:]
        if after != before:
            logger.info("The object grows from %s to %s pixels, to hold every patch.", before, after)
        fresh = state.copy()
        fresh.object, fresh.origin, fresh.probe = resliced(image, self.config.slices or len(image)), origin, probe
        return fresh

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

    def _border(self, scan: Scan) -> int:
        """Pixels that corrected positions may need beside those of the nominal ones."""
        still = self.config.correct_positions == "none"
        return 0 if still else math.ceil(farthest_move(self.config, scan.positions, scan.N))


def _checked_probe(probe: np.ndarray, scan: Scan) -> np.ndarray:
    wave = _host.asarray(probe, dtype=np.complex128)
    if wave.ndim != 3 or wave.shape[-2:] != (scan.N, scan.N):
        raise DataError(
            f"probe: got shape {wave.shape} for patterns of {scan.N} x {scan.N}; expected (modes, {scan.N}, {scan.N}): "
            "crop or pad it, or read the scan as it was read for this result."
        )
    power = float(_host.sum(intensity(wave)))
    if not 0 < power < math.inf:
        raise DataError("probe: is zero or not finite; expected a wave that holds light.")
    return wave


def _with_modes(probe: np.ndarray, wanted: int) -> np.ndarray:
    """As many modes as wanted: the strongest, or new ones around the first; the power stays."""
    if wanted < probe.shape[0]:
        kept = probe[:wanted]
        return kept * math.sqrt(float(_host.sum(intensity(probe)) / _host.sum(intensity(kept))))
    return probe_modes(probe[0], wanted) * math.sqrt(
        float(_host.sum(intensity(probe)) / _host.sum(intensity(probe[0])))
    )
