"""The object that a network makes of its scan while it is still being trained, for those who look on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ptycho.data import Container
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import Progress
from ptycho.observers import Observer, notify
from ptycho.workflows.inference import Inference

__all__ = ["Answering", "answering", "ask_of"]


class Answering:
    """A training's callback for one that looks on: offered the parameters, it offers the object that they make.

    Parameters
    ----------
    progress : who is told and looks on.

    Attributes
    ----------
    inference : the network and the groups of the scan; as long as there is none, nothing is offered.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.inference: Inference | None = None

    def __call__(self, epoch: int, n_epochs: int, metrics: dict[str, float]) -> None:
        """Pass on what is told of an epoch."""
        self.progress(epoch, n_epochs, metrics)

    def observe(self, make_snapshot: Callable[[], dict[str, np.ndarray]]) -> None:
        """Offer the :class:`~ptycho.workflows.inference.Stitched` of the parameters that ``make`` makes."""
        inference = self.inference
        if inference is not None:
            notify(self.progress, lambda: inference.stitched(make_snapshot()))


def answering(progress: Iterable[Progress]) -> list[Progress]:
    """The same callbacks, each one that looks on in an :class:`Answering` of its own."""
    return [Answering(each) if isinstance(each, Observer) else each for each in progress]


def ask_of(progress: Iterable[Progress], model: PtychoPINN, container: Container, device: str) -> None:
    """Give those that look on the network that is going to be trained.

    Parameters
    ----------
    progress : as :func:`answering` makes them.
    model, container : what stays fixed, and the groups of the scan.
    device : of the training's settings.
    """
    asking = [each for each in progress if isinstance(each, Answering)]
    if asking:
        where = model.backend.best_device() if device == "auto" else device
        inference = Inference(model, container, where)
        for each in asking:
            each.inference = inference
