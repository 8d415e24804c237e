"""Prefetching: the next items are read while the current one is used."""

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
    """``fetch(item)`` for every item of ``order``, in that order, with the next ones being fetched in threads.

    Parameters
    ----------
    fetch
        Reads one item; its exception is raised when that item is due.
    order
        The items; may be endless, since no more are requested than are prefetched.
    threads
        Number of items that are fetched at once; one more waits to be used. 0 fetches each item when it is due.
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
    """Number of patterns to read at once, so that a store does not decompress the same chunk again and again.

    Parameters
    ----------
    used
        Number of patterns used at once.
    frames_per_chunk
        Number of patterns that the store decompresses at once.
    most
        Upper limit, unless more are used at once.

    Returns
    -------
    int
        A multiple of ``used``.
    """
    return used * max(1, -(-min(frames_per_chunk, most) // used))
