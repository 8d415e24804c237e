"""Progress callbacks, and those that also show intermediate results: a live page, a benchmark that measures epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

__all__ = ["EpochProgress", "Observer", "Progress", "notify"]

Progress = Callable[[int, int], None]
"""A callback ``(done, total)`` of a step that counts patterns, groups or files."""


class EpochProgress(Protocol):
    """A callback after every epoch of a training."""

    def __call__(self, epoch: int, n_epochs: int, metrics: dict[str, float]) -> None:
        """``epoch`` counts from 1; ``metrics`` holds the epoch's mean losses by name."""


@runtime_checkable
class Observer(Protocol):
    """A progress callback that can also show what a step has computed so far."""

    def observe(self, make_snapshot: Callable[[], Any]) -> None:
        """Call ``make_snapshot`` for the present result, or do not; raise nothing and change nothing."""


def notify(callback: Any, make_snapshot: Callable[[], Any]) -> None:
    """Call ``callback.observe(make_snapshot)`` if the callback is an :class:`Observer`.

    Parameters
    ----------
    callback : any callback, or None.
    make_snapshot : returns a copy of the present result that the work does not change afterwards.
    """
    if isinstance(callback, Observer):
        callback.observe(make_snapshot)
