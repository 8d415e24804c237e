"""Reconstruct a scan with a trained bundle: estimate, batched inference, streamed stitching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptycho.backend import get_backend
from ptycho.config import ModelConfig
from ptycho.data import Scan, make_container
from ptycho.data.ahead import read_ahead
from ptycho.errors import ConfigError
from ptycho.model.batches import epoch_batches, make_batch
from ptycho.model.bundle import Bundle
from ptycho.model.generators import Generator
from ptycho.model.pinn import PtychoPINN, merge_window
from ptycho.physics.estimate import Estimate
from ptycho.physics.propagation import intensity
from ptycho.physics.reassembly import Canvas, group_canvas_size
from ptycho.workflows.train import scan_estimate

__all__ = ["Stitched", "reconstruct"]


@dataclass
class Stitched:
    """A scan's object as the network sees it."""

    object: np.ndarray
    """(H, W) complex64; 1 where no patch lies."""
    weight: np.ndarray
    """(H, W) float32, summed window; 0 where no patch lies."""
    origin: tuple[float, float]
    """Position (row, col) of pixel [0, 0]."""
    probe: np.ndarray
    """(P, N, N) complex64, sqrt(photons), in the model's photon units."""
    estimate: Estimate | None
    """The physics estimate that the network corrected; None where the model uses none."""


def reconstruct(
    scan: Scan,
    bundle: Bundle,
    backend: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
    window: str | np.ndarray = "probe",
    crop: int | None = None,
    n_groups: int | None = None,
    neighbor_count: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    generator: Generator | None = None,
) -> Stitched:
    """Infer every pattern's patch and stitch the patches at their positions.

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

    Raises
    ------
    ConfigError
        The scan's patterns have another size than the model's.
    """
    config: ModelConfig = bundle.config.model
    if scan.N != config.N:
        raise ConfigError(
            f"N: the scan's patterns are {scan.N} x {scan.N} and the model's are {config.N} x {config.N}; crop or bin "
            f"the detector to {config.N} (--crop {config.N}), or train a model for {scan.N}."
        )
    lender = get_backend(backend or bundle.config.backend)
    where = lender.best_device() if device in (None, "auto") else device
    scan = scan.kept()
    container = make_container(scan, config.gridsize, n_groups, neighbor_count, seed, at_most=0)
    estimate = None
    if config.estimate_passes:
        estimate = scan_estimate(scan, bundle.probe, bundle.nphotons, config.estimate_passes, seed=seed)
        container.estimate = estimate
    side = max(bundle.side, group_canvas_size(container.relative, scan.N, config.gridsize))
    model = PtychoPINN(config, lender, bundle.intensity_scale, side, scan.mask, merge_window(bundle.probe), generator)
    params = {name: lender.asarray(values, device=where) for name, values in bundle.params.items()}
    weights = np.sum(intensity(bundle.probe), axis=0) if isinstance(window, str) and window == "probe" else window
    if estimate is None:
        canvas = Canvas.covering(container.positions.reshape(-1, 2), scan.N, weights, crop)
    else:
        canvas = Canvas(estimate.object.shape, estimate.origin, scan.N, weights, crop)
    infer = lender.jit(model.patches if estimate is None else model.correction)
    order = epoch_batches(len(container), batch_size, seed, None)
    for index, host in zip(order, read_ahead(lambda chosen: make_batch(container, chosen), order), strict=True):
        batch = {k: lender.asarray(v, device=where) for k, v in host.items()}
        canvas.add(lender.to_numpy(infer(params, batch)), container.positions[index])
        if progress is not None:
            progress(int(index[-1]) + 1, len(container))
    stitched = canvas.result()
    image = stitched.object
    if estimate is not None:  # the estimate was made on this canvas: only the correction has to be interpolated
        image = np.where(stitched.weight > 0, estimate.object * image, image)
    return Stitched(image, stitched.weight, stitched.origin, bundle.probe, estimate)
