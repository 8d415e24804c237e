"""What every shim's training loop takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = ["Progress", "TrainResult"]


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
