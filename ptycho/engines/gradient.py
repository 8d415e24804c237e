r"""Gradient descent through the shared forward model, by the backend's own differentiation: Adam and L-BFGS.

Losses, means over patterns of sums over good pixels: amplitude :math:`(A - m)^2`; Poisson,
:math:`I - m^2 - m^2 \log(I / m^2)`; Anscombe, in photons, :math:`(\sqrt{I + 3/8} - \sqrt{m^2 + 3/8})^2`.
Object and probe are held as real and imaginary part, on which the optimisers of all frameworks agree; the probe in
parts of its brightest amplitude, so that one step length serves both. Sources: Kingma, Ba, arXiv:1412.6980; Nocedal,
Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ptycho.backends import Array, array_namespace
from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.engine import Engine
from ptycho.engines.object_canvas import read_patches
from ptycho.engines.state import State
from ptycho.physics.propagation import diffraction_intensity, intensity
from ptycho.physics.slices import multislice_intensity

__all__ = ["LBFGS", "Adam", "GradientDescent", "pattern_loss"]

Leaves = dict[str, Array]
_DECAY, _SQUARE_DECAY = 0.9, 0.99
_FAINT = 1e-3
"""Slopes below this are not enlarged to a whole step; a bright pixel's is about 1 at the start."""
_PAIRS = 8
_HALVINGS = 12


def pattern_loss(predicted: Array, measured: Array, good: Array | None, noise: str, photon: float) -> Array:
    """Loss of predicted intensities, 0-d; finite, and of finite slope, where nothing is predicted.

    Parameters
    ----------
    predicted : (k, N, N) real, intensities.
    measured : (k, N, N) real, amplitudes.
    good, noise, photon : as for :func:`~ptycho.engines.exit_waves.exit_wave_change`.
    """
    xp = array_namespace(predicted, measured)
    if good is not None:
        predicted = xp.where(good, predicted, xp.ones_like(predicted))
        measured = xp.where(good, measured, xp.ones_like(measured))
    if noise == "poisson":
        floor = 1e-3 * photon
        counts = measured * measured
        each = predicted - counts - counts * (xp.log(predicted + floor) - xp.log(counts + floor))
    else:
        ground = 0.375 * photon if noise == "anscombe" else 1e-12
        away = xp.sqrt(predicted + ground) - xp.sqrt(measured * measured + ground)
        each = away * away
    return xp.sum(each) / predicted.shape[0]


class GradientDescent(Engine):
    """What both optimisers share: the leaves, the loss with its gradient, and the residual."""

    default_batch = 32
    default_backend = "pytorch"

    @classmethod
    def chosen(cls, config: EngineConfig) -> type[Engine]:
        """The optimiser that the settings name."""
        return LBFGS if config.optimiser == "lbfgs" else Adam

    def __init__(self, scan: Scan, config: EngineConfig, state: State | None = None, **limits: int) -> None:
        super().__init__(scan, config, state, **limits)
        xp, size = self.backend.xp, self.data.size
        good, noise, photon = self.data.good, config.noise, self.data.unit**2
        if "unit" not in self.auxiliary:
            self.auxiliary["unit"] = xp.sqrt(xp.max(intensity(self.probe)))
        self._unit = float(self.auxiliary["unit"])

        def complex_of(leaves: Leaves, name: str, kind: Any) -> Array:
            return xp.astype(leaves[f"{name}_real"], kind) + xp.astype(leaves[f"{name}_imag"], kind) * 1j

        def predicted(leaves: Leaves, at: Array) -> Array:
            kind, path = self.probe.dtype, self.propagator
            slices = read_patches(complex_of(leaves, "object", kind), at, size, config.interpolation)
            probe = complex_of(leaves, "probe", kind) * self._unit
            if path.gap is None:
                return diffraction_intensity(slices[0], probe, path.forward)
            return multislice_intensity(slices, probe, path.gap[0], path.forward)

        def loss(leaves: Leaves, at: Array, measured: Array) -> Array:
            return pattern_loss(predicted(leaves, at), measured, good, noise, photon)

        def residual(leaves: Leaves, at: Array, measured: Array) -> Array:
            away = xp.sqrt(predicted(leaves, at)) - measured
            return xp.sum(xp.abs(away if good is None else xp.where(good, away, xp.zeros_like(away))))

        self._loss = self.backend.jit(self.backend.value_and_grad(loss))
        self._residual_of = self.backend.jit(residual)

    def _leaves(self) -> Leaves:
        xp, image, probe = self.backend.xp, self.canvas.object, self.probe / self._unit
        return {
            "object_real": xp.real(image),
            "object_imag": xp.imag(image),
            "probe_real": xp.real(probe),
            "probe_imag": xp.imag(probe),
        }

    def _settle(self, leaves: Leaves) -> None:
        """Take object and probe from the leaves."""
        xp, kind = self.backend.xp, self.probe.dtype
        self.canvas.object = xp.astype(leaves["object_real"], kind) + xp.astype(leaves["object_imag"], kind) * 1j
        probe = xp.astype(leaves["probe_real"], kind) + xp.astype(leaves["probe_imag"], kind) * 1j
        self.probe = probe * self._unit

    def _meet(self, leaves: Leaves, index: np.ndarray, at: Array, measured: Array) -> None:
        """Add the residual of some patterns, and move their positions where they are corrected."""
        if not self.correcting_positions:
            self.add_residual(self._residual_of(leaves, at, measured), measured)
            return
        change = self.exit_wave_change(self.patches(index), self.probe, measured)
        self.add_residual(change.residual, measured)
        self.position_correction.add(index, change.position_slices)
        self.positions = self.position_correction.apply(self.positions, self.step)

    def _at(self, index: np.ndarray) -> Array:
        return self.to_device(self.positions[index])


