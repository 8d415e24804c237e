"""What every shim's training loop takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ptycho.config import TrainingConfig
from ptycho.errors import ConfigError

__all__ = ["Progress", "TrainResult", "diverged", "is_network", "is_trained"]

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
