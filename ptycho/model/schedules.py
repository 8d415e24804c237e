"""Schedules of the learning rate, the same in every framework, and resumed at any epoch."""

from __future__ import annotations

import math

from ptycho.config import TrainingConfig

__all__ = ["Schedule"]


class Schedule:
    """Learning rate and momentum (Adam's beta1) of every step, as PyTorch's schedules of these names have them.

    Parameters
    ----------
    config : learning rate and course.
    steps : of the whole training.
    """

    def __init__(self, config: TrainingConfig, steps: int) -> None:
        self.kind, self.peak, self.steps = config.lr_schedule, config.learning_rate, max(1, steps)
        self.rate, self._best, self._waited = config.learning_rate, math.inf, 0

    def at(self, step: int) -> tuple[float, float]:
        """Rate and momentum of a step, counted from 0."""
        if self.kind == "cosine":
            return _cosine(self.peak, 0.0, step / self.steps), 0.9
        if self.kind != "onecycle":
            return self.rate, 0.9
        turn = 0.3 * (self.steps + 1) - 1.0  # the rate after the last step belongs to the cycle too
        if step <= turn:
            part = step / turn
            return _cosine(self.peak / 25.0, self.peak, part), _cosine(0.95, 0.85, part)
        part = (step - turn) / (self.steps - turn)
        return _cosine(self.peak, self.peak / 25e4, part), _cosine(0.85, 0.95, part)

    def watch(self, loss: float) -> None:
        """Told of every epoch's loss; on a plateau of three epochs the rate is halved, down to a tenth."""
        if self.kind != "plateau":
            return
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > 2:
            self.rate, self._waited = max(0.5 * self.rate, 0.1 * self.peak), 0

    def state(self) -> dict[str, float]:
        """What :meth:`watch` has learned, as plain numbers."""
        return {"rate": self.rate, "best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, float]) -> None:
        """Take over what :meth:`state` gave."""
        self.rate, self._best, self._waited = float(state["rate"]), float(state["best"]), int(state["waited"])


def _cosine(start: float, end: float, part: float) -> float:
    """Half a cosine from ``start`` to ``end``."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * part))
