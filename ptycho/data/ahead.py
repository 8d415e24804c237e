"""Reading ahead: what comes next is fetched while what came last is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Wanted = TypeVar("Wanted")
Fetched = TypeVar("Fetched")


def read_ahead(fetch: Callable[[Wanted], Fetched], order: Iterable[Wanted], threads: int = 1) -> Iterator[Fetched]:
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
