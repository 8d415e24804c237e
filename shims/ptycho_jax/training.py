"""The training loop: compiled steps, driven by the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ptycho.config import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import TrainingPlan, TrainResult, report
from ptycho.observers import EpochProgress
from ptycho_jax.backend import find_devices
from ptycho_jax.data import PtychoData
from ptycho_jax.model import PtychoModule
from ptycho_jax.persistence import Logs, load_checkpoint, native_members, save_checkpoint

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
        self, config: TrainingConfig, progress: Sequence[EpochProgress] = (), log_dir: str | Path | None = None
    ) -> None:
        self.config, self.progress = config, tuple(progress)
        self.devices = _hardware(config)
        self.folder = None if log_dir is None else Path(log_dir)
        self.logs = Logs(self.folder, config.tensorboard)

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
        data = PtychoData(training, validation, config, self.devices)
        module = PtychoModule(model, params, config, data.everywhere)
        plan = TrainingPlan(config, -(-len(training) // config.batch_size))
        kept = self._go_on(module, plan) if resume else module.to_params()
        while not plan.finished:
            better = plan.add(_epoch(module, data, plan))
            if better and config.checkpoint:
                kept = module.to_params()
            self._keep(module, plan, better)
            report(self.progress, plan.epoch, config.nepochs, plan.last(), module.to_params)
        trained = kept if config.checkpoint else module.to_params()
        return TrainResult(trained, plan.history, native_members(trained))

    def _go_on(self, module: PtychoModule, plan: TrainingPlan) -> dict[str, np.ndarray]:
        """Bring the module and the plan to the last checkpoint; the parameters of the best."""
        best, last = (
            load_checkpoint(_checkpoint(self.folder or Path(), name), module.to_params(), module.state)
            for name in ("best", "last")
        )
        module.go_on(last[0], last[1])
        plan.go_on(last[2], _checkpoint(self.folder or Path(), "last"))
        return best[0]

    def _keep(self, module: PtychoModule, plan: TrainingPlan, better: bool) -> None:
        """Write checkpoints and logs after an epoch."""
        if self.folder is not None and self.config.checkpoint:
            params, told = module.to_params(), plan.to_json()
            for name in ("best", "last") if better else ("last",):
                save_checkpoint(_checkpoint(self.folder, name), params, module.state, told)
        self.logs.write(plan)


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / f"{name}.safetensors"


def _epoch(module: PtychoModule, data: PtychoData, plan: TrainingPlan) -> dict[str, float]:
    """One pass over the training groups and one over the validation groups: the mean losses."""
    trained = (
        (module.training_step(batch, *plan.schedule.at(plan.step + i)), batch)
        for i, batch in enumerate(data.training_batches(plan.epoch))
    )
    losses = _means(trained)
    watched = ((module.validation_step(batch), batch) for batch in data.validation_batches())
    return losses | {f"val_{name}": value for name, value in _means(watched).items()}


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
