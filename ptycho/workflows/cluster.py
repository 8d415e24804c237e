"""Reconstruct a scan file on a Dask cluster, to the result of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho.config import InferenceConfig
from ptycho.model.bundle import Bundle
from ptycho.workflows.results import Reconstruction
from ptycho.workflows.run import Counters, reconstruct_scan
from ptycho.workflows.scans import ScanOptions, open_scan_for_others
from ptycho.workflows.worker_pool import LOCAL, connect_workers

__all__ = ["connect_workers", "reconstruct_on_cluster"]


def reconstruct_on_cluster(
    path: str | Path,
    bundle: Bundle,
    config: InferenceConfig | None = None,
    *,
    cluster: Any = LOCAL,
    options: ScanOptions | None = None,
    backend: str | None = None,
    split_frc: bool = False,
    counters: Counters | None = None,
    command: str = "",
) -> Reconstruction:
    """Reconstruct a scan file on the workers of a Dask cluster; the result is that of one process to rounding.

    Parameters
    ----------
    path
        Of the scan; the workers read the same absolute path.
    options
        How it is read.
    cluster
        As for :func:`connect_workers`.
    bundle, config, backend, split_frc, counters, command
        As for :func:`ptycho.workflows.run.reconstruct_scan`.

    Raises
    ------
    ConfigError, DataError, BackendError
        The scan does not fit the model, or a worker cannot read it or compute, which is then named.
    PtychoError
        The workers are lost.
    """
    scan = open_scan_for_others(path, options)
    with connect_workers(cluster) as workers:
        return reconstruct_scan(
            scan,
            bundle,
            config,
            backend=backend,
            split_frc=split_frc,
            counters=counters,
            command=command,
            workers=workers,
        )
