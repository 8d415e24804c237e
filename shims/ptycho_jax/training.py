"""The training loop: compiled steps, driven by the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ptycho.config import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.schedules import Schedule
from ptycho.model.training import Progress, TrainResult, diverged, report
from ptycho_jax.backend import find_devices
from ptycho_jax.data import PtychoData
from ptycho_jax.model import PtychoModule
from ptycho_jax.persistence import Logs, native_members, save_checkpoint

__all__ = ["Trainer"]


class Trainer:
    """Trains a model on a container.

    Parameters
    ----------
    config : epochs, optimiser, hardware, logging; validated.
    progress : told of every finished epoch.
    log_dir : folder for checkpoints and logs; None keeps none.

    Raises
    ------
    BackendError
        The hardware asked for is not there, or TensorBoard is not installed.
    ConfigError
        The devices cannot share the work as asked.
    """

    def __init__(
        self, config: TrainingConfig, progress: Sequence[Progress] = (), log_dir: str | Path | None = None
    ) -> None:
        self.config, self.progress = config, tuple(progress)
        self.devices = _hardware(config)
        self.folder = None if log_dir is None else Path(log_dir)
        self.logs = Logs(self.folder, config.tensorboard)

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
        data = PtychoData(training, validation, config, self.devices)
        module = PtychoModule(model, params, config, data.everywhere)
        per_epoch = -(-len(training) // config.batch_size)
        schedule = Schedule(config, config.nepochs * per_epoch)
        history: dict[str, list[float]] = {}
        kept, best, waited = module.to_params(), math.inf, 0
        for epoch in range(config.nepochs):
            metrics = _epoch(module, data, schedule, epoch, per_epoch)
            for name, value in metrics.items():
                history.setdefault(name, []).append(value)
            if not math.isfinite(metrics["loss"]):
                raise diverged(epoch + 1, metrics["loss"])
            watched = metrics.get("val_loss", metrics["loss"])
            schedule.watch(watched)
            better = epoch == 0 or watched < best
            best, waited = (watched, 0) if better else (best, waited + 1)
            if better and config.checkpoint:
                kept = module.to_params()
            self._save(module, epoch + 1, better)
            self.logs.write(epoch + 1, (epoch + 1) * per_epoch, metrics)
            report(self.progress, epoch + 1, config.nepochs, metrics, module.to_params)
            if config.early_stopping_patience is not None and waited >= config.early_stopping_patience:
                break
        trained = kept if config.checkpoint else module.to_params()
        return TrainResult(trained, history, native_members(trained))

    def _save(self, module: PtychoModule, epoch: int, better: bool) -> None:
        if self.folder is None or not self.config.checkpoint:
            return
        params = module.to_params()
        for name in ("best", "last") if better else ("last",):
            save_checkpoint(self.folder / "checkpoints" / f"{name}.safetensors", params, module.state, epoch)


def _epoch(module: PtychoModule, data: PtychoData, schedule: Schedule, epoch: int, per_epoch: int) -> dict[str, float]:
    """One pass over the training groups and one over the validation groups: the mean losses."""
    step = epoch * per_epoch
    trained = (
        (module.training_step(batch, *schedule.at(step + i)), batch)
        for i, batch in enumerate(data.training_batches(epoch))
    )
    metrics = _means(trained)
    watched = ((module.validation_step(batch), batch) for batch in data.validation_batches())
    metrics.update({f"val_{name}": value for name, value in _means(watched).items()})
    return {**metrics, "learning_rate": schedule.at(step + per_epoch)[0]}


def _means(losses: Iterable[tuple[dict[str, jax.Array], dict[str, jax.Array]]]) -> dict[str, float]:
    """Means over the groups; a value is fetched when the next batch is under way, so that the device never waits."""
    sums: dict[str, float] = {}
    groups = 0
    pending: list[tuple[dict[str, jax.Array], int]] = []

    def fetch() -> None:
        values, size = pending.pop(0)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * size

    for values, batch in losses:
        pending.append((values, len(batch["X"])))
        groups += len(batch["X"])
        if len(pending) > 1:
            fetch()
    while pending:
        fetch()
    return {name: total / groups for name, total in sums.items()}


def _hardware(config: TrainingConfig) -> list[jax.Device]:
    """The devices that ``device`` (``cuda:1``) names, or ``accelerator`` and ``devices``."""
    if config.strategy not in ("auto", "ddp"):
        raise ConfigError(f"strategy: got {config.strategy!r}; jax shares each batch between its devices: use auto.")
    devices = find_devices(config.accelerator if config.device == "auto" else config.device, config.devices)
    if config.batch_size % len(devices):
        raise ConfigError(
            f"batch_size: {config.batch_size} groups cannot be shared equally by {len(devices)} devices; choose a "
            f"multiple of {len(devices)}."
        )
    return devices
