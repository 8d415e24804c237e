"""What the workers of a Dask cluster do for :mod:`ptycho.workflows.worker_pool`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import distributed
import numpy as np
from numpy.typing import NDArray

from ptycho.data import Container, Scan
from ptycho.errors import PtychoError
from ptycho.physics.reassembly import PartialReassembly, merge_partials
from ptycho.workflows.inference import Inference, Network
from ptycho.workflows.r_factor import PatternSums, sum_over

if TYPE_CHECKING:
    from ptycho.evaluation import PlacedObject


class NetworkPlugin(distributed.WorkerPlugin):
    """Brings a network to every worker, those that come later too; compiled for the first chunk, kept for the others.

    Parameters
    ----------
    network
        Plain data.
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    def setup(self, worker: Any) -> None:
        """Nothing is opened yet: a worker may never be given a chunk."""
        self._lock = threading.Lock()
        self._inference: Inference | None = None

    def partial(self, chunk: Container) -> PartialReassembly:
        """The reassembled patches of some groups."""
        with self._lock:
            if self._inference is None:
                self._inference = self.network.opened(chunk)
            inference = self._inference
        return inference.on(chunk).answered(self.network.bundle.params).partial()


async def check_readable(scan: Scan, dask_worker: Any) -> None:
    """Read the first pattern of a scan, to see that it can be read here; the worker goes on meanwhile."""
    with _named(dask_worker):
        await asyncio.to_thread(scan.amplitude, slice(0, 1))


def reconstruct_chunk(name: str, chunk: Container) -> PartialReassembly:
    """The reassembled patches that the network of that name infers for a chunk of groups."""
    worker = distributed.get_worker()
    with _named(worker):
        plugin: Any = worker.plugins[name]
        partial: PartialReassembly = plugin.partial(chunk)
        return partial


def merged(first: PartialReassembly, second: PartialReassembly) -> PartialReassembly:
    """Two neighbouring parts as one."""
    return merge_partials([first, second])


def pattern_sums(
    of: PatternSums, placed: PlacedObject, probe: NDArray[np.complexfloating], scan: Scan
) -> NDArray[np.float64]:
    """Sums over the patterns of a chunk, as :func:`ptycho.workflows.r_factor.sum_over`."""
    with _named(distributed.get_worker()):
        return sum_over(of, placed, probe, scan)


@contextmanager
def _named(worker: distributed.Worker) -> Iterator[None]:
    """Say on which worker something is wrong."""
    try:
        yield
    except PtychoError as error:
        raise type(error)(f"On the worker {worker.address}: {error}") from None
