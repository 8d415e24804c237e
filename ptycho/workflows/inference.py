"""What a network makes of a scan, batch by batch, stitched to one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.data import Container
from ptycho.data.ahead import read_ahead
from ptycho.model.batches import epoch_batches, make_batch
from ptycho.model.bundle import probe_of
from ptycho.model.pinn import PtychoPINN
from ptycho.onlooker import offer
from ptycho.physics.estimate import Estimate
from ptycho.physics.propagation import intensity
from ptycho.physics.reassembly import Canvas

__all__ = ["Inference", "Stitched"]


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


class Inference:
    """A network on its device, and the groups of a scan that it sees; compiled once for any number of weights.

    Parameters
    ----------
    model : what stays fixed.
    container : the groups, with the estimate that the network corrects, if it does.
    device : of the model's backend.
    batch_size : groups at once.
    window, crop : as for :func:`ptycho.workflows.reconstruct.reconstruct`.
    """

    def __init__(
        self,
        model: PtychoPINN,
        container: Container,
        device: Any,
        batch_size: int = 64,
        window: str | np.ndarray = "probe",
        crop: int | None = None,
    ) -> None:
        self.container, self.device, self.batch_size = container, device, batch_size
        self.window, self.crop, self.size = window, crop, model.config.N
        self.lender, self.estimate = model.backend, container.estimate
        self.infer = self.lender.jit(model.patches if self.estimate is None else model.correction)

    def stitched(
        self, params: Mapping[str, np.ndarray], progress: Callable[[int, int], None] | None = None
    ) -> Stitched:
        """The object that a network with these parameters, host arrays, makes of the scan.

        Parameters
        ----------
        params : as :func:`ptycho.model.pinn.initial_parameters` makes them.
        progress : told of the groups done and their total; an onlooker is offered the object so far.
        """
        lender, total = self.lender, len(self.container)
        probe, canvas = probe_of(params), self._canvas(probe_of(params))
        lent = {name: lender.asarray(values, device=self.device) for name, values in params.items()}
        order = epoch_batches(total, self.batch_size, 0, None)
        read = read_ahead(lambda chosen: make_batch(self.container, chosen), order)
        for index, host in zip(order, read, strict=True):
            batch = {k: lender.asarray(v, device=self.device) for k, v in host.items()}
            canvas.add(lender.to_numpy(self.infer(lent, batch)), self.container.positions[index])
            if progress is not None:
                progress(int(index[-1]) + 1, total)
                offer(progress, lambda: self._so_far(canvas, probe))
        return self._so_far(canvas, probe)

    def _canvas(self, probe: np.ndarray) -> Canvas:
        by_probe = isinstance(self.window, str) and self.window == "probe"
        weights = np.sum(intensity(probe), axis=0) if by_probe else self.window
        if self.estimate is None:
            return Canvas.covering(self.container.positions.reshape(-1, 2), self.size, weights, self.crop)
        return Canvas(self.estimate.object.shape, self.estimate.origin, self.size, weights, self.crop)

    def _so_far(self, canvas: Canvas, probe: np.ndarray) -> Stitched:
        average = canvas.result()
        image = average.object
        if self.estimate is not None:  # made on this canvas: only the correction has to be interpolated
            np.multiply(image, self.estimate.object, out=image, where=average.weight > 0)
        return Stitched(image, average.weight, average.origin, probe, self.estimate)
