"""The core's batches on JAX's devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ptycho.config import TrainingConfig
from ptycho.data.prefetch import prefetch
from ptycho.model.batches import epoch_batches, make_batch

__all__ = ["PtychoData"]


class PtychoData:
    """Training and validation batches, in the order that the core decides.

    Parameters
    ----------
    training, validation : containers; no validation if None.
    config : batch size, seed, workers (threads here, which prepare batches ahead).
    devices : share every batch between them.
    """

    def __init__(self, training: Any, validation: Any, config: TrainingConfig, devices: list[jax.Device]) -> None:
        self.training, self.validation, self.config, self.devices = training, validation, config, devices
        mesh = Mesh(np.array(devices), ("batch",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self._shared = NamedSharding(mesh, PartitionSpec("batch"))

    def training_batches(self, epoch: int) -> Iterator[dict[str, jax.Array]]:
        """The batches of an epoch, counted from 0."""
        return self._batches(self.training, epoch)

    def validation_batches(self) -> Iterator[dict[str, jax.Array]]:
        """The validation batches; none without validation."""
        return iter(()) if self.validation is None else self._batches(self.validation, None)

    def _batches(self, groups: Any, epoch: int | None) -> Iterator[dict[str, jax.Array]]:
        order = epoch_batches(len(groups), self.config.batch_size, self.config.seed, epoch)
        made = prefetch(lambda index: make_batch(groups, index), order, max(1, self.config.num_workers))
        return (self._placed(batch) for batch in made)

    def _placed(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """On the devices: shared along the batch; a last batch that they cannot share equally lies on each."""
        shared = len(batch["X"]) % len(self.devices) == 0
        return jax.device_put(batch, self._shared if shared else self.everywhere)
