"""The training loop: Keras's ``fit``, driven by the configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks as hooks

from ptycho.config import TrainingConfig
from ptycho.errors import BackendError, ConfigError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.schedules import Schedule
from ptycho.model.training import Progress, TrainResult, diverged, report
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
    progress : told of every finished epoch; a callback of Keras among them takes part in the whole training.
    log_dir : folder for checkpoints and logs; None keeps none.

    Raises
    ------
    BackendError
        The hardware asked for is not there, or Keras runs on another framework.
    ConfigError
        The devices cannot share the work as asked.
    """

    def __init__(
        self, config: TrainingConfig, progress: Sequence[Progress] = (), log_dir: str | Path | None = None
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise BackendError(
                f"backend: Keras runs on {keras.backend.backend()!r} in this process and 'tensorflow' needs it on "
                "TensorFlow; set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        self.config, self.log_dir = config, log_dir
        self.callbacks = [each for each in progress if isinstance(each, hooks.Callback)]
        self.progress = tuple(each for each in progress if not isinstance(each, hooks.Callback))
        self.strategy = _strategy(config)

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
        ConfigError
            The loss stopped being a number.
        """
        config = self.config
        module = PtychoModel(model, params, config, self.strategy)
        data = PtychoData(training, config, epoch=0)
        batches = data.dataset()
        module.compile_for(next(iter(batches)))
        watched = "val_loss" if validation is not None else "loss"
        steps = config.nepochs * -(-len(training) // config.batch_size)
        history = _History(self.progress, data)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(self.log_dir) if self.log_dir is not None else Path(scratch)
            best = folder / "checkpoints" / "best.keras"
            told = [history, _Course(Schedule(config, steps), watched), *self.callbacks]
            told += _keepers(config, folder, best, watched)
            callbacks = hooks.CallbackList(told, add_history=True, model=module, epochs=config.nepochs)
            watching = None if validation is None else PtychoData(validation, config).dataset()
            try:
                module.fit(batches, epochs=config.nepochs, validation_data=watching, callbacks=callbacks, shuffle=False)
            except BaseException:
                callbacks.on_train_end()  # closes the logs
                raise
            if config.checkpoint and best.is_file():
                module.load_weights(best)
        return TrainResult(module.to_params(), history.values, native_members(module))


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
        logs["learning_rate"] = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        for name, value in logs.items():
            self.values.setdefault(name, []).append(float(value))
        if not np.isfinite(logs["loss"]):
            raise diverged(epoch + 1, logs["loss"])
        report(self.progress, epoch + 1, self.params["epochs"], dict(logs), self.model.to_params)


class _Course(hooks.Callback):
    """Learning rate and momentum of every step, from the core's schedule."""

    def __init__(self, schedule: Schedule, watched: str) -> None:
        super().__init__()
        self.schedule, self.watched = schedule, watched

    def on_train_begin(self, logs: Any = None) -> None:
        self.step = int(tf.convert_to_tensor(self.model.optimizer.iterations))
        self._set()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        self._set()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.schedule.watch(logs[self.watched])
        self._set()

    def _set(self) -> None:
        self.model.optimizer.learning_rate, momentum = self.schedule.at(self.step)
        self.model.optimizer.momentum.assign(momentum)


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
