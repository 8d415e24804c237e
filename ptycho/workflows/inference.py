"""What a network makes of a scan, batch by batch, stitched to one object."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho.backends import get_backend, resolve_device
from ptycho.config import InferenceConfig
from ptycho.data import Container
from ptycho.data.prefetch import MAX_PIXELS_READ, prefetch, read_at_once
from ptycho.model.batches import epoch_batches, make_batch
from ptycho.model.bundle import Bundle, probe_of
from ptycho.model.generators import Generator
from ptycho.model.pinn import PtychoPINN, merge_window
from ptycho.observers import notify
from ptycho.physics.propagation import intensity
from ptycho.physics.reassembly import Canvas
from ptycho.workflows.estimate import Estimate

__all__ = ["Inference", "Network", "Stitched", "canvas_of", "finished"]


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


@dataclass(frozen=True)
class Network:
    """A trained model and how it is used, as plain data that may be sent to another process.

    Parameters
    ----------
    bundle : the model.
    side : pixels of a group's own canvas.
    mask : (N, N) bool, good detector pixels; None where all are.
    backend : which computes; None takes the one that trained.
    device : of the backend; None or ``"auto"`` takes its best, where it is opened.
    batch_size, window, crop : as for :func:`ptycho.workflows.reconstruct.reconstruct`.
    generator : the network, where the bundle does not name it.
    """

    bundle: Bundle
    side: int
    mask: np.ndarray | None = None
    backend: str | None = None
    device: str | None = None
    batch_size: int = InferenceConfig.batch_size
    window: str | np.ndarray = "probe"
    crop: int | None = None
    generator: Generator | None = None

    def opened(self, container: Container) -> Inference:
        """On a device of this process.

        Raises
        ------
        BackendError
            The backend is not there.
        """
        bundle = self.bundle
        lender = get_backend(self.backend or bundle.config.backend)
        device = resolve_device(lender, self.device)
        weights = merge_window(bundle.probe)
        scale = bundle.intensity_scale
        model = PtychoPINN(bundle.config.model, lender, scale, self.side, self.mask, weights, self.generator)
        return Inference(model, container, device, self.batch_size, self.window, self.crop)


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
        batch_size: int = InferenceConfig.batch_size,
        window: str | np.ndarray = "probe",
        crop: int | None = None,
    ) -> None:
        self.container, self.device, self.batch_size = container, device, batch_size
        self.window, self.crop = window, crop
        self.lender, self.estimate = model.backend, container.estimate
        self.infer = self.lender.jit(model.patches if self.estimate is None else model.correction)

    def on(self, container: Container) -> Inference:
        """The same network on other groups, with an estimate like these; nothing is compiled again."""
        other = copy.copy(self)
        other.container, other.estimate = container, container.estimate
        return other

    def stitched(
        self, params: Mapping[str, np.ndarray], progress: Callable[[int, int], None] | None = None
    ) -> Stitched:
        """The object that a network with these parameters, host arrays, makes of the scan.

        Parameters
        ----------
        params : as :func:`ptycho.model.pinn.initial_parameters` makes them.
        progress : told of the groups done and their total; an observer receives the object so far.
        """
        canvas = self.answered(params, progress)
        return finished(canvas, probe_of(params), self.estimate)

    def answered(self, params: Mapping[str, np.ndarray], progress: Callable[[int, int], None] | None = None) -> Canvas:
        """The canvas of the groups with the network's answers on it; arguments as for :meth:`stitched`."""
        lender, total = self.lender, len(self.container)
        probe = probe_of(params)
        canvas = canvas_of(self.container, probe, self.window, self.crop)
        lent = {name: lender.asarray(values, device=self.device) for name, values in params.items()}
        for index, host in self._batches():
            batch = {k: lender.asarray(v, device=self.device) for k, v in host.items()}
            answers = lender.to_numpy(self.infer(lent, batch))[: len(index)]
            canvas.add(answers, self.container.positions[index])
            if progress is not None:
                progress(int(index[-1]) + 1, total)
                notify(progress, lambda: finished(canvas, probe, self.estimate))
        return canvas

    def _batches(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Groups of a batch and their arrays; what a store unpacks at once is read at once.

        All batches have one size, so that a network is compiled once: the groups are shared out evenly, and the arrays
        of the last batch end with its last group again, fewer times than there are batches.
        """
        groups, total = self.container, len(self.container)
        size = -(-total // -(-total // self.batch_size))
        at_once = read_at_once(
            size, getattr(groups.X, "frames_per_chunk", 1), MAX_PIXELS_READ // (groups.channels * groups.N**2)
        )
        visits = epoch_batches(total, at_once, 0, None)
        for visit, read in zip(visits, prefetch(lambda visit: make_batch(groups, visit), visits), strict=True):
            for start in range(0, len(visit), size):
                index = visit[start : start + size]
                batch = {name: values[start : start + size] for name, values in read.items()}
                if missing := size - len(index):
                    batch = {k: np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for k, v in batch.items()}
                yield index, batch


def canvas_of(container: Container, probe: np.ndarray, window: str | np.ndarray, crop: int | None) -> Canvas:
    """The empty canvas of some groups: that of their estimate, or the smallest that holds them.

    Parameters
    ----------
    container : the groups.
    probe : (P, N, N) complex.
    window, crop : as for :func:`ptycho.workflows.reconstruct.reconstruct`.
    """
    by_probe = isinstance(window, str) and window == "probe"
    weights = np.sum(intensity(probe), axis=0) if by_probe else window
    if container.estimate is None:
        return Canvas.covering(container.positions.reshape(-1, 2), container.N, weights, crop)
    return Canvas(container.estimate.object.shape, container.estimate.origin, container.N, weights, crop)


def finished(canvas: Canvas, probe: np.ndarray, estimate: Estimate | None) -> Stitched:
    """The object on a canvas with the answers of a network.

    Parameters
    ----------
    canvas : as :meth:`Inference.answered` leaves it.
    probe : (P, N, N) complex.
    estimate : on the same canvas, where the answers are corrections of one.
    """
    average = canvas.result()
    image = average.object
    if estimate is not None:  # made on this canvas: only the correction has to be interpolated
        np.multiply(image, estimate.object, out=image, where=average.weight > 0)
    return Stitched(image, average.weight, average.origin, probe, estimate)
