r"""What engines share that keep the exit waves of the whole scan and project them on two sets.

:math:`\Pi_F` gives every far field its measured amplitude. :math:`\Pi_O` finds the object and the probe that explain
the waves best, by a few alternating least squares. The waves are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptycho.backends import Array
from ptycho.engines.engine import Engine
from ptycho.engines.exit_waves import amplitude_factor
from ptycho.engines.pie import object_numerator, probe_sums
from ptycho.physics.propagation import intensity

__all__ = ["ProjectionEngine"]

_ALTERNATIONS = 2
_DAMPING = 1e-3
"""Pixels with less than this part of the most light keep their value."""


class ProjectionEngine(Engine):
    """The exit waves (k, P, N, N) of the scan, part by part, and both projections."""

    can_slice = False

    def parts(self) -> list[np.ndarray]:
        """Indices of the patterns of every part; its waves are ``waves_NUMBER`` in the auxiliary arrays."""
        parts = list(self.split(self.data.usable))
        for number, part in enumerate(parts):
            if f"waves_{number}" not in self.auxiliary:
                self.auxiliary[f"waves_{number}"] = self.explained(part)
        return parts

    def explained(self, index: np.ndarray) -> Array:
        """The exit waves that object and probe explain, (k, P, N, N)."""
        return self.patches(index)[:, None, :, :] * self.probe

    def with_measured_amplitude(self, waves: Array, measured: Array) -> Array:
        """The waves whose far fields have the measured amplitudes (k, N, N) on good pixels."""
        xp, field = self.backend.xp, self.propagator.forward(waves)
        amplitude = xp.sqrt(xp.sum(intensity(field), axis=1))
        missing = self._on_good_pixels(measured - amplitude)
        factor = 1.0 + amplitude_factor(missing, amplitude, self.config.noise, self.data.unit**2)
        return self.propagator.backward(field * xp.astype(factor[:, None, :, :], field.dtype))

    def residual(self, waves: Array, measured: Array) -> Array:
        """Sum of the absolute differences of predicted and measured amplitudes on good pixels, 0-d."""
        xp = self.backend.xp
        predicted = xp.sqrt(xp.sum(intensity(self.propagator.forward(waves)), axis=1))
        return xp.sum(xp.abs(self._on_good_pixels(measured - predicted)))

    def fit(self, parts: list[np.ndarray], waves: Sequence[Array]) -> None:
        """Change object and probe to those that explain the waves of the parts best."""
        for _ in range(_ALTERNATIONS):
            self._fit_object(parts, waves)
            if self.correcting_probe:
                self._fit_probe(parts, waves)

    def add_positions(self, index: np.ndarray, measured: Array) -> None:
        """Move the positions of some patterns where they are corrected."""
        if self.correcting_positions:
            change = self.exit_wave_change(self.patches(index), self.probe, measured)
            self.position_correction.add(index, change.position_slices)
            self.positions = self.position_correction.apply(self.positions, self.step)

    def _fit_object(self, parts: list[np.ndarray], waves: Sequence[Array]) -> None:
        xp = self.backend.xp
        power = xp.sum(intensity(self.probe), axis=0)
        image = self.canvas.slices[0]
        for part, wanted in zip(parts, waves, strict=True):
            rest = wanted - self.explained(part)
            image.gather(object_numerator(self.probe, rest), power, self.positions[part])
        image.apply(_DAMPING, 1.0, float(xp.max(power)))

    def _fit_probe(self, parts: list[np.ndarray], waves: Sequence[Array]) -> None:
        xp = self.backend.xp
        total: Any = None
        light: Any = None
        for part, wanted in zip(parts, waves, strict=True):
            patches = self.patches(part)
            more, brighter = probe_sums(patches, wanted - patches[:, None, :, :] * self.probe)
            total, light = (more, brighter) if total is None else (total + more, light + brighter)
        share = light * (1.0 - _DAMPING) + _DAMPING * xp.max(light)
        self.probe = self.probe + total / xp.astype(share, total.dtype) * min(1.0, self.config.probe_step)

    def _on_good_pixels(self, values: Array) -> Array:
        xp, good = self.backend.xp, self.data.good
        return values if good is None else xp.where(good, values, xp.zeros_like(values))
