r"""The ptychographical iterative engines: ePIE and its regularised form rPIE, in mini-batches, with incoherent modes.

.. math::
    \Delta O = \beta_O \frac{\sum_k\sum_p P_p^* \Delta\psi_{kp}}{(1-\alpha) L + \alpha \max(L, \max|P|^2)},
    \qquad L = \sum_k\sum_p |P_p|^2,

over the patterns k of a batch, and the like for every probe mode. :math:`\alpha = 1` is ePIE. A slice behind others has
the waves that reach it in the place of the probe. S slices and the probe answer the same change where one slice and the
probe would: each takes 2 / (S + 1) of its step. Sources: Maiden, Rodenburg, Ultramicroscopy 109, 1256 (2009); Maiden,
Johnson, Li, Optica 4, 736 (2017); Thibault, Menzel, Nature 494, 68 (2013) for the modes; Maiden, Humphry, Rodenburg,
J. Opt. Soc. Am. A 29, 1606 (2012) for the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptycho.backends import Array, array_namespace
from ptycho.engines.engine import Engine
from ptycho.engines.exit_waves import SliceUpdate
from ptycho.engines.opr import Variation
from ptycho.physics.propagation import intensity

__all__ = ["EPIE", "RPIE", "probe_sums", "summed"]

_AVERAGED_DAMPING = 0.05
_MOMENTUM_WITH_POSITIONS, _MOMENTUM_OF_MODES = 0.5, 0.9
"""Part of an epoch's change of the probe that is repeated after the next; none where neither is at work."""


class RPIE(Engine):
    """Regularised ePIE. The last epochs may take the whole scan at once, which averages what small batches leave."""

    can_vary_probe = True

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        self._variation = Variation.recalled(self) if self.varying_probe else None
        before = self.probe
        self._sweep(last)
        if self._variation is not None:
            self._variation.settle(self)
        elif self.correcting_probe and not self._averaging(last):
            self._push_probe(before)

    def _averaging(self, last: int) -> bool:
        """Whether this epoch is one of those that average what the ones before have left."""
        most = last if self.from_state else last // 3
        return self.epoch >= last - min(self.config.full_batch_epochs, most)

    def _push_probe(self, before: Array) -> None:
        """Repeat a part of the epoch's change of the probe, and of the ones before it.

        Probe, object and positions of a wrong scale fit each other nearly as well as the right ones do, and so do modes
        that share out their power wrongly: the way from there is long and hardly downhill.
        """
        part = _MOMENTUM_WITH_POSITIONS
        if self.config.correct_positions == "none":
            part = _MOMENTUM_OF_MODES if self.probe.shape[0] > 1 else 0.0
        if part == 0.0:
            return
        change = self.probe - before
        if "probe_velocity" in self.auxiliary:
            change = change + part * self.auxiliary["probe_velocity"]
        self.auxiliary["probe_velocity"] = change
        self.probe = self.probe + part * change

    def _sweep(self, last: int) -> None:
        averaging = self._averaging(last)
        damping = min(self.config.damping, _AVERAGED_DAMPING) if averaging else self.config.damping
        for batch in self.batches(self.measured.count if averaging else None):
            self._start_batch()
            for chunk in self.chunks(batch):
                self._see(chunk)
            self._apply(damping)

    def _start_batch(self) -> None:
        xp = self.backend.xp
        powers = [xp.sum(intensity(wave), axis=0) for wave in self.empty_slice_waves()]
        self._power, self._brightest = powers[0], [float(xp.max(power)) for power in powers]
        self._probe_sum: Any = None
        self._probe_light: Any = None

    def _see(self, index: np.ndarray) -> None:
        """Add up what some patterns ask for."""
        at, measured = self.positions[index], self.measured(index)
        patches = self.canvas.patches(at, self.measured.size)
        probe = self.probe if self._variation is None else self._variation.probes(index, self.probe)
        change = self.exit_wave_change(patches, probe, measured)
        self.add_residual(change.misfit, measured)
        for number, (image, lit) in enumerate(zip(self.canvas.slices, change.slices, strict=True)):
            light = self._power if number == 0 else self.backend.xp.sum(intensity(lit.illumination), axis=1)
            image.gather(summed(lit.illumination, lit.exit_change), light, at)
        self._keep(index, change.slices)
        first = change.slices[0]
        if self._variation is not None:
            self._variation.see(index, first.patches, self.probe, first.exit_change)
        if self.correcting_probe:
            total, light = probe_sums(self._lit(index, first.patches), first.exit_change)
            self._probe_sum = total if self._probe_sum is None else self._probe_sum + total
            self._probe_light = light if self._probe_light is None else self._probe_light + light
        if self.correcting:
            self.moves.add(index, change.position_slices)

    def _lit(self, index: np.ndarray, patches: Array) -> Array:
        """Patches (k, N, N) times the brightness of their patterns: what the mean probe meets."""
        return patches if self._variation is None else self._variation.scaled(index, patches)

    def _keep(self, index: np.ndarray, slices: Sequence[SliceUpdate]) -> None:
        """For engines that look at a batch again."""

    def _apply(self, damping: float) -> None:
        """Change object, probe and positions by what was added up."""
        xp = self.backend.xp
        length = self.step * 2 / (len(self.canvas.slices) + 1)
        for image, brightest in zip(self.canvas.slices, self._brightest, strict=True):
            image.apply(damping, self.config.object_step * length, brightest)
        if self._probe_sum is not None:
            light = (1.0 - damping) * self._probe_light + damping * xp.max(self._probe_light)
            share = xp.astype(light + xp.finfo(light.dtype).smallest_normal, self.probe.dtype)
            self.probe = self.probe + self._probe_sum / share * (self.config.probe_step * length)
        if self._variation is not None:
            self._variation.apply(damping, self.config.probe_step * length)
        self.positions = self.moves.apply(self.positions, self.step)


class EPIE(RPIE):
    """The ptychographical iterative engine: one pattern after the other, damped by the brightest pixel."""

    default_batch = 1

    def _sweep(self, last: int) -> None:
        for batch in self.batches():
            self._start_batch()
            for chunk in self.chunks(batch):
                self._see(chunk)
            self._apply(1.0)


def summed(probe: Array, difference: Array) -> Array:
    """Numerator of the object's update, (k, N, N)."""
    xp = array_namespace(probe, difference)
    asked = xp.conj(probe) * difference
    return asked[:, 0, :, :] if asked.shape[1] == 1 else xp.sum(asked, axis=1)


def probe_sums(patches: Array, difference: Array) -> tuple[Array, Array]:
    """Numerator (P, N, N) and light (N, N) of the probe's update."""
    xp = array_namespace(patches, difference)
    return xp.sum(xp.conj(patches)[:, None, :, :] * difference, axis=0), xp.sum(intensity(patches), axis=0)