class Adam(GradientDescent):
    """Stochastic gradient descent in batches; the step shrinks along half a cosine."""

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        xp = self.backend.xp
        leaves = self._leaves()
        count = float(self.auxiliary["updates"]) if "updates" in self.auxiliary else 0.0
        pace = self.config.step_size * self.step * 0.5 * (1.0 + math.cos(math.pi * self.epoch / last))
        for batch in self.batches():
            at, measured = self._at(batch), self.data(batch)
            self._meet(leaves, batch, at, measured)
            _, slopes = self._loss(leaves, at, measured)
            count += 1
            for name, slope in slopes.items():
                pull = pace * (self.config.object_step if name.startswith("object") else self._probe_pace())
                if pull:
                    leaves[name] = leaves[name] - self._direction(xp, name, slope, count) * pull
            if self.correcting_positions:
                self._settle(leaves)
        self.auxiliary["updates"] = self.to_device(np.asarray(count))
        self._settle(leaves)

    def _probe_pace(self) -> float:
        return self.config.probe_step if self.correcting_probe else 0.0

    def _direction(self, xp: Any, name: str, slope: Array, count: float) -> Array:
        first, second = slope * (1.0 - _DECAY), slope * slope * (1.0 - _SQUARE_DECAY)
        if f"first_{name}" in self.auxiliary:
            first = first + self.auxiliary[f"first_{name}"] * _DECAY
            second = second + self.auxiliary[f"second_{name}"] * _SQUARE_DECAY
        self.auxiliary[f"first_{name}"], self.auxiliary[f"second_{name}"] = first, second
        return first / (1.0 - _DECAY**count) / (xp.sqrt(second / (1.0 - _SQUARE_DECAY**count)) + _FAINT)


class LBFGS(GradientDescent):
    """Limited-memory BFGS on the whole scan: an epoch is one step, found by backtracking.

    Curvature is remembered as long as the loss is the same: where the probe joins or positions move, it starts anew.
    """

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        xp = self.backend.xp
        leaves = self._leaves()
        index = self.data.usable
        for part in self.chunks(index):
            self._meet(leaves, part, self._at(part), self.data(part))
        value, slope = self._evaluate(leaves, index)
        if self.correcting_positions or self.epoch == self.config.probe_from:
            self._forget()
        elif "point" in self.auxiliary:
            self._remember(_flat(xp, leaves) - self.auxiliary["point"], slope - self.auxiliary["slope"])
        direction = self._newton(slope)
        descent = float(xp.sum(direction * slope))
        if not descent < 0:
            self._forget()
            direction, descent = self._newton(slope), -1.0
        length = 1.0 if "steps" in self.auxiliary else self.config.step_size / float(xp.max(xp.abs(direction)))
        length *= self.step
        before = _flat(xp, leaves)
        self.auxiliary["point"], self.auxiliary["slope"] = before, slope
        for _ in range(_HALVINGS):
            trial = _unflat(xp, before + direction * length, leaves)
            if self._evaluate(trial, index, slopes=False)[0] <= value + 1e-4 * length * descent:
                self._settle(trial)
                return
            length *= 0.5
        self._forget()

    def _forget(self) -> None:
        self.auxiliary = {"unit": self.auxiliary["unit"]}

    def _evaluate(self, leaves: Leaves, index: np.ndarray, slopes: bool = True) -> tuple[float, Array]:
        """Mean loss of the scan, and its slope as one vector."""
        xp = self.backend.xp
        value, total = 0.0, None
        for part in self.chunks(index):
            found, slope = self._loss(leaves, self._at(part), self.data(part))
            share = part.size / index.size
            value += float(found) * share
            if slopes:
                if not self.correcting_probe:
                    slope = {name: s if name.startswith("object") else xp.zeros_like(s) for name, s in slope.items()}
                flat = _flat(xp, slope) * share
                total = flat if total is None else total + flat
        return value, total

    def _remember(self, step: Array, change: Array) -> None:
        xp = self.backend.xp
        if not float(xp.sum(step * change)) > 1e-10 * float(xp.sum(change * change)):
            return
        for name, new in (("steps", step), ("changes", change)):
            kept = (
                [new[None, :]] if name not in self.auxiliary else [self.auxiliary[name][-_PAIRS + 1 :, :], new[None, :]]
            )
            self.auxiliary[name] = xp.concat(kept, axis=0)

    def _newton(self, slope: Array) -> Array:
        """Two-loop recursion: minus the inverse curvature times the slope."""
        xp = self.backend.xp
        if "steps" not in self.auxiliary:
            return -slope
        pairs = [
            (self.auxiliary["steps"][k, :], self.auxiliary["changes"][k, :])
            for k in range(self.auxiliary["steps"].shape[0])
        ]
        direction, weights = slope, []
        for step, change in reversed(pairs):
            weight = float(xp.sum(step * direction)) / float(xp.sum(step * change))
            direction = direction - change * weight
            weights.append(weight)
        step, change = pairs[-1]
        direction = direction * (float(xp.sum(step * change)) / float(xp.sum(change * change)))
        for (step, change), weight in zip(pairs, reversed(weights), strict=True):
            direction = direction + step * (weight - float(xp.sum(change * direction)) / float(xp.sum(step * change)))
        return -direction


def _flat(xp: Any, leaves: Leaves) -> Array:
    return xp.concat([xp.reshape(leaves[name], (-1,)) for name in sorted(leaves)])


def _unflat(xp: Any, vector: Array, like: Leaves) -> Leaves:
    out, first = {}, 0
    for name in sorted(like):
        shape = tuple(like[name].shape)
        out[name] = xp.reshape(vector[first : first + math.prod(shape)], shape)
        first += math.prod(shape)
    return out
