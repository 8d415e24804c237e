"""The core's batches as a ``tf.data`` pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho.config import TrainingConfig
from ptycho.model.batches import epoch_batches, make_batch

__all__ = ["PtychoData"]


class PtychoData:
    """Batches of a container, in the order that the core decides.

    Parameters
    ----------
    groups : the container.
    config : batch size, seed, workers.
    epoch : whose order the next pass takes; None keeps the groups' own order. The training loop sets it.
    """

    def __init__(self, groups: Any, config: TrainingConfig, epoch: int | None = None) -> None:
        self.groups, self.config, self.epoch = groups, config, epoch

    def dataset(self) -> tf.data.Dataset:
        """A pass over the groups: dictionaries of tensors, the next ones prepared while one is used."""
        sample = make_batch(self.groups, np.arange(1))
        kinds = [tf.as_dtype(values.dtype) for values in sample.values()]

        def loaded(index: tf.Tensor) -> dict[str, tf.Tensor]:
            values = tf.numpy_function(lambda i: list(make_batch(self.groups, i).values()), [index], kinds)
            return {
                name: tf.ensure_shape(tensor, (None, *host.shape[1:]))
                for (name, host), tensor in zip(sample.items(), values, strict=True)
            }

        order = tf.data.Dataset.from_generator(self._order, output_signature=tf.TensorSpec([None], tf.int64))
        batches = order.map(loaded, num_parallel_calls=max(1, self.config.num_workers), deterministic=True)
        count = -(-len(self.groups) // self.config.batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)

    def _order(self) -> Iterator[np.ndarray]:
        return iter(epoch_batches(len(self.groups), self.config.batch_size, self.config.seed, self.epoch))
