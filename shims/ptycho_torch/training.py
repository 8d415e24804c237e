"""The training loop: Lightning's, driven by the configuration."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import callbacks as hooks
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ptycho.config import TrainingConfig
from ptycho.errors import BackendError, ConfigError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import Progress, TrainResult, diverged, report
from ptycho_torch.data import PtychoData
from ptycho_torch.model import PtychoModule
from ptycho_torch.persistence import native_members

__all__ = ["Trainer"]


class Trainer:
    """Trains a model on a container.

    Parameters
    ----------
    config : epochs, optimiser, hardware, logging; validated.
    progress : told of every finished epoch; a callback of Lightning among them takes part in the whole training.
    log_dir : folder for checkpoints and logs; None keeps none.
    """

    def __init__(
        self, config: TrainingConfig, progress: Sequence[Progress] = (), log_dir: str | Path | None = None
    ) -> None:
        self.config, self.log_dir = config, log_dir
        self.callbacks = [each for each in progress if isinstance(each, hooks.Callback)]
        self.progress = tuple(each for each in progress if not isinstance(each, hooks.Callback))

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
            The hardware asked for is not there.
        ConfigError
            The loss stopped being a number.
        """
        config = self.config
        if config.batch_size % config.devices:
            raise ConfigError(
                f"batch_size: {config.batch_size} groups cannot be shared equally by {config.devices} devices; choose "
                f"a multiple of {config.devices}."
            )
        steps = config.nepochs * -(-len(training) // config.batch_size)
        watched = "val_loss" if validation is not None else "loss"
        module = PtychoModule(model, params, config, steps, watched)
        history = _History(self.progress)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(self.log_dir) if self.log_dir is not None else Path(scratch)
            best = hooks.ModelCheckpoint(
                dirpath=folder / "checkpoints",
                filename="best",
                monitor=watched,
                save_last=True,
                enable_version_counter=False,
            )
            extra = [history, *self.callbacks, *([best] if config.checkpoint else [])]
            trainer = self._trainer(folder, extra, watched)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*does not have many workers.*")
                warnings.filterwarnings("ignore", ".*number of training batches.*")
                trainer.fit(module, datamodule=PtychoData(training, validation, config))
            if trainer.global_rank > 0:  # Lightning started this process for its share of the training alone
                raise SystemExit(0)
            if config.checkpoint and best.best_model_path:
                state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
                module.load_state_dict(state["state_dict"])
        return TrainResult(module.to_params(), history.values, native_members(module))

    def _trainer(self, folder: Path, extra: list[Any], watched: str) -> lightning.Trainer:
        config = self.config
        if config.early_stopping_patience is not None:
            extra.append(hooks.EarlyStopping(watched, patience=config.early_stopping_patience))
        loggers: list[Logger] = [CSVLogger(folder, name="", version="logs")]
        if config.tensorboard:
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        accelerator, devices = _hardware(config)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            return lightning.Trainer(
                max_epochs=config.nepochs,
                accelerator=accelerator,
                devices=devices,
                strategy=config.strategy,
                precision="bf16-mixed" if config.precision == "bf16" else "32-true",
                gradient_clip_val=config.gradient_clip,
                callbacks=extra,
                logger=loggers,
                enable_checkpointing=config.checkpoint,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=1.0 if watched == "val_loss" else 0,
                log_every_n_steps=10,
                use_distributed_sampler=False,
            )
        except (ValueError, RuntimeError, lightning.pytorch.utilities.exceptions.MisconfigurationException) as error:
            raise BackendError(
                f"device: {config.device!r} (accelerator {config.accelerator!r}, {config.devices} devices) cannot be "
                f"used here ({str(error).splitlines()[0]}); choose --device cpu."
            ) from error


class _History(hooks.Callback):
    """Losses per epoch as plain lists; stops a training whose loss is not a number."""

    def __init__(self, progress: tuple[Progress, ...]) -> None:
        self.progress, self.values = progress, {}

    values: dict[str, list[float]]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        for name, value in metrics.items():
            self.values.setdefault(name, []).append(value)
        if not np.isfinite(metrics.get("loss", 0.0)):
            raise diverged(trainer.current_epoch + 1, metrics["loss"])
        if trainer.is_global_zero:
            report(self.progress, trainer.current_epoch + 1, trainer.max_epochs or 0, metrics, pl_module.to_params)


def _hardware(config: TrainingConfig) -> tuple[str, Any]:
    """Lightning's accelerator and devices from ``device`` (``cuda:1``), or from ``accelerator`` and ``devices``."""
    if config.device == "auto":
        return config.accelerator, config.devices
    kind, _, number = config.device.partition(":")
    if kind == "cpu":  # Lightning counts processes there; a CPU has no number
        return kind, config.devices
    accelerator = {"cuda": "gpu", "gpu": "gpu"}.get(kind, kind)
    return accelerator, [int(number)] if number.isdigit() else config.devices
