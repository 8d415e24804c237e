"""Reconstruct a scan with a trained bundle: estimate, batched inference, streamed reassembly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptycho.backends import get_backend, resolve_device
from ptycho.config import InferenceConfig, ModelConfig
from ptycho.data import Scan, make_container
from ptycho.errors import ConfigError
from ptycho.model.bundle import Bundle, bundle_id, origins
from ptycho.model.complete import require_complete
from ptycho.model.generators import Generator
from ptycho.physics.reassembly import group_canvas_size
from ptycho.workflows.estimate import scan_estimate
from ptycho.workflows.inference import Network, Stitched
from ptycho.workflows.reconstruction import Reconstruction
from ptycho.workflows.results import provenance
from ptycho.workflows.scans import ScanOptions
from ptycho.workflows.worker_pool import WorkerPool

__all__ = ["reconstruct", "reconstruction_of", "stitch"]


def reconstruct(
    scan: Scan,
    bundle: Bundle,
    backend: str | None = None,
    batch_size: int = InferenceConfig.batch_size,
    device: str | None = None,
    window: str | np.ndarray = "probe",
    crop: int | None = None,
    n_groups: int | None = None,
    neighbor_count: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    generator: Generator | None = None,
    workers: WorkerPool | None = None,
) -> Reconstruction:
    """The object of a scan from a trained network: a patch for every pattern, reassembled at their positions.

    Parameters
    ----------
    scan : the measurement.
    bundle : a trained model, from any backend.
    backend : which computes; default the one that trained.
    batch_size : groups at once; the result does not depend on it beyond rounding.
    device : of the backend; ``None`` or ``"auto"`` takes its best.
    window, crop : weight of a patch's pixels: ``"probe"`` (the probe's intensity), or as
        :func:`ptycho.physics.reassembly.stitching_window`.
    n_groups : groups to use; default one seeded by every pattern.
    neighbor_count, seed : of the grouping, for gridsize above 1.
    progress : told of the groups done and their total.
    generator : the network, where the bundle's was handed to the training as ``generator=``.
    workers : a Dask cluster's, from :func:`ptycho.workflows.worker_pool.connect_workers`; the result is the same to
        rounding.

    Returns
    -------
    Reconstruction
        As :func:`~ptycho.workflows.results.save_reconstruction`, :func:`~ptycho.evaluation.evaluate` and
        :func:`~ptycho.workflows.refine.refine_result` take it. No metrics are computed:
        :func:`ptycho.workflows.run.reconstruct_scan` does that too.

    Raises
    ------
    ConfigError, DataError
        The scan's patterns have another size than the model's, or cannot be grouped.
    BackendError
        The backend is unknown or its framework is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> from ptycho.model.pinn import initial_parameters
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, backend="numpy")
    >>> params = initial_parameters(model, scan.probe, 1e4, seed=0)
    >>> bundle = ptycho.Bundle(params, config, intensity_scale=3.1, nphotons=1e4, group_canvas_side=64)
    >>> result = ptycho.reconstruct(scan, bundle)
    >>> files = ptycho.save_reconstruction(result, "out")
    >>> ptycho.load_reconstruction("out").object.shape == result.object.shape
    True
    """
    stitched = stitch(
        scan,
        bundle,
        backend,
        batch_size,
        device,
        window,
        crop,
        n_groups,
        neighbor_count,
        seed,
        progress,
        generator,
        workers,
    )
    return reconstruction_of(stitched, scan, bundle)


def reconstruction_of(
    stitched: Stitched, scan: Scan, bundle: Bundle, command: str | None = None, reading: ScanOptions | None = None
) -> Reconstruction:
    """A reassembled object with what it was made from; without metrics.

    Parameters
    ----------
    stitched : from :func:`stitch` of the same scan and bundle.
    scan, bundle : where it comes from.
    command : the command line, for the provenance.
    reading : how the scan was read, likewise.
    """
    return Reconstruction(
        object=stitched.object,
        weight=stitched.weight,
        origin=stitched.origin,
        positions=scan.positions,
        probe=stitched.probe,
        pixel_size=scan.object_pixel_size,
        history=bundle.history,
        provenance=provenance(bundle.config, scan, bundle.config.seed, command, reading)
        | origins(bundle)
        | {"bundle": bundle_id(bundle)},
        mask=scan.mask,
    )


def stitch(
    scan: Scan,
    bundle: Bundle,
    backend: str | None = None,
    batch_size: int = InferenceConfig.batch_size,
    device: str | None = None,
    window: str | np.ndarray = "probe",
    crop: int | None = None,
    n_groups: int | None = None,
    neighbor_count: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    generator: Generator | None = None,
    workers: WorkerPool | None = None,
) -> Stitched:
    """The object alone, with the estimate that the network corrected; arguments and errors as :func:`reconstruct`."""
    config: ModelConfig = bundle.config.model
    require_complete(bundle, generator=generator)
    if scan.N != config.N:
        raise ConfigError(
            f"N: the scan's patterns are {scan.N} x {scan.N} and the model's are {config.N} x {config.N}; crop or bin "
            f"the detector to {config.N} (--crop {config.N}), or train a model for {scan.N}."
        )
    if workers is None:
        resolve_device(get_backend(backend or bundle.config.backend), device)  # before there is any work
    else:
        workers.check(scan)
    here = scan.in_memory()
    container = make_container(here, config.gridsize, n_groups, neighbor_count, seed, at_most=0)
    if config.start_iterations:
        container.estimate = scan_estimate(here, bundle.probe, bundle.nphotons, config.start_iterations, seed=seed)
    side = max(bundle.group_canvas_side, group_canvas_size(container.relative, scan.N, config.gridsize))
    network = Network(bundle, side, scan.mask, backend, device, batch_size, window, crop, generator)
    if workers is not None:
        return workers.stitched(network, scan, container, progress)
    return network.opened(container).stitched(bundle.params, progress)
