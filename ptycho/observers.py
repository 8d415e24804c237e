"""Progress callbacks that also show intermediate results: a live page, a benchmark that measures each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

__all__ = ["Observer", "notify"]


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
