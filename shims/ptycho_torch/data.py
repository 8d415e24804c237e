"""The core's batches as a LightningDataModule."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho.config import TrainingConfig
from ptycho.data.prefetch import prefetch
from ptycho.model.batches import epoch_batches, make_batch

__all__ = ["PtychoData"]


class PtychoData(lightning.LightningDataModule):
    """Training and validation batches, in the order that the core decides.

    Parameters
    ----------
    training, validation : containers; no validation if None.
    config : batch size, seed, workers (processes here; without any, a thread prepares the next batch).
    """

    def __init__(self, training: Any, validation: Any, config: TrainingConfig) -> None:
        super().__init__()
        self.training, self.validation, self.config = training, validation, config
        self.epoch = 0
        """Whose order the next pass takes; the training loop sets it."""

    def train_dataloader(self) -> Any:
        """See Lightning."""
        return self._loader(self.training, _Order(len(self.training), self.config, self))

    def val_dataloader(self) -> Any:
        """See Lightning."""
        if self.validation is None:
            return []
        return self._loader(self.validation, _Order(len(self.validation), self.config, None))

    def _loader(self, groups: Any, order: Sampler) -> Any:
        workers = self.config.num_workers
        if workers == 0:
            return _Ahead(_Batches(groups), order)
        return DataLoader(
            _Batches(groups),
            sampler=order,
            batch_size=None,
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=_hear_nothing,
            pin_memory=torch.cuda.is_available(),
        )


def _hear_nothing(_: int) -> None:
    """In a worker, whose signals are not those of the training process; see :func:`.processes.ending_when_told`."""
    signal.set_wakeup_fd(-1)


class _Order(Sampler):
    """A batch's indices, of which each process takes its share (all, where it cannot be equal), and its groups.

    So the mean gradient of the processes is that of one process with the whole batch. Of the validation, where nothing
    is gained by it, every process takes all.
    """

    def __init__(self, groups: int, config: TrainingConfig, epochs_of: PtychoData | None) -> None:
        self.groups, self.config, self.epochs_of = groups, config, epochs_of

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        epoch, (rank, world) = None, (0, 1)
        if self.epochs_of is not None:
            epoch, (rank, world) = self.epochs_of.epoch, _process()
        for batch in epoch_batches(self.groups, self.config.batch_size, self.config.seed, epoch):
            yield batch if len(batch) % world else batch[rank::world], len(batch)

    def __len__(self) -> int:
        return -(-self.groups // self.config.batch_size)


class _Batches(Dataset):
    def __init__(self, groups: Any) -> None:
        self.groups = groups

    def __getitem__(self, chosen: tuple[np.ndarray, int]) -> dict[str, Any]:
        index, groups = chosen
        return {"groups": groups} | {k: torch.from_numpy(v) for k, v in make_batch(self.groups, index).items()}

    def __len__(self) -> int:
        return len(self.groups)


class _Ahead:
    """Batches one after the other, the next one prepared in a thread."""

    def __init__(self, batches: _Batches, order: Sampler) -> None:
        self.batches, self.order, self.pinned = batches, order, torch.cuda.is_available()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return prefetch(self._made, self.order)

    def __len__(self) -> int:
        return len(self.order)  # type: ignore[arg-type]  # a sampler need not have a length, this one has

    def _made(self, chosen: tuple[np.ndarray, int]) -> dict[str, Any]:
        batch = self.batches[chosen]
        return {k: v.pin_memory() if self.pinned and torch.is_tensor(v) else v for k, v in batch.items()}


def _process() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
