"""The training loop: Keras's ``fit``, driven by the configuration."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks as hooks

from ptycho.config import TrainingConfig
from ptycho.errors import BackendError, ConfigError, PtychoError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import Progress, TrainResult
from ptycho_tensorflow.backend import find_devices
from ptycho_tensorflow.data import PtychoData
from ptycho_tensorflow.model import PtychoModel
from ptycho_tensorflow.persistence import native_members

__all__ = ["Trainer"]


class Trainer:
    """Trains a model on a container.

    Parameters
    ----------
    config : epochs, optimiser, hardware, logging; validated.
    progress : told of every finished epoch.
    log_dir : folder for checkpoints and logs; None keeps none.
    """

    def __init__(
        self, config: TrainingConfig, progress: Sequence[Progress] = (), log_dir: str | Path | None = None
    ) -> None:
        self.config, self.progress, self.log_dir = config, tuple(progress), log_dir

    def fit(
        self, model: PtychoPINN, params: dict[str, np.ndarray], training: Any, validation: Any = None
    ) -> TrainResult:
        """Train from ``params`` on ``training``; the parameters of the best validation epoch are returned.

        Parameters
        ----------
        model : what stays fixed.
        params : where to start, host arrays.
        training, validation : containers.

        Raises
        ------
        BackendError
            The hardware asked for is not there, or Keras runs on another framework.
        ConfigError
            The loss stopped being a number.
        """
        config = self.config
        if keras.backend.backend() != "tensorflow":
            raise BackendError(
                f"backend: Keras runs on {keras.backend.backend()!r} in this process and 'tensorflow' needs it on "
                "TensorFlow; set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        strategy = _strategy(config)
        module = PtychoModel(model, params, config, strategy)
        data = PtychoData(training, config, epoch=0)
        batches = data.dataset()
        module.compile_for(_adam(config, strategy, module), next(iter(batches)))
        watched = "val_loss" if validation is not None else "loss"
        steps = config.nepochs * -(-len(training) // config.batch_size)
        history = _History(self.progress, data)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(self.log_dir) if self.log_dir is not None else Path(scratch)
            best = folder / "checkpoints" / "best.keras"
            module.fit(
                batches,
                epochs=config.nepochs,
                validation_data=None if validation is None else PtychoData(validation, config).dataset(),
                callbacks=[history, *_schedule(config, steps, watched), *_keepers(config, folder, best, watched)],
                shuffle=False,
                verbose=0,
            )
            if config.checkpoint and best.is_file():
                module.load_weights(best)
        return TrainResult(module.to_params(), history.values, native_members(module))


@keras.saving.register_keras_serializable("ptychopinn")
class Adam(keras.optimizers.Adam):
    """Adam with epsilon beside the corrected second moment, as its authors, PyTorch and optax have it.

    Keras has it beside the uncorrected one, where it counts thirty times as much in the first step.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """See Keras."""
        number = self._get_variable_index(variable)
        first, second = self._momentums[number].value, self._velocities[number].value
        step = tf.cast(self.iterations + 1, variable.dtype)
        self.assign_add(first, (gradient - first) * (1.0 - self.beta_1))
        self.assign_add(second, (gradient * gradient - second) * (1.0 - self.beta_2))
        root = tf.sqrt(second / (1.0 - self.beta_2**step)) + self.epsilon
        self.assign_sub(variable, first * (learning_rate / (1.0 - self.beta_1**step)) / root)


def _adam(config: TrainingConfig, strategy: tf.distribute.Strategy, module: PtychoModel) -> keras.Optimizer:
    """The optimiser; what it clips is the gradient over the number of replicas, which is what each of them holds."""
    clip = None if config.gradient_clip is None else config.gradient_clip / strategy.num_replicas_in_sync
    with strategy.scope():
        adam = Adam(config.learning_rate, 0.9, 0.999, epsilon=1e-8, global_clipnorm=clip)
        adam.build(module.trainable_variables)
    return adam


