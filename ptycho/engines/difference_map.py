r"""The difference map: all exit waves are kept, and bounce between what was measured and what one object explains.

.. math:: \psi \leftarrow \psi + \beta\,[\,\Pi_F(2\,\Pi_O\psi - \psi) - \Pi_O\psi\,]

:math:`\Pi_O` finds the object and the probe that explain the waves best, by a few alternating least squares;
:math:`\Pi_F` gives every far field its measured amplitude. The waves of the whole scan are held in memory. Source:
Thibault et al., Ultramicroscopy 109, 338 (2009).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho.backends import Array
from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.engine import Engine
from ptycho.engines.exit_waves import amplitude_factor
from ptycho.engines.pie import probe_sums, summed
from ptycho.engines.state import State
from ptycho.physics.propagation import intensity

__all__ = ["DifferenceMap"]

_ALTERNATIONS = 2
_DIM = 1e-3
"""Pixels with less than this part of the most light keep their value."""


class DifferenceMap(Engine):
    """See the module; ``object_step`` is beta."""

    can_slice = False

    def __init__(self, scan: Scan, config: EngineConfig, state: State | None = None) -> None:
        super().__init__(scan, config, state)
        good, noise, photon = self.measured.good, config.noise, self.measured.unit**2
        xp = self.backend.xp

        def bounced(waves: Array, explained: Array, measured: Array, beta: float) -> tuple[Array, Array]:
            mirrored = self.detector.forward(2.0 * explained - waves)
            amplitude = xp.sqrt(xp.sum(intensity(mirrored), axis=1))
            away = measured - amplitude
            met = measured - xp.sqrt(xp.sum(intensity(self.detector.forward(explained)), axis=1))
            if good is not None:
                away, met = (xp.where(good, a, xp.zeros_like(a)) for a in (away, met))
            factor = 1.0 + amplitude_factor(away, amplitude, noise, photon)
            projected = self.detector.backward(mirrored * xp.astype(factor[:, None, :, :], mirrored.dtype))
            return waves + beta * (projected - explained), xp.sum(xp.abs(met))

        self._bounced = bounced

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        parts = list(self.chunks(self.measured.usable))
        for number, part in enumerate(parts):
            if f"waves_{number}" not in self.auxiliary:
                self.auxiliary[f"waves_{number}"] = self._explained(part)
        for _ in range(_ALTERNATIONS):
            self._fit(parts)
        for number, part in enumerate(parts):
            waves, explained, measured = self.auxiliary[f"waves_{number}"], self._explained(part), self.measured(part)
            if self.correcting:
                self._shift(part, measured)
            beta = self.config.object_step * self.step
            self.auxiliary[f"waves_{number}"], misfit = self._bounced(waves, explained, measured, beta)
            self.add_residual(misfit, measured)

    def _explained(self, index: np.ndarray) -> Array:
        patches = self.canvas.patches(self.positions[index], self.measured.size)
        return patches[:, None, :, :] * self.probe

    def _fit(self, parts: list[np.ndarray]) -> None:
        """The object, then the probe, that explain the waves best when the other is as it is."""
        xp = self.backend.xp
        power = xp.sum(intensity(self.probe), axis=0)
        for number, part in enumerate(parts):
            rest = self.auxiliary[f"waves_{number}"] - self._explained(part)
            self.canvas.slices[0].gather(summed(self.probe, rest), power, self.positions[part])
        self.canvas.slices[0].apply(_DIM, 1.0, float(xp.max(power)))
        if not self.correcting_probe:
            return
        total: Any = None
        light: Any = None
        for number, part in enumerate(parts):
            patches = self.canvas.patches(self.positions[part], self.measured.size)
            rest = self.auxiliary[f"waves_{number}"] - patches[:, None, :, :] * self.probe
            more, brighter = probe_sums(patches, rest)
            total, light = (more, brighter) if total is None else (total + more, light + brighter)
        share = light * (1.0 - _DIM) + _DIM * xp.max(light)
        self.probe = self.probe + total / xp.astype(share, total.dtype) * min(1.0, self.config.probe_step)

    def _shift(self, index: np.ndarray, measured: Array) -> None:
        patches = self.canvas.patches(self.positions[index], self.measured.size)
        self.moves.add(index, self.exit_wave_change(patches, self.probe, measured).position_slices)
        self.positions = self.moves.apply(self.positions, self.step)
