"""Rank of this process in a distributed training, and how it ends when it is asked to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

__all__ = ["Terminated", "TerminationHandler", "is_first_process", "raises_on_termination"]

_BURST_SECONDS = 1.0
"""A closing terminal sends SIGHUP twice, and batch systems signal a job as well as its shell: that is one request."""


class Terminated(KeyboardInterrupt):
    """A signal other than that of Ctrl-C asked the process to end.

    Parameters
    ----------
    number : of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class TerminationHandler:
    """A signal handler that raises :class:`Terminated` in the main thread, so that every block is left properly."""

    def __init__(self) -> None:
        self._last = -_BURST_SECONDS

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise; a repetition within a second would only interrupt the clean-up."""
        before, self._last = self._last, time.monotonic()
        if self._last - before >= _BURST_SECONDS:
            raise Terminated(number)


def is_first_process() -> bool:
    """Whether this process prints and writes files: the only one, or the first that a launcher started."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


@contextlib.contextmanager
def raises_on_termination() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise :class:`Terminated`, unless the program handles or ignores them already."""
    handler, before = TerminationHandler(), {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
