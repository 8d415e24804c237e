r"""The ptychographical iterative engines: ePIE and its regularised form rPIE, in mini-batches, with incoherent modes.

.. math::
    \Delta O = \beta_O \frac{\sum_k\sum_p P_p^* \Delta\psi_{kp}}{(1-\alpha) L + \alpha \max(L, \max|P|^2)},
    \qquad L = \sum_k\sum_p |P_p|^2,

over the patterns k of a batch, and the like for every probe mode. :math:`\alpha = 1` is ePIE. A slice behind others has
the waves that reach it in the place of the probe. S slices and the probe follow the same change where one slice and the
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
from ptycho.engines.opr import OPR
from ptycho.physics.propagation import intensity

__all__ = ["EPIE", "RPIE", "object_numerator", "probe_sums"]

_FULL_BATCH_DAMPING = 0.05
"""The sums of a whole scan need less damping than those of a batch, which would follow the noise of a few patterns."""
_MOMENTUM_WITH_POSITIONS, _MOMENTUM_OF_MODES = 0.5, 0.9
"""Part of an epoch's change of the probe that is repeated after the next; none where neither is at work."""


class RPIE(Engine):
    """Regularised ePIE. The last epochs may take the whole scan at once, which averages the noise of small batches."""

    can_vary_probe = True

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        config, before = self.config, self.probe
        self._opr: OPR | None = None
        if config.opr_modes > 0 and self.correcting_probe and self.epoch >= config.opr_from:
            self._opr = OPR.recall(self.auxiliary, self.probe, self.data.count, config.opr_modes, self.to_device)
        self.sweep(last)
        if self._opr is not None:
            self.probe, remembered = self._opr.end_epoch(self.probe)
            self.auxiliary |= remembered
        elif self.correcting_probe and not self._takes_full_batch(last):
            self._add_probe_momentum(before)

    def sweep(self, last: int) -> None:
        """Go over the patterns in batches; an update follows each."""
        full, damping = self._takes_full_batch(last), self.config.damping
        for batch in self.batches(self.data.count if full else None):
            self.start_batch()
            for chunk in self.chunks(batch):
                self.accumulate(chunk)
            self.update(min(damping, _FULL_BATCH_DAMPING) if full else damping)

    def start_batch(self) -> None:
        """Forget the sums, and find the light on every slice if those before it were empty."""
        xp = self.backend.xp
        powers = [xp.sum(intensity(wave), axis=0) for wave in self.empty_slice_waves()]
        self._power, self._brightest = powers[0], [float(xp.max(power)) for power in powers]
        self._probe_sum: Any = None
        self._probe_light: Any = None

    def accumulate(self, index: np.ndarray) -> Sequence[SliceUpdate]:
        """Add the numerators and the light of some patterns to the sums."""
        measured, patches = self.data(index), self.patches(index)
        probe = self.probe if self._opr is None else self._opr.probes(index, self.probe)
        change = self.exit_wave_change(patches, probe, measured)
        self.add_residual(change.residual, measured)
        for number, (image, update) in enumerate(zip(self.canvas.slices, change.slices, strict=True)):
            light = self._power if number == 0 else self.backend.xp.sum(intensity(update.illumination), axis=1)
            image.gather(object_numerator(update.illumination, update.exit_change), light, self.positions[index])
        first = change.slices[0]
        if self._opr is not None:
            self._opr.add(index, first.patches, self.probe, first.exit_change)
        if self.correcting_probe:
            total, light = probe_sums(self.mean_probe_patches(index, first.patches), first.exit_change)
            self._probe_sum = total if self._probe_sum is None else self._probe_sum + total
            self._probe_light = light if self._probe_light is None else self._probe_light + light
        if self.correcting_positions:
            self.position_correction.add(index, change.position_slices)
        return change.slices

    def update(self, damping: float) -> None:
        """Change object, probe and positions by the sums of a batch."""
        xp = self.backend.xp
        length = self.step * 2 / (len(self.canvas.slices) + 1)
        for image, brightest in zip(self.canvas.slices, self._brightest, strict=True):
            image.apply(damping, self.config.object_step * length, brightest)
        if self._probe_sum is not None:
            light = (1.0 - damping) * self._probe_light + damping * xp.max(self._probe_light)
            share = xp.astype(light + xp.finfo(light.dtype).smallest_normal, self.probe.dtype)
            self.probe = self.probe + self._probe_sum / share * (self.config.probe_step * length)
        if self._opr is not None:
            self._opr.apply(damping, self.config.probe_step * length)
        self.positions = self.position_correction.apply(self.positions, self.step)

    def empty_slice_waves(self) -> list[Array]:
        """The probe (P, N, N) as it reaches every slice when the ones before are empty."""
        waves = [self.probe]
        for _ in self.canvas.slices[1:]:
            waves.append(waves[-1] if self.propagator.gap is None else self.propagator.gap[0](waves[-1]))
        return waves

    def mean_probe_patches(self, index: np.ndarray, patches: Array) -> Array:
        """Patches (k, N, N) times the brightness of their patterns: what multiplies the mean probe."""
        return patches if self._opr is None else self._opr.scaled(index, patches)

    def _takes_full_batch(self, last: int) -> bool:
        """Whether this epoch is one of those that average the noise which the ones before have left."""
        most = last if self.from_state else last // 3
        return self.epoch >= last - min(self.config.full_batch_epochs, most)

    def _add_probe_momentum(self, before: Array) -> None:
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


class EPIE(RPIE):
    """The ptychographical iterative engine: one pattern after the other, damped by the brightest pixel."""

    default_batch = 1

    def sweep(self, last: int) -> None:
        """See :class:`RPIE`."""
        for batch in self.batches():
            self.start_batch()
            for chunk in self.chunks(batch):
                self.accumulate(chunk)
            self.update(1.0)


def object_numerator(illumination: Array, exit_change: Array) -> Array:
    """Numerator of the object's update, (k, N, N)."""
    xp = array_namespace(illumination, exit_change)
    products = xp.conj(illumination) * exit_change
    return products[:, 0, :, :] if products.shape[1] == 1 else xp.sum(products, axis=1)


def probe_sums(patches: Array, exit_change: Array) -> tuple[Array, Array]:
    """Numerator (P, N, N) and light (N, N) of the probe's update."""
    xp = array_namespace(patches, exit_change)
    return xp.sum(xp.conj(patches)[:, None, :, :] * exit_change, axis=0), xp.sum(intensity(patches), axis=0)
