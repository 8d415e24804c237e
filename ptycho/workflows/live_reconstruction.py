"""The reconstruction that observers of a training can ask for while the network is still being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ptycho.backends import resolve_device
from ptycho.data import Container
from ptycho.model.pinn import PtychoPINN
from ptycho.observers import EpochProgress, Observer, notify
from ptycho.workflows.inference import Inference

__all__ = ["LiveReconstruction", "attach_network", "with_live_reconstruction"]


class LiveReconstruction:
    """Callback of a training that turns the parameters of an epoch into the object for an observer.

    Parameters
    ----------
    progress : an observer of the training.

    Attributes
    ----------
    inference : the network and the groups of the scan; None, and nothing is shown, until :func:`attach_network`.
    """

    def __init__(self, progress: EpochProgress) -> None:
        self.progress = progress
        self.inference: Inference | None = None

    def __call__(self, epoch: int, n_epochs: int, metrics: dict[str, float]) -> None:
        """Pass on the losses of an epoch."""
        self.progress(epoch, n_epochs, metrics)

    def observe(self, make_snapshot: Callable[[], dict[str, np.ndarray]]) -> None:
        """Pass on the :class:`~ptycho.workflows.inference.Stitched` of the parameters in the snapshot."""
        inference = self.inference
        if inference is not None:
            notify(self.progress, lambda: inference.stitched(make_snapshot()))


def with_live_reconstruction(progress: Iterable[EpochProgress]) -> list[EpochProgress]:
    """The same callbacks, each observer wrapped in a :class:`LiveReconstruction` of its own."""
    return [LiveReconstruction(each) if isinstance(each, Observer) else each for each in progress]


def attach_network(progress: Iterable[EpochProgress], model: PtychoPINN, container: Container, device: str) -> None:
    """Give the observers the network that is going to be trained.

    Parameters
    ----------
    progress : as :func:`with_live_reconstruction` makes them.
    model, container : the model without its parameters, and the groups of the scan.
    device : of the training's settings.
    """
    wrapped = [each for each in progress if isinstance(each, LiveReconstruction)]
    if wrapped:
        where = resolve_device(model.backend, device)
        inference = Inference(model, container, where)
        for each in wrapped:
            each.inference = inference
