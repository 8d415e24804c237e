r"""Relaxed averaged alternating reflections (RAAR).

.. math:: \psi \leftarrow \tfrac{\beta}{2}\,(R_O R_F + 1)\,\psi + (1 - \beta)\,\Pi_F\psi,
          \qquad R = 2\,\Pi - 1,

which, with :math:`R_O R_F\psi = 2\,\Pi_O R_F\psi - R_F\psi`, is
:math:`\beta\,(\psi + \Pi_O R_F\psi) + (1 - 2\beta)\,\Pi_F\psi`. :math:`\Pi_F` gives every far field its measured
amplitude; :math:`\Pi_O` finds the object and the probe that explain the waves best (:mod:`ptycho.engines.projections`).
Sources: Luke, Inverse Problems 21, 37 (2005); for ptychography Marchesini et al., J. Appl. Crystallogr. 49, 1245
(2016).
"""

from __future__ import annotations

from dataclasses import dataclass

from ptycho.config.engines import EngineConfig, engine_names
from ptycho.config.settings import setting
from ptycho.engines.projections import ProjectionEngine

__all__ = ["RAAR", "RAARConfig"]


@dataclass
class RAARConfig(EngineConfig):
    """Settings of :class:`RAAR`."""

    engine: str = setting("raar", "the iterative engine", choices=engine_names)
    beta: float = setting(
        0.75, "relaxation: 1 explores most, smaller values stay nearer to the measured amplitudes", above=0.5, at_most=1
    )


class RAAR(ProjectionEngine):
    """See the module; ``object_step`` shortens or lengthens the whole step."""

    settings = RAARConfig
    config: RAARConfig

    def visit(self, last: int) -> None:
        """See :class:`~ptycho.engines.engine.Engine`."""
        parts, beta, step = self.parts(), self.config.beta, self.config.object_step * self.step
        reflected = []
        for number, part in enumerate(parts):
            waves = self.auxiliary[f"waves_{number}"]
            projected = self.with_measured_amplitude(waves, self.data(part))
            self.auxiliary[f"waves_{number}"] = waves + step * ((beta - 1.0) * waves + (1.0 - 2.0 * beta) * projected)
            reflected.append(2.0 * projected - waves)
        self.fit(parts, reflected)
        for number, part in enumerate(parts):
            measured, explained = self.data(part), self.explained(part)
            self.add_positions(part, measured)
            self.auxiliary[f"waves_{number}"] = self.auxiliary[f"waves_{number}"] + step * beta * explained
            self.add_residual(self.residual(explained, measured), measured)
