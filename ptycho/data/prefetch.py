"""Reading ahead: what comes next is fetched while what came last is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

MAX_PIXELS_READ = 2**21
"""Pixels of patterns that are read at once, of several times that many in memory, where less is used at once."""

Wanted = TypeVar("Wanted")
Fetched = TypeVar("Fetched")


def prefetch(fetch: Callable[[Wanted], Fetched], order: Iterable[Wanted], threads: int = 1) -> Iterator[Fetched]:
    """``fetch(wanted)`` for everything in an order, in that order, the next ones under way in threads.

    Parameters
    ----------
    fetch
        Reads one thing; what it raises is raised where that thing's turn comes.
    order
        What is wanted; may be endless, it is asked for no more than is fetched ahead.
    threads
        How many are fetched at once; one more than that waits to be used. 0 fetches each when its turn comes.
    """
    if threads == 0:
        yield from map(fetch, order)
        return
    remaining = iter(order)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
    waiting: deque[Future[Fetched]] = deque()
    try:
        waiting.extend(pool.submit(fetch, wanted) for wanted in islice(remaining, threads + 1))
        while waiting:
            fetched = waiting.popleft().result()
            waiting.extend(pool.submit(fetch, wanted) for wanted in islice(remaining, 1))
            yield fetched
    finally:
        pool.shutdown(cancel_futures=True)


def read_at_once(used: int, frames_per_chunk: int, most: int) -> int:
    """How many patterns to read at once, so that a store does not unpack the same piece again and again.

    Parameters
    ----------
    used
        How many are used at once.
    frames_per_chunk
        How many a store unpacks at once.
    most
        No more are read, unless more are used.

    Returns
    -------
    int
        A multiple of ``used``.
    """
    return used * max(1, -(-min(frames_per_chunk, most) // used))
