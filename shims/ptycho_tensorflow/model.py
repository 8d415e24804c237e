"""The model as a ``keras.Model``: parameters as Keras's weights, the loss from the core."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ptycho.config import TrainingConfig, config_from_dict, config_to_dict
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import is_network, is_trained
from ptycho_tensorflow.backend import TensorflowBackend

__all__ = ["Adam", "PtychoModel"]

_FIXED = ("mask", "merge_window")


@keras.saving.register_keras_serializable("ptychopinn")
class PtychoModel(keras.Model):
    """PtychoPINN's parameters as weights and its loss as the steps of Keras's ``fit``.

    Parameters
    ----------
    model : what stays fixed.
    params : host arrays by name.
    config : losses, precision, what is trained.
    strategy : where the weights lie and the steps run; default the device that TensorFlow prefers.
    """

    def __init__(
        self,
        model: PtychoPINN,
        params: dict[str, np.ndarray],
        config: TrainingConfig,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        super().__init__(name="ptychopinn")
        self.model, self.config = model, config
        self.strategy = strategy or tf.distribute.get_strategy()
        self.named: dict[str, keras.Variable] = {}
        with self.strategy.scope():
            for name, values in params.items():
                self.named[name] = self.add_weight(
                    shape=values.shape,
                    initializer=lambda shape, dtype, values=values: tf.constant(values, dtype),
                    trainable=is_trained(name, config),
                    name=name.replace("/", "."),
                )
        self.means: list[keras.metrics.Metric] = []
        self.train_function: Any = None
        self.test_function: Any = None
        self.built = True

    def call(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Object patches (B, C, N, N) complex of a batch as the core makes it."""
        return self.model.patches(self._arrays({k: w.value for k, w in self.named.items()}), batch)

    def to_params(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters, as the core names and shapes them."""
        return {name: tf.convert_to_tensor(weight.value).numpy() for name, weight in self.named.items()}

    def compile_for(self, batch: dict[str, tf.Tensor]) -> None:
        """Keras's ``compile``: Adam, and a mean over the epoch for every loss that ``batch`` shows."""
        values = {k: tf.convert_to_tensor(w.value) for k, w in self.named.items()}
        names = tf.function(self._evaluated, autograph=False).get_concrete_function(values, batch).structured_outputs
        # each replica holds the gradient over their number: the optimiser adds them up
        clip = self.config.gradient_clip and self.config.gradient_clip / self.strategy.num_replicas_in_sync
        with self.strategy.scope():
            self.means = [keras.metrics.Mean(name) for name in names]
            adam = Adam(self.config.learning_rate, 0.9, 0.999, epsilon=1e-8, global_clipnorm=clip)
            adam.build(self.trainable_variables)
        self.compile(optimizer=adam, jit_compile=False)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """See Keras."""
        return list(self.means)

    def train_step(self, batch: dict[str, tf.Tensor]) -> None:
        """One step of the optimiser, on this replica's part of the batch."""
        part, own = _part(batch)
        trained = {k: tf.convert_to_tensor(w.value) for k, w in self.named.items() if w.trainable}
        fixed = {k: tf.convert_to_tensor(w.value) for k, w in self.named.items() if not w.trainable}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            losses = self._evaluated({**trained, **fixed}, part)
        gradients = tape.gradient(losses["loss"], trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        context = tf.distribute.get_replica_context()
        # summed here, so that the norm that is clipped is the whole batch's; the optimiser sums once more
        share = own / (batch["X"].shape[0] * context.num_replicas_in_sync)
        summed = context.all_reduce("sum", [gradient * share for gradient in gradients.values()])
        self.optimizer.apply(summed, [self.named[name] for name in gradients])
        self._record(losses, own)

    def test_step(self, batch: dict[str, tf.Tensor]) -> None:
        """The losses of this replica's part of the batch."""
        part, own = _part(batch)
        self._record(self._evaluated({k: tf.convert_to_tensor(w.value) for k, w in self.named.items()}, part), own)

    def make_train_function(self, force: bool = False) -> None:
        """See Keras."""
        if self.train_function is None or force:
            self.train_function = self._everywhere(self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        """See Keras."""
        if self.test_function is None or force:
            self.test_function = self._everywhere(self.test_step)

    def get_config(self) -> dict[str, Any]:
        """See Keras: what rebuilds the model, before its weights are read."""
        return {
            "config": json.loads(json.dumps(config_to_dict(self.config), default=str)),
            "intensity_scale": self.model.intensity_scale,
            "side": self.model.side,
            "shapes": {name: list(weight.shape) for name, weight in self.named.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PtychoModel:
        """See Keras."""
        training = config_from_dict(TrainingConfig, config["config"])
        model = PtychoPINN(training.model, TensorflowBackend(), config["intensity_scale"], config["side"])
        return cls(model, {name: np.zeros(shape, np.float32) for name, shape in config["shapes"].items()}, training)

    def save_own_variables(self, store: Any) -> None:
        """See Keras: the weights under their names, with dots, and the arrays that stay fixed."""
        for name, values in self.to_params().items():
            store[self.named[name].name] = values
        for name in _FIXED:
            if getattr(self.model, name) is not None:
                store[name] = getattr(self.model, name)

    def load_own_variables(self, store: Any) -> None:
        """See Keras."""
        for weight in self.named.values():
            weight.assign(store[weight.name])
        fixed: dict[str, Any] = {name: np.array(store[name]) for name in _FIXED if name in store.keys()}  # noqa: SIM118
        self.model = dataclasses.replace(self.model, **fixed)

    def _evaluated(self, values: dict[str, tf.Tensor], batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        total, terms = self.model.loss(self._arrays(values), batch, self.config)
        return {"loss": total, **terms}

    def _arrays(self, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The parameters in the precision that they compute in: the network's alone may be halved."""
        kind = tf.bfloat16 if self.config.precision == "bf16" else tf.float32
        return {k: tf.cast(v, kind) if is_network(k) else tf.convert_to_tensor(v) for k, v in values.items()}

    def _record(self, losses: dict[str, tf.Tensor], groups: int) -> None:
        for mean in self.means:
            mean.update_state(losses[mean.name], sample_weight=float(groups))

    def _everywhere(self, step: Callable[[dict[str, tf.Tensor]], None]) -> Callable[[Iterator], dict[str, tf.Tensor]]:
        """``step`` on every device, one graph for each size of a batch: the whole ones and the last of an epoch."""

        def stepped(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            self.strategy.run(step, args=(batch,))
            return {mean.name: mean.result() for mean in self.means}

        graph = TensorflowBackend().jit(stepped)
        return lambda batches: graph(next(batches))


@keras.saving.register_keras_serializable("ptychopinn")
class Adam(keras.optimizers.Adam):
    """Adam with epsilon beside the corrected second moment, as its authors, PyTorch and optax have it.

    Keras has it beside the uncorrected one, where it counts thirty times as much in the first step. ``momentum`` takes
    the place of ``beta_1`` and may change from step to step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.momentum = tf.Variable(self.beta_1, trainable=False, dtype=tf.float32)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """See Keras."""
        number = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        left = self.beta_2**step
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=self.momentum**step,
            beta2_power=left,
            lr=learning_rate,
            beta1=self.momentum,
            beta2=self.beta_2,
            epsilon=self.epsilon * tf.sqrt(1.0 - left),
            grad=gradient,
        )


def _part(batch: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], int]:
    """The groups of a batch that this replica takes, and how many; the first, counted as 0, if none is left."""
    context = tf.distribute.get_replica_context()
    replica, replicas = int(tf.get_static_value(context.replica_id_in_sync_group)), context.num_replicas_in_sync
    groups = batch["X"].shape[0]
    first, last = groups * replica // replicas, groups * (replica + 1) // replicas
    return {name: values[first : max(last, first + 1)] for name, values in batch.items()}, last - first
