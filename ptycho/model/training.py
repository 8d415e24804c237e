"""What every shim's training loop takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ptycho.config import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.onlooker import offer

__all__ = ["Progress", "TrainResult", "diverged", "is_network", "is_trained", "report"]

_TRAINED_IF = {
    "probe/real": "probe_trainable",
    "probe/imag": "probe_trainable",
    "log_scale": "intensity_scale_trainable",
}


class Progress(Protocol):
    """Told of every finished epoch."""

    def __call__(self, epoch: int, n_epochs: int, metrics: dict[str, float]) -> None:
        """``epoch`` counts from 1; ``metrics`` holds the epoch's mean losses by name."""


@dataclass
class TrainResult:
    """Parameters after training and how they came about."""

    params: dict[str, np.ndarray]
    """As :func:`ptycho.model.pinn.initial_parameters` makes them."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """Per epoch: ``loss``, its terms, ``val_loss``, ``learning_rate``."""
    native: dict[str, bytes] = field(default_factory=dict)
    """Files in the framework's own form to go into the bundle, by name."""


def report(
    progress: Iterable[Progress],
    epoch: int,
    n_epochs: int,
    metrics: dict[str, float],
    params: Callable[[], dict[str, np.ndarray]],
) -> None:
    """Tell everybody of a finished epoch, and offer onlookers the parameters.

    Parameters
    ----------
    progress : who is told.
    epoch, n_epochs, metrics : as :class:`Progress` takes them.
    params : makes host copies of the parameters as they are now.
    """
    for each in progress:
        each(epoch, n_epochs, metrics)
        offer(each, params)


def is_trained(name: str, config: TrainingConfig) -> bool:
    """Whether a parameter of the model is learned: the network's always, probe and scale where they are asked for."""
    return bool(getattr(config, _TRAINED_IF[name])) if name in _TRAINED_IF else True


def is_network(name: str) -> bool:
    """Whether a parameter belongs to the network, whose arithmetic alone may be halved."""
    return name not in _TRAINED_IF


def diverged(epoch: int, loss: float) -> ConfigError:
    """The error to raise when the loss of an epoch is not a number."""
    return ConfigError(
        f"learning_rate: the loss became {loss} in epoch {epoch}; use a smaller learning rate or --gradient_clip 1."
    )
