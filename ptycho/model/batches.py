"""Order of the groups, their division into batches and the arrays of a batch: the same in every framework."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ptycho.physics.patches import read_patches

__all__ = ["Groups", "epoch_batches", "make_batch"]


class Groups(Protocol):
    """The part of :class:`ptycho.data.container.Container` that batches are made from."""

    X: Any
    positions: np.ndarray
    patches: np.ndarray | None
    estimate: Any

    def __len__(self) -> int:
        """The number of groups."""


def epoch_batches(groups: int, batch_size: int, seed: int, epoch: int | None) -> list[np.ndarray]:
    """Indices of the groups of each batch of an epoch.

    Parameters
    ----------
    groups : number of groups.
    batch_size : groups per batch; the last may be smaller.
    seed, epoch : together they determine the order; ``epoch=None`` keeps the original order.
    """
    order = np.arange(groups)
    if epoch is not None:
        order = np.random.default_rng([seed, epoch]).permutation(groups)
    return [order[first : first + batch_size] for first in range(0, groups, batch_size)]


def make_batch(groups: Groups, index: np.ndarray) -> dict[str, np.ndarray]:
    """Host arrays of a batch, as :class:`ptycho.model.pinn.PtychoPINN` expects them, float32 and complex64.

    Parameters
    ----------
    groups : the container.
    index : (B,) groups of the batch.
    """
    X = groups.X[index]
    positions = groups.positions[index]
    relative = positions - positions.mean(axis=1, keepdims=True)
    batch = {"X": np.astype(X, np.float32), "relative": np.astype(relative, np.float32)}
    if groups.estimate is not None:
        on_canvas = positions - np.asarray(groups.estimate.origin)
        batch["start"] = read_patches(groups.estimate.object, on_canvas, X.shape[1])
    if groups.patches is not None:
        truth = np.permute_dims(groups.patches[index], (0, 3, 1, 2))
        batch["patches"] = np.astype(truth, np.complex64)
    return batch