def _schedule(config: TrainingConfig, steps: int, watched: str) -> list[hooks.Callback]:
    """The course of the learning rate, as PyTorch's schedulers of these names take it."""
    rate = config.learning_rate
    if config.lr_schedule == "constant":
        return []
    if config.lr_schedule == "plateau":
        return [hooks.ReduceLROnPlateau(watched, factor=0.5, patience=3, mode="min", min_delta=0.0, min_lr=0.1 * rate)]
    return [_Curve(_cosine if config.lr_schedule == "cosine" else _one_cycle, rate, max(1, steps))]


def _keepers(config: TrainingConfig, folder: Path, best: Path, watched: str) -> list[hooks.Callback]:
    """Early stopping, checkpoints and logs."""
    found: list[hooks.Callback] = []
    if config.early_stopping_patience is not None:
        found.append(hooks.EarlyStopping(watched, patience=config.early_stopping_patience, mode="min"))
    if config.checkpoint:
        found.append(hooks.ModelCheckpoint(best, watched, mode="min", save_best_only=True))
        found.append(hooks.ModelCheckpoint(best.with_name("last.keras")))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    found.append(hooks.CSVLogger(folder / "logs" / "metrics.csv"))
    if config.tensorboard:
        found.append(hooks.TensorBoard(folder / "tensorboard", write_graph=False))
    return found


class _History(hooks.Callback):
    """Tells the data which epoch begins; losses per epoch as plain lists; stops where the loss is not a number."""

    def __init__(self, progress: tuple[Progress, ...], data: PtychoData) -> None:
        super().__init__()
        self.progress, self.data, self.values = progress, data, {}

    values: dict[str, list[float]]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.data.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for name, value in logs.items():
            self.values.setdefault(name, []).append(float(value))
        if not np.isfinite(logs["loss"]):
            raise _diverged(epoch + 1, logs["loss"])
        for report in self.progress:
            report(epoch + 1, self.params["epochs"], dict(logs))


class _Curve(hooks.Callback):
    """A learning rate that is set before every step: ``course`` of the part of the training that is done."""

    def __init__(self, course: Any, rate: float, steps: int) -> None:
        super().__init__()
        self.course, self.rate, self.steps = course, rate, steps

    def on_train_begin(self, logs: Any = None) -> None:
        self.done = int(self.model.optimizer.iterations)
        self._set()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        self._set()

    def _set(self) -> None:
        self.model.optimizer.learning_rate = self.rate * self.course(self.done, self.steps)


def _cosine(done: int, steps: int) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * done / steps)


def _one_cycle(done: int, steps: int) -> float:
    """From 1/25 up to 1 in the first 30 %, then down to 1e-4/25, both along a cosine."""
    low, top, end = 0.04, 0.3 * (steps + 1) - 1.0, 4e-6
    if done <= top:
        return low + (1.0 - low) * (0.5 - 0.5 * math.cos(math.pi * done / top))
    return end + (1.0 - end) * (0.5 + 0.5 * math.cos(math.pi * (done - top) / (steps - top)))


def _diverged(epoch: int, loss: float) -> PtychoError:
    return ConfigError(
        f"learning_rate: the loss became {loss} in epoch {epoch}; use a smaller learning rate or --gradient_clip 1."
    )


def _strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """One device, or several that hold the same weights and share each batch."""
    if config.strategy not in ("auto", "mirrored", "ddp"):
        raise ConfigError(f"strategy: got {config.strategy!r}; TensorFlow knows auto and mirrored (or ddp).")
    name = config.accelerator if config.device == "auto" else config.device
    if config.devices > 1 and (name == "cpu" or (name == "auto" and not tf.config.list_physical_devices("GPU"))):
        _divide_cpu(config.devices)
    devices = find_devices(name, config.devices)
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    on_cpu = ":CPU:" in devices[0]
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice() if on_cpu else None)


def _divide_cpu(count: int) -> None:
    """The CPU as ``count`` devices, which TensorFlow allows until it has started."""
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # started: what it has is counted next
        return
