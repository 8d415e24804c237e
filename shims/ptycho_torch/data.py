"""The core's batches as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.config import TrainingConfig
from ptycho.model.batches import epoch_batches, make_batch

__all__ = ["PtychoData"]


class PtychoData(lightning.LightningDataModule):
    """Training and validation batches, in the order that the core decides.

    Parameters
    ----------
    training, validation : containers; no validation if None.
    config : batch size, seed, workers.
    """

    def __init__(self, training: Any, validation: Any, config: TrainingConfig) -> None:
        super().__init__()
        self.training, self.validation, self.config = training, validation, config

    def train_dataloader(self) -> DataLoader:
        """See Lightning."""
        return self._loader(self.training, _Order(len(self.training), self.config, self))

    def val_dataloader(self) -> Any:
        """See Lightning."""
        if self.validation is None:
            return []
        return self._loader(self.validation, _Order(len(self.validation), self.config, None))

    def _loader(self, groups: Any, order: Sampler) -> DataLoader:
        workers = self.config.num_workers
        return DataLoader(
            _Batches(groups),
            sampler=order,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _Order(Sampler):
    """Index arrays, one a batch; with several processes each takes every n-th batch."""

    def __init__(self, groups: int, config: TrainingConfig, epochs_of: PtychoData | None) -> None:
        self.groups, self.config, self.epochs_of = groups, config, epochs_of

    def __iter__(self) -> Iterator[np.ndarray]:
        epoch = None
        if self.epochs_of is not None:
            epoch = self.epochs_of.trainer.current_epoch if self.epochs_of.trainer else 0
        batches = epoch_batches(self.groups, self.config.batch_size, self.config.seed, epoch)
        rank, world = _process()
        return iter(batches[rank : len(batches) - len(batches) % world if len(batches) >= world else None : world])

    def __len__(self) -> int:
        world = _process()[1]
        batches = -(-self.groups // self.config.batch_size)
        return max(1, batches // world)


class _Batches(Dataset):
    def __init__(self, groups: Any) -> None:
        self.groups = groups

    def __getitem__(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(values) for name, values in make_batch(self.groups, index).items()}

    def __len__(self) -> int:
        return len(self.groups)


def _process() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
