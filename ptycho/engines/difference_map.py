r"""The difference map: all exit waves are kept, and move between what was measured and what one object explains.

.. math:: \psi \leftarrow \psi + \beta\,[\,\Pi_F(2\,\Pi_O\psi - \psi) - \Pi_O\psi\,]

:math:`\Pi_O` finds the object and the probe that explain the waves best, :math:`\Pi_F` gives every far field its
measured amplitude (:mod:`ptycho.engines.projections`). Source: Thibault et al., Ultramicroscopy 109, 338 (2009).
"""

from __future__ import annotations

from ptycho.engines.projections import ProjectionEngine

__all__ = ["DifferenceMap"]


class DifferenceMap(ProjectionEngine):
    """See the module; ``object_step`` is beta."""

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        parts, beta = self.parts(), self.config.object_step * self.step
        self.fit(parts, [self.auxiliary[f"waves_{number}"] for number in range(len(parts))])
        for number, part in enumerate(parts):
            waves, explained, measured = self.auxiliary[f"waves_{number}"], self.explained(part), self.data(part)
            self.add_positions(part, measured)
            projected = self.with_measured_amplitude(2.0 * explained - waves, measured)
            self.auxiliary[f"waves_{number}"] = waves + beta * (projected - explained)
            self.add_residual(self.residual(explained, measured), measured)
