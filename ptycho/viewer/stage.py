"""State of a page shared between threads: the run updates it, the threads of the server read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptycho.viewer.patterns import Patterns
from ptycho.viewer.picture import Picture

__all__ = ["Stage"]

_STILL_THERE = 6.0
"""Seconds without a request after which a page counts as closed."""
_WATCHER_LIMIT = 32
"""Pages that are remembered; more of them are served, and forgotten, so that names cannot fill the memory."""
_KEPT_PICTURES = 2
_LARGE = 2**28
"""Size of an object in bytes above which only the last picture is kept, to bound the memory of a page."""


@dataclass
class _Watcher:
    """One open page."""

    seen: float
    looks: bool
    waiting: int = 0
    farewell: bool = False


@dataclass
class Stage:
    """The newest pictures, the changing state and the open pages.

    Attributes
    ----------
    about : JSON, the constant part: title, rows of provenance, ...
    patterns : measured and predicted patterns by position, or None.
    """

    about: Mapping[str, Any]
    patterns: Patterns | None = None
    _pictures: dict[int, Picture] = field(default_factory=dict)
    _state: dict[str, Any] = field(default_factory=dict)
    _version: int = 0
    _ended: bool = False
    _spent: float = 0.0
    _watchers: dict[str, _Watcher] = field(default_factory=dict)
    _turn: threading.Condition = field(default_factory=threading.Condition)

    def put(self, picture: Picture, patterns: Patterns | None = None) -> None:
        """Replace the picture and the patterns beside it."""
        with self._turn:
            self._version += 1
            self._pictures[self._version] = picture
            kept = 1 if picture.object.nbytes > _LARGE else _KEPT_PICTURES
            for old in sorted(self._pictures)[:-kept]:
                del self._pictures[old]
            if patterns is not None:
                self.patterns = patterns
            self._state["picture"] = self._version
            self._turn.notify_all()

    def change(self, ended: bool = False, **state: Any) -> None:
        """Change parts of the state; ``ended`` marks the last change. Callable values are called on request."""
        with self._turn:
            self._version += 1
            self._state |= state
            self._ended = self._ended or ended
            self._turn.notify_all()

    def picture(self, version: int) -> Picture:
        """A picture by its version.

        Raises
        ------
        LookupError
            It was replaced by newer ones.
        """
        with self._turn:
            return self._pictures[version]

    def newest(self) -> Picture | None:
        """The latest picture."""
        with self._turn:
            return self._pictures[max(self._pictures)] if self._pictures else None

    def charge(self, seconds: float) -> None:
        """Add the CPU time of a request."""
        with self._turn:
            self._spent += seconds

    def spent(self) -> float:
        """CPU seconds of requests since the last call."""
        with self._turn:
            spent, self._spent = self._spent, 0.0
            return spent

    def looked_at(self) -> bool:
        """Whether a page is open and visible."""
        with self._turn:
            return any(watcher.looks for watcher in self._present())

    def wait(self, client: str, after: int, pace: float, looks: bool, patience: float = 20.0) -> dict[str, Any]:
        """The state, as soon as it is newer than ``after`` and ``pace`` seconds have passed, or the run has ended.

        Parameters
        ----------
        client : the page that asks.
        after : version that it has.
        pace : seconds between two answers.
        looks : whether the page is visible.
        patience : seconds after which the state is returned even if it has not changed.
        """
        asked = time.monotonic()
        with self._turn:
            watcher = self._watcher(client, looks)
            watcher.waiting += 1
            try:
                while not self._ended and (left := self._delay(after, asked, pace, patience)) > 0:
                    self._turn.wait(left)
            finally:
                watcher.waiting -= 1
                watcher.seen = time.monotonic()
            state = {**self._state, "version": self._version, "ended": self._ended}
        return {name: value() if callable(value) else value for name, value in state.items()}

    def dismiss(self, client: str) -> None:
        """Record that a page has shown the end."""
        with self._turn:
            if client in self._watchers:
                self._watchers[client].farewell = True
                self._turn.notify_all()

    def farewell(self, patience: float) -> None:
        """Wait until every open page has shown the end, at most ``patience`` seconds."""
        with self._turn:
            self._turn.wait_for(lambda: all(watcher.farewell for watcher in self._present()), patience)

    def _delay(self, after: int, asked: float, pace: float, patience: float) -> float:
        """Seconds that a response can still wait."""
        passed = time.monotonic() - asked
        return (pace if self._version > after else patience) - passed

    def _present(self) -> list[_Watcher]:
        now = time.monotonic()
        return [each for each in self._watchers.values() if each.waiting or now - each.seen < _STILL_THERE]

    def _watcher(self, client: str, looks: bool) -> _Watcher:
        now = time.monotonic()
        for name in [name for name, each in self._watchers.items() if each not in self._present()]:
            del self._watchers[name]
        if client not in self._watchers and len(self._watchers) >= _WATCHER_LIMIT:
            return _Watcher(now, looks)
        watcher = self._watchers.setdefault(client, _Watcher(now, looks))
        watcher.seen, watcher.looks = now, looks
        return watcher
