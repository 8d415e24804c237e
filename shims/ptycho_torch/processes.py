"""The processes of one training: none ends without a word, and none is left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch import callbacks as hooks

from ptycho.config.processes import TerminationHandler, is_first_process

__all__ = ["Others", "ending_when_told"]


class Others(hooks.Callback):
    """The processes that Lightning started, which would kill this one without a word when one of them dies."""

    def __init__(self) -> None:
        self.launcher: Any = None
        """Lightning's, once there is one."""
        self.over = threading.Event()

    @property
    def processes(self) -> list[subprocess.Popen]:
        """Those of this machine but this one, if this one started them."""
        return getattr(self.launcher, "procs", [])

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """See Lightning, whose watch is relieved."""
        if self.processes:
            started = list(self.processes)
            self.processes.clear()  # what Lightning's own watch looks at
            self.launcher.procs = started
            threading.Thread(target=self._watch, daemon=True).start()

    def fate(self, error: Exception | None = None) -> str:
        """What became of another process, as far as an error comes of that; empty if nothing did."""
        for _ in range(20 if error and self.processes else 1):  # a connection is lost a little before its process is
            for rank, process in enumerate(self.processes, 1):
                if process.poll():
                    self.kill()
                    return f"Process {rank} of the training ended with code {process.returncode}; {_ADVICE}"
            time.sleep(0.1 if error and self.processes else 0.0)
        if error and not self.processes and torch.distributed.is_initialized() and "gloo" in str(error):
            return f"Another process of the training is gone; {_ADVICE}"
        return ""

    def kill(self) -> None:
        """End them, whatever they are at."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGKILL)

    def _watch(self) -> None:
        while not self.over.wait(0.5):
            sentence = self.fate()
            if sentence and not self.over.wait(_PATIENCE):  # this process waits for the dead one
                sys.stderr.write(f"ptycho: {sentence}\n")
                os._exit(2)


_ADVICE = "the checkpoints up to the last whole epoch are kept, and --resume goes on from there."
_PATIENCE = 10.0
"""Seconds in which an operation that all processes share notices that one is gone."""


@contextlib.contextmanager
def ending_when_told(others: Others, alone: bool = False) -> Iterator[None]:
    """Within it SIGTERM and SIGHUP end this process, and those that it started, at once, with a sentence.

    The exit code is 128 plus the signal's number. Lightning's handler would begin an operation that all processes
    share, whatever they are at, and might wait for ever. Here a thread acts, since the main one may be waiting for
    another process and handle nothing. A handler of the program stays in its place, and where this process trains
    ``alone`` that of the ``ptycho`` command too.
    """
    before = {}
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if handler is signal.SIG_DFL or (isinstance(handler, TerminationHandler) and not alone):
                before[number] = handler
    if not before:
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    for number in before:
        signal.signal(number, lambda *_: None)  # the pipe receives only signals that Python handles
    wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(heard, others, set(before)), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(told, bytes([_OVER]))
        listener.join()
        os.close(heard)
        os.close(told)


def _listen(heard: int, others: Others, numbers: set[int]) -> None:
    while _OVER not in (received := os.read(heard, 64)):
        for number in numbers.intersection(received):
            if is_first_process():
                with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
                    sys.stderr.write(f"ptycho: ended by {signal.Signals(number).name}; {_ADVICE}\n")
                    sys.stderr.flush()
            others.kill()
            for loader in multiprocessing.active_children():
                loader.kill()
            os._exit(128 + number)


_OVER = 0
"""What is written to the pipe, which else receives numbers of signals, to end the thread."""
