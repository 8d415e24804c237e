"""Prefetch: in order, no further than asked for, and an error is raised in its turn."""

import threading

import pytest

from ptycho.data.prefetch import prefetch


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_order_is_kept_and_an_endless_order_is_not_exhausted(threads):
    asked = []

    def numbers():
        k = 0
        while True:
            asked.append(k)
            yield k
            k += 1

    found = prefetch(lambda k: k * k, numbers(), threads)
    assert [next(found) for _ in range(20)] == [k * k for k in range(20)]
    found.close()
    assert len(asked) <= 20 + threads + 1


def test_the_next_is_fetched_while_the_last_is_used():
    reached = threading.Event()

    def fetch(k):
        if k == 1:
            reached.set()
        return k

    found = prefetch(fetch, range(5))
    assert next(found) == 0
    assert reached.wait(10)  # nobody has asked for it
    assert list(found) == [1, 2, 3, 4]


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_in_its_turn(threads):
    found = prefetch(lambda k: 1 // (3 - k), range(10), threads)
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert threading.active_count() < 20
