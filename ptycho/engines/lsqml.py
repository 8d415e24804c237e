r"""Least-squares maximum likelihood: the PIE updates with the step lengths that fit each pattern best.

Object and probe take the directions of rPIE, averaged over a batch, and each pattern says how far it would go along
both: the two lengths :math:`a_k, b_k` of

.. math:: \min \| \Delta\psi_k - a_k\, P\,\Delta O_k - b_k\, O_k\,\Delta P \|^2,

over all its modes. The batch takes their medians, within limits. Source: Odstrcil, Menzel, Guizar-Sicairos, Opt.
Express 26, 3108 (2018), sections 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptycho.backends import Array, array_namespace, to_numpy
from ptycho.engines.exit_waves import SliceUpdate, propagate_slice_changes, slice_illuminations
from ptycho.engines.object_canvas import slices_of
from ptycho.engines.pie import RPIE

__all__ = ["LSQML"]

_SHORTEST, _LONGEST = 0.1, 2.0
"""Limits of a batch's step in parts of rPIE's: a batch of few patterns may fit a length that the others contradict."""


class LSQML(RPIE):
    """rPIE in batches whose common step lengths are fitted to their patterns; no step is set by hand."""

    def sweep(self, last: int) -> None:
        """See :class:`~ptycho.engines.pie.RPIE`."""
        for batch in self.batches():
            self.start_batch()
            before, probe = self._copy(self.canvas.object), self.probe
            updates = [(chunk, self.accumulate(chunk)) for chunk in self.chunks(batch)]
            self.update(self.config.damping)
            change = self.probe - probe
            lengths = np.concatenate([self._lengths(change, *update) for update in updates])
            object_length, probe_length = np.clip(np.median(lengths, axis=0), _SHORTEST, _LONGEST).tolist()
            self.canvas.object = before + (self.canvas.object - before) * object_length
            self.probe = probe + change * probe_length

    def _lengths(self, probe_change: Array, index: np.ndarray, slices: Sequence[SliceUpdate]) -> np.ndarray:
        """The lengths (k, 2) that some patterns would go along the changes of object and probe."""
        required = slices[-1].exit_change
        xp = array_namespace(required)
        moved = [new - each.patches for new, each in zip(slices_of(self.patches(index), 3), slices, strict=True)]
        by_object = propagate_slice_changes(slices, moved, self.propagator)
        patches = [self.mean_probe_patches(index, slices[0].patches), *(each.patches for each in slices[1:])]
        by_probe = patches[-1][:, None, :, :] * slice_illuminations(patches, probe_change, self.propagator)[-1]

        def product(a: Array, b: Array) -> np.ndarray:
            return np.asarray(to_numpy(xp.sum(xp.real(xp.conj(a) * b), axis=(-3, -2, -1))), dtype=np.float64)

        oo, op, pp = product(by_object, by_object), product(by_object, by_probe), product(by_probe, by_probe)
        o, p = product(by_object, required), product(by_probe, required)
        oo, pp = oo * (1.0 + 1e-3) + 1e-100, pp * (1.0 + 1e-3) + 1e-100
        determinant = oo * pp - op * op
        return np.stack([(pp * o - op * p) / determinant, (oo * p - op * o) / determinant], axis=-1)  # host
