"""Callbacks that look on: what a step of the work has so far, shown to whoever wants to see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

__all__ = ["Onlooker", "offer"]


@runtime_checkable
class Onlooker(Protocol):
    """A progress callback that may also want to see what there is."""

    def look(self, make: Callable[[], Any]) -> None:
        """May call ``make`` for what there is now, at once or not at all; it must raise nothing and change nothing."""


def offer(callback: Any, make: Callable[[], Any]) -> None:
    """Let a callback see what there is, if it looks on.

    Parameters
    ----------
    callback : any callback, or None.
    make : makes what is shown, a copy that the work does not change afterwards.
    """
    if isinstance(callback, Onlooker):
        callback.look(make)
