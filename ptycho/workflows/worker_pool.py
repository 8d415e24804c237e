"""Workers of a Dask cluster: each reconstructs chunks of a scan, and the chunks are summed.

A chunk is a compact part of the field. Its worker reads the patterns from the scan file itself, runs the network,
reassembles the patches on a canvas of that part alone and keeps it. The canvases of neighbouring chunks are summed two
by two on the worker that has them, and their sums again; one canvas of each worker comes back. Functions and canvas are
those of a reconstruction in one process. What the network corrects, the estimate from plain physics, is made where the
command runs: every one of its small steps needs the one before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data import Container, Scan
from ptycho.data.container import GroupedAmplitudes
from ptycho.data.regions import compact_runs
from ptycho.errors import BackendError, ConfigError, PtychoError
from ptycho.evaluation import PlacedObject
from ptycho.observers import Progress
from ptycho.physics.reassembly import canvas_for
from ptycho.workflows.cluster_sums import sums_by
from ptycho.workflows.inference import Network, Stitched, canvas_of, finished
from ptycho.workflows.r_factor import PatternSums, r_factor_from

__all__ = ["LOCAL", "WorkerPool", "connect_workers"]

LOCAL = "local"
"""The cluster that is a process for every core of this machine."""
_CHUNK = 2048
"""Most groups in a chunk: its canvas is then mostly its own, and not what it shares with its neighbours."""
_CHUNKS_PER_THREAD = 4
"""Least chunks for a thread, so that all end at about the same time."""
_CONNECT_SECONDS, _WORKER_SECONDS = 10, 60
_LOOKS, _LOOK_PAUSE_SECONDS = 3, 1.0
_LOST = (OSError, TimeoutError, concurrent.futures.CancelledError, asyncio.CancelledError)
"""What Dask raises when a process that it is connected to ends; ``CommClosedError`` is an ``OSError``."""


@contextlib.contextmanager
def connect_workers(cluster: Any = LOCAL) -> Iterator[WorkerPool | None]:
    """The workers of a Dask cluster.

    Parameters
    ----------
    cluster
        ``"local"`` starts a process for every core of this machine, ``"4"`` four of them; ``"tcp://host:port"`` is the
        address of a scheduler; a cluster of ``dask.distributed`` or its client is taken as it is, and left running.
        None means this process; the context then gives None.

    Raises
    ------
    BackendError
        ``dask.distributed`` is not installed.
    ConfigError
        No scheduler answers there, or it has no workers.
    """
    if cluster is None:
        yield None
        return
    try:
        import distributed
    except ImportError as error:
        raise BackendError(
            "To reconstruct on a cluster dask.distributed has to be installed: pip install ptychopinn[dask]."
        ) from error
    for name in ("distributed", "distributed.client"):  # a lost worker's chunk is repeated, a lost scheduler raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    wanted = 1
    with contextlib.ExitStack() as ending:
        if isinstance(cluster, str) and (cluster == LOCAL or cluster.isdigit()):
            local = distributed.LocalCluster(
                n_workers=None if cluster == LOCAL else int(cluster),
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address="127.0.0.1:0",
                local_directory=ending.enter_context(tempfile.TemporaryDirectory()),
                silence_logs=logging.CRITICAL,
            )
            cluster, wanted = ending.enter_context(local), len(local.worker_spec)
        client = cluster if isinstance(cluster, distributed.Client) else ending.enter_context(_connected(cluster))
        try:
            client.wait_for_workers(wanted, timeout=_WORKER_SECONDS)
        except TimeoutError as error:
            address = client.scheduler_info()["address"]
            raise ConfigError(
                f"dask: the scheduler at {address} has no workers: 'dask worker {address}' adds one."
            ) from error
        yield WorkerPool(client)


def _connected(cluster: Any) -> Any:
    """A client of a cluster or of a scheduler's address."""
    import distributed

    try:
        return distributed.Client(cluster, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"dask: no scheduler answers at {cluster}: start one with 'dask scheduler' and give the address that it "
            "prints, tcp://host:port, or give none for processes of this machine."
        ) from error


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Turn the loss of the scheduler, or of the connection to it, into a sentence."""
    try:
        yield
    except PtychoError:
        raise
    except _LOST as error:
        raise PtychoError(
            f"The connection to the cluster was lost ({type(error).__name__}): start a scheduler and workers and give "
            "the command again."
        ) from error


class WorkerPool:
    """Workers of a Dask cluster that run a network on parts of a scan and compute the R-factor of the result.

    Parameters
    ----------
    client
        Of ``dask.distributed``, connected.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @_connection()
    def stitched(self, network: Network, scan: Scan, container: Container, progress: Progress | None) -> Stitched:
        """What a network makes of a scan, as :meth:`ptycho.workflows.inference.Inference.stitched`.

        Parameters
        ----------
        network
            Sent to every worker once.
        scan
            Whose patterns the workers read.
        container
            Its groups, with the estimate that the network corrects, if it does.
        progress
            Told of the groups done and their total.
        """
        from ptycho.workflows import cluster_worker

        probe, name = network.bundle.probe, f"ptycho-{uuid.uuid4().hex}"
        runs = self._runs(container.centres, network.batch_size)
        sent = dataclasses.replace(network, bundle=dataclasses.replace(network.bundle, native={}))
        self._client.register_plugin(cluster_worker.NetworkPlugin(sent), name=name)
        canvas = canvas_of(container, probe, network.window, network.crop)
        try:
            for partial in sums_by(
                self._client,
                cluster_worker.reconstruct_chunk,
                runs,
                lambda groups: (name, _part_of(container, scan, groups)),
                cluster_worker.merged,
                progress,
            ):
                canvas.add_partial(partial)
        finally:
            with contextlib.suppress(Exception):  # a scheduler that is gone keeps nothing
                self._client.unregister_worker_plugin(name)
        return finished(canvas, probe, container.estimate)

    @_connection()
    def r_factor(
        self,
        placed: PlacedObject,
        probe: NDArray[np.complexfloating],
        scan: Scan,
        progress: Progress | None = None,
    ) -> float:
        """The R-factor of an object, as :func:`ptycho.workflows.r_factor.scan_r_factor`."""
        from ptycho.workflows import cluster_worker

        runs = self._runs(scan.positions)

        def summed(of: PatternSums) -> NDArray[np.float64]:
            def sent(numbers: NDArray[np.int64]) -> tuple[Any, ...]:
                return of, Part.of(placed, scan.positions[numbers], scan.N), probe, _bare(scan, numbers)

            return np.sum(
                list(sums_by(self._client, cluster_worker.pattern_sums, runs, sent, np.add, progress)), axis=0
            )

        return r_factor_from(summed)

    def _runs(self, positions: NDArray[np.float64], unit: int = 1) -> list[list[NDArray[np.int64]]]:
        """A run of chunks for every worker."""
        threads = self._client.nthreads()
        if not threads:
            raise PtychoError("The cluster has lost all its workers: start some and give the command again.")
        at_most = min(_CHUNK, -(-len(positions) // (_CHUNKS_PER_THREAD * sum(threads.values()))))
        return compact_runs(positions, len(threads), at_most, unit)

    @_connection()
    def check(self, scan: Scan) -> None:
        """See that every worker can read the patterns of a scan, before there is any work.

        Raises
        ------
        DataError
            One cannot; it is named, and the file.
        """
        from ptycho.workflows import cluster_worker

        first = np.zeros(1, np.int64)
        for _ in range(_LOOKS):
            found = self._client.run(cluster_worker.check_readable, _bare(scan, first), on_error="return")
            problems = {address: found[address] for address in sorted(found) if isinstance(found[address], Exception)}
            for problem in problems.values():
                if isinstance(problem, PtychoError) or not isinstance(problem, _LOST):
                    raise problem
            if found and not problems:
                return
            time.sleep(_LOOK_PAUSE_SECONDS)  # in which a lost worker is started again, or forgotten
        lost = f"The worker {next(iter(problems))} was lost" if problems else "The cluster has lost all its workers"
        raise PtychoError(f"{lost} before the work began: start it again and give the command again.")


@dataclass(frozen=True)
class Part:
    """A part of an object and where it lies."""

    object: NDArray[np.complexfloating]
    origin: tuple[float, float]

    @classmethod
    def of(cls, placed: PlacedObject, positions: NDArray[np.float64], size: int) -> Part:
        """What patches of that size at these positions see of an object."""
        (height, width), origin = canvas_for(positions, size)
        image = np.asarray(placed.object)
        first = [round(here - there) for here, there in zip(origin, placed.origin, strict=True)]
        low = [max(0, start) for start in first]
        place = tuple(slice(a, start + n) for a, start, n in zip(low, first, (height, width), strict=True))
        corner = (float(placed.origin[0]) + low[0], float(placed.origin[1]) + low[1])
        return cls(np.ascontiguousarray(image[place]), corner)


def _part_of(container: Container, scan: Scan, groups: NDArray[np.int64]) -> Container:
    """Some groups of a container as they are sent: with patterns that are read where they arrive."""
    indices, positions = container.indices[groups], container.positions[groups]
    numbers, where = np.unique(indices, return_inverse=True)
    X = GroupedAmplitudes(_bare(scan, numbers), where.reshape(indices.shape), container.amplitude_factor)
    estimate = container.estimate
    near = None if estimate is None else Part.of(estimate, positions, container.N)
    return Container(X, positions, indices, container.amplitude_factor, estimate=near)


def _bare(scan: Scan, numbers: NDArray[np.int64]) -> Scan:
    """Some patterns of a scan, with what it takes to read them and no more."""
    bare = scan.replace(probe=None, object=None, object_origin=None, scan_index=None, metadata={})
    return bare.subset(numbers)
