"""Progress on a terminal: bars on standard error, nothing where it is redirected."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from ptycho.config.processes import is_first_process
from ptycho.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger = logging.getLogger(__name__)


class ProgressBars:
    """One bar per step of a command, for as long as the block lasts.

    Parameters
    ----------
    wanted
        False draws nothing; nor is anything drawn where standard error is no terminal, or by the second and further
        processes of a distributed training.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted and sys.stderr.isatty() and is_first_process()
        self._bars: Progress | None = None

    def __enter__(self) -> ProgressBars:
        """Start drawing."""
        if self._wanted:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; the bars stay on the screen."""
        if self._bars is not None:
            self._bars.stop()

    def counter(self, label: str) -> Callable[[int, int], None]:
        """Return a callback ``(done, total)`` that draws a bar with this label."""
        task: TaskID | None = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if self._bars is None:
                return
            if task is None:
                task = self._bars.add_task(visible(label), total=total, note="")
            self._bars.update(task, completed=done, total=total)

        return update

    def epochs(self, label: str) -> Callable[..., None]:
        """Return a callback for training that draws the epochs and the loss."""
        return EpochBar(self._bars, label)


class EpochBar:
    """Training callback: a bar of epochs with the metrics of the last one; a log line where there is no bar."""

    def __init__(self, bars: Progress | None, label: str) -> None:
        self._bars, self._label = bars, label
        self._task: TaskID | None = None

    def __call__(self, epoch: int, n_epochs: int, metrics: Mapping[str, float]) -> None:
        """Draw that ``epoch`` of ``n_epochs`` is done (counted from 1) with these metrics."""
        note = "  ".join(f"{name} {value:.5g}" for name, value in metrics.items())
        if self._bars is None:
            logger.info("%s %d/%d  %s", self._label, epoch, n_epochs, note)
            return
        if self._task is None:
            self._task = self._bars.add_task(visible(self._label), total=n_epochs, note="")
        self._bars.update(self._task, completed=epoch, note=visible(note))
