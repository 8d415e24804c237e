r"""Least-squares maximum likelihood: the PIE updates with the step lengths that fit each pattern best.

Object and probe take the directions of rPIE, averaged over a batch, and each pattern says how far it would go along
both: the two lengths :math:`a_k, b_k` of

.. math:: \min \| \Delta\psi_k - a_k\, P\,\Delta O_k - b_k\, O_k\,\Delta P \|^2,

over all its modes. The batch takes their means, the object's weighted by light. Source: Odstrcil, Menzel,
Guizar-Sicairos, Opt. Express 26, 3108 (2018), sections 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptycho.backends import Array, array_namespace, to_numpy
from ptycho.engines.exit_waves import SliceUpdate, propagate_slice_changes, slice_illuminations
from ptycho.engines.object_canvas import slices_of
from ptycho.engines.pie import RPIE

__all__ = ["LSQML"]

_LONGEST = 2.0


class LSQML(RPIE):
    """rPIE in batches whose common step lengths are fitted to their patterns; no step is set by hand."""

    def _sweep(self, last: int) -> None:
        for batch in self.batches():
            self._start_batch()
            self._pending: list[tuple[np.ndarray, Sequence[SliceUpdate]]] = []
            before = self._copy(self.canvas.object)
            for chunk in self.chunks(batch):
                self._see(chunk)
            self._settle(before)

    def _keep(self, index: np.ndarray, slices: Sequence[SliceUpdate]) -> None:
        self._pending.append((index, slices))

    def _settle(self, before: Array) -> None:
        """Take the whole step of both, see how much of it each pattern wanted, and go back by the rest."""
        old = self.probe
        self._apply(self.config.damping)
        change = self.probe - old
        lengths = np.concatenate([self._lengths(change, *pending) for pending in self._pending])
        object_share, probe_share = (float(np.clip(np.median(lengths[:, k]), 0.1, _LONGEST)) for k in (0, 1))
        self.canvas.object = before + (self.canvas.object - before) * object_share
        self.probe = old + change * probe_share

    def _lengths(self, probe_change: Array, index: np.ndarray, slices: Sequence[SliceUpdate]) -> np.ndarray:
        wanted = slices[-1].exit_change
        xp = array_namespace(wanted)
        now = slices_of(self.canvas.patches(self.positions[index], self.measured.size), 3)
        moved = [new - lit.patches for new, lit in zip(now, slices, strict=True)]
        by_object = propagate_slice_changes(slices, moved, self.detector)
        patches = [self._lit(index, slices[0].patches), *(lit.patches for lit in slices[1:])]
        by_probe = patches[-1][:, None, :, :] * slice_illuminations(patches, probe_change, self.detector)[-1]

        def product(a: Array, b: Array) -> np.ndarray:
            return np.asarray(to_numpy(xp.sum(xp.real(xp.conj(a) * b), axis=(-3, -2, -1))), dtype=np.float64)

        oo, op, pp = product(by_object, by_object), product(by_object, by_probe), product(by_probe, by_probe)
        o, p = product(by_object, wanted), product(by_probe, wanted)
        oo, pp = oo * (1.0 + 1e-3) + 1e-100, pp * (1.0 + 1e-3) + 1e-100
        determinant = oo * pp - op * op
        return np.stack([(pp * o - op * p) / determinant, (oo * p - op * o) / determinant], axis=-1)  # host
