"""Work that is shared out to the workers of a Dask cluster, and the sums of what comes of it, made where it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

from ptycho.errors import PtychoError

__all__ = ["sums_by"]

_RETRIES = 2
_LOOK_SECONDS, _WORKER_SECONDS = 5, 60


def sums_by(
    client: Any,
    work: Callable[..., Any],
    runs: Sequence[Sequence[Any]],
    arguments: Callable[[Any], tuple[Any, ...]],
    add: Callable[[Any, Any], Any],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Any]:
    """Work on all parts of something, and what comes of them, summed by each worker before it is sent.

    Every worker is given a run of parts and sums what comes of them two by two, and the sums again, before it goes on.
    If a worker is lost, others repeat what it had. To sum further among the workers would move more and not less,
    since all of it has to come here, and would need a worker that can hold it.

    Parameters
    ----------
    client
        Of ``dask.distributed``.
    work
        What a worker does with the arguments of a part; tried three times.
    runs
        Parts of the work, each as long as there is work in it; the runs as many as workers, or fewer.
    arguments
        Of a part; made when its turn comes.
    add
        The sum of two results.
    progress
        Told of the work done and all of it.

    Yields
    ------
    The sum of each run, in their order.

    Raises
    ------
    PtychoError
        No worker is left, or one part of the work takes every worker down; or what ``work`` raises.
    """
    total, left, homes = _length(runs), list(runs), True
    while left:
        attempt = _attempt(client, work, left, arguments, add, _Told(progress, total - _length(left), total), homes)
        try:
            while (made := next(attempt, None)) is not None:
                yield made
                left.pop(0)
        except _StuckError:
            homes = False


def _attempt(
    client: Any,
    work: Callable[..., Any],
    runs: Sequence[Sequence[Any]],
    arguments: Callable[[Any], tuple[Any, ...]],
    add: Callable[[Any, Any], Any],
    told: _Told,
    homes: bool,
) -> Iterator[Any]:
    """What :func:`sums_by` yields; with homes each run is meant for one worker, as long as that lives."""
    threads = client.nthreads()
    running: dict[Any, int] = {}
    sums: list[list[tuple[int, Any]]] = [[] for _ in runs]
    try:
        for turn in range(max(map(len, runs))):
            for mine, home, run in zip(sums, cycle(threads), runs, strict=False):
                if turn >= len(run):
                    continue
                while len(running) >= 2 * sum(threads.values()) + 2:
                    told(_wait(client, running, homes))
                where = {"workers": [home], "allow_other_workers": True} if homes else {}
                future = client.submit(work, *arguments(run[turn]), pure=False, retries=_RETRIES, **where)
                running[future] = len(run[turn])
                mine.append((0, future))
                while len(mine) > 1 and (mine[-1][0] == mine[-2][0] or turn == len(run) - 1):
                    _add(client, mine, add)
        while running:
            told(_wait(client, running, homes))
        for mine in sums:
            _, last = mine[0]
            _wait(client, {last: 0}, homes)
            yield last.result()
            mine.pop()[1].release()
    finally:  # what nobody wants any more is not worked on
        for future in (*running, *(future for mine in sums for _, future in mine)):
            future.release()


def _add(client: Any, sums: list[tuple[int, Any]], add: Callable[[Any, Any], Any]) -> None:
    """Let the last two sums become one, before any further part is worked on."""
    (level, first), (_, second) = sums[-2:]
    sums[-2:] = [(level + 1, client.submit(add, first, second, pure=False, retries=_RETRIES, priority=10))]


def _wait(client: Any, running: dict[Any, int], homes: bool) -> int:
    """Wait until some of the work is done; forget it, and return its size."""
    import distributed

    looks = 0
    while True:
        try:
            distributed.wait(list(running), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")
            break
        except (TimeoutError, distributed.TimeoutError):
            looks = looks + 1 if not any(client.processing().values()) else 0
            if looks > 1 and homes and client.nthreads():
                raise _StuckError from None
            if looks * _LOOK_SECONDS > _WORKER_SECONDS:
                raise PtychoError(
                    "The cluster has lost all its workers: start some and give the command again."
                ) from None
    ended = [future for future in running if future.done()]
    for future in ended:
        if future.status == "error":
            raise _reason(future.exception())
        if future.status != "finished":
            raise PtychoError("The scheduler of the cluster is gone: start one and give the command again.")
    return sum(running.pop(future) for future in ended)


def _reason(error: BaseException) -> BaseException:
    """The error of a task, in a sentence where it is known."""
    import distributed

    if isinstance(error, distributed.scheduler.KilledWorker):
        return PtychoError(
            f"{error.allowed_failures + 1} workers died of the same chunk, the last of them "
            f"{error.last_worker.address}: give every worker more memory, or a smaller batch_size."
        )
    return error


class _StuckError(Exception):
    """Nobody works: what is meant for a worker that died while there was no other waits for it for ever."""


class _Told:
    """Tells of the work done."""

    def __init__(self, progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
        self.progress, self.done, self.total = progress, done, total

    def __call__(self, more: int) -> None:
        """So much more is done."""
        self.done += more
        if self.progress is not None:
            self.progress(self.done, self.total)


def _length(runs: Sequence[Sequence[Any]]) -> int:
    return sum(len(part) for run in runs for part in run)
