"""Workers and schedulers that are lost: the work is repeated, or ends in a sentence."""

import asyncio

import numpy as np
import pytest

from ptycho.errors import DataError, PtychoError
from ptycho.workflows import worker_pool
from ptycho.workflows.worker_pool import WorkerPool
from tests.support import simulated_scan

distributed = pytest.importorskip("distributed")
LOST = [
    distributed.comm.CommClosedError("in <TCP>: Stream is closed"),
    distributed.client.FuturesCancelledError([]),
    ConnectionResetError("reset"),
    OSError("Timed out trying to connect"),
    TimeoutError(),
    asyncio.CancelledError(),
]


class Client:
    """A client whose `run` has these outcomes, one after the other."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def run(self, *_, **__):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def nthreads(self):
        return self.run()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(worker_pool, "_LOOK_PAUSE_SECONDS", 0)


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(M=4, N=16)


@pytest.mark.parametrize("error", LOST[:5], ids=lambda error: type(error).__name__)
def test_a_worker_that_is_lost_during_the_check_is_checked_again(scan, error):
    client = Client({"tcp://a": None, "tcp://b": error}, {"tcp://a": None})
    WorkerPool(client).check(scan)
    assert not client.outcomes
    with pytest.raises(PtychoError, match="The worker tcp://b was lost before the work began: start it again"):
        WorkerPool(Client(*[{"tcp://b": error}] * 3)).check(scan)


def test_no_worker_left(scan):
    with pytest.raises(PtychoError, match="lost all its workers before the work began"):
        WorkerPool(Client({}, {}, {})).check(scan)
    with pytest.raises(PtychoError, match="lost all its workers"):
        WorkerPool(Client({})).r_factor(None, np.ones((1, 16, 16)), scan)


def test_what_a_worker_cannot_read_is_said_at_once(scan):
    refusal = DataError("On the worker tcp://a: scan.h5 does not exist.")
    with pytest.raises(DataError, match="On the worker tcp://a"):
        WorkerPool(Client({"tcp://a": refusal})).check(scan)


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_lost_scheduler_is_a_sentence(scan, error):
    with pytest.raises(PtychoError, match=r"The connection to the cluster was lost .*: start a scheduler and workers"):
        WorkerPool(Client(error)).check(scan)
    with pytest.raises(PtychoError, match="The connection to the cluster was lost"):
        WorkerPool(Client(error)).r_factor(None, np.ones((1, 16, 16)), scan)
