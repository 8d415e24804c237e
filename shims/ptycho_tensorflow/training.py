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
from ptycho.model.training import TrainingPlan, TrainResult, report
from ptycho.observers import EpochProgress
from ptycho_tensorflow.backend import find_devices
from ptycho_tensorflow.data import PtychoData
from ptycho_tensorflow.model import PtychoModel
from ptycho_tensorflow.persistence import load_checkpoint, native_members, save_checkpoint

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
        self, config: TrainingConfig, progress: Sequence[EpochProgress] = (), log_dir: str | Path | None = None
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
        self,
        model: PtychoPINN,
        params: dict[str, np.ndarray],
        training: Any,
        validation: Any = None,
        resume: bool = False,
    ) -> TrainResult:
        """Train from ``params`` on ``training``; the parameters of the best validation epoch are returned.

        Parameters
        ----------
        model : what stays fixed.
        params : where to start, host arrays.
        training, validation : containers.
        resume : go on from the checkpoints in ``log_dir``, which must be of this very training.

        Raises
        ------
        ConfigError
            The loss stopped being a number.
        DataError
            There is no whole checkpoint to go on from.
        """
        config = self.config
        module = PtychoModel(model, params, config, self.strategy)
        data = PtychoData(training, config, epoch=0)
        batches = data.dataset()
        module.compile_for(next(iter(batches)))
        watching = None if validation is None else PtychoData(validation, config).dataset()
        plan = TrainingPlan(config, -(-len(training) // config.batch_size))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(self.log_dir) if self.log_dir is not None else Path(scratch)
            if resume:
                load_checkpoint(_checkpoint(folder, "best"), module)  # none is found damaged at the end
                plan.go_on(load_checkpoint(_checkpoint(folder, "last"), module), _checkpoint(folder, "last"))
            if not plan.finished:
                self._run(
                    module, batches, watching, [_PlanCallback(plan, data, self.progress, folder), *self.callbacks]
                )
            if config.checkpoint:
                load_checkpoint(_checkpoint(folder, "best"), module)
        return TrainResult(module.to_params(), plan.history, native_members(module))

    def _run(self, module: PtychoModel, batches: Any, watching: Any, told: list[Any]) -> None:
        """Keras's ``fit``; the logs are closed if it is broken off."""
        if self.config.tensorboard:
            told.append(hooks.TensorBoard(told[0].folder / "tensorboard", write_graph=False))
        epochs, done = self.config.nepochs, told[0].plan.epoch
        callbacks = hooks.CallbackList(told, add_history=True, model=module, epochs=epochs)
        try:
            module.fit(
                batches,
                epochs=epochs,
                initial_epoch=done,
                validation_data=watching,
                callbacks=callbacks,
                shuffle=False,
            )
        except BaseException:
            callbacks.on_train_end()
            raise


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / f"{name}.keras"


class _PlanCallback(hooks.Callback):
    """The core's plan in Keras's loop: order and learning rate before a step, checkpoints and logs after an epoch."""

    def __init__(self, plan: TrainingPlan, data: PtychoData, progress: tuple[EpochProgress, ...], folder: Path) -> None:
        super().__init__()
        self.plan, self.data, self.progress, self.folder = plan, data, progress, folder

    def on_train_begin(self, logs: Any = None) -> None:
        self._set(self.plan.step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.data.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._set(self.plan.step + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        plan = self.plan
        better = plan.add({name: float(value) for name, value in logs.items()})
        logs.update(plan.last())
        self._keep(better)
        report(self.progress, plan.epoch, plan.config.nepochs, plan.last(), self.model.to_params)
        self.model.stop_training = plan.finished
        self._set(plan.step)

    def _keep(self, better: bool) -> None:
        if self.plan.config.checkpoint:
            for name in ("best", "last") if better else ("last",):
                save_checkpoint(_checkpoint(self.folder, name), self.model, self.plan.to_json())
        self.plan.write_table(self.folder / "logs" / "metrics.csv")

    def _set(self, step: int) -> None:
        self.model.optimizer.learning_rate, momentum = self.plan.schedule.at(step)
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
