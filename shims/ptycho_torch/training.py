"""The training loop: Lightning's, driven by the configuration."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch import callbacks as hooks
from lightning.pytorch.loggers import TensorBoardLogger

from ptycho.config import TrainingConfig
from ptycho.config.processes import is_first_process
from ptycho.errors import BackendError, ConfigError, PtychoError
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import TrainingPlan, TrainResult, report
from ptycho.observers import EpochProgress
from ptycho_torch.data import PtychoData
from ptycho_torch.loopback import LoopbackDDP, LoopbackShards
from ptycho_torch.model import PtychoModule
from ptycho_torch.persistence import CheckpointFiles, load_checkpoint, native_members
from ptycho_torch.processes import Others, ending_when_told

__all__ = ["Trainer"]


class Trainer:
    """Trains a model on a container.

    Parameters
    ----------
    config : epochs, optimiser, hardware, logging; validated.
    progress : told of every finished epoch; a callback of Lightning among them takes part in the whole training.
    log_dir : folder for checkpoints and logs; None keeps none.

    Raises
    ------
    ConfigError
        torchrun started another number of processes than there are devices, or these cannot share the batch or the
        network as it is set.
    """

    def __init__(
        self, config: TrainingConfig, progress: Sequence[EpochProgress] = (), log_dir: str | Path | None = None
    ) -> None:
        self.config, self.log_dir, self.machines = config, log_dir, _machines(config)
        devices = config.devices * self.machines
        if config.batch_size % devices:
            raise ConfigError(
                f"batch_size: {config.batch_size} groups cannot be shared equally by {devices} devices; choose "
                f"a multiple of {devices}."
            )
        if config.compile and config.strategy == "fsdp" and devices > 1:
            raise ConfigError(
                "compile: a compiled network needs its weights whole, and strategy fsdp shares them; choose --strategy "
                "ddp, or leave compile off."
            )
        self.callbacks = [each for each in progress if isinstance(each, hooks.Callback)]
        self.progress = tuple(each for each in progress if not isinstance(each, hooks.Callback))

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
        BackendError
            The hardware asked for is not there.
        ConfigError
            The loss stopped being a number.
        DataError
            There is no whole checkpoint to go on from.
        PtychoError
            One of several processes ended.
        """
        config = self.config
        module = PtychoModule(model, params, config)
        data = PtychoData(training, validation, config)
        plan = TrainingPlan(config, -(-len(training) // config.batch_size))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(self.log_dir) if self.log_dir is not None else Path(scratch)
            if resume:
                load_checkpoint(_checkpoint(folder, "best"), module)  # none is found damaged at the end
                plan.go_on(load_checkpoint(_checkpoint(folder, "last"), module), _checkpoint(folder, "last"))
            if not plan.finished:
                others = Others()
                told = [_PlanCallback(plan, data, self.progress, folder), others, *self.callbacks]
                trainer = self._trainer(folder, told, data)
                _run(trainer, others, module, data, _checkpoint(folder, "last") if resume else None)
                module.gather()
                if trainer.global_rank > 0:  # Lightning started this process for its share of the training alone
                    raise SystemExit(0)
            if config.checkpoint:
                load_checkpoint(_checkpoint(folder, "best"), module)
        return TrainResult(module.to_params(), plan.history, native_members(module))

    def _trainer(self, folder: Path, extra: list[Any], data: PtychoData) -> lightning.Trainer:
        config = self.config
        accelerator, devices = _hardware(config)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            return lightning.Trainer(
                max_epochs=config.nepochs,
                accelerator=accelerator,
                devices=devices,
                num_nodes=self.machines,
                strategy=self._strategy(),
                precision="bf16-mixed" if config.precision == "bf16" else "32-true",
                gradient_clip_val=config.gradient_clip,
                callbacks=extra,
                plugins=[CheckpointFiles()],
                logger=TensorBoardLogger(folder, name="", version="tensorboard") if config.tensorboard else False,
                enable_checkpointing=any(isinstance(each, hooks.Checkpoint) for each in extra),
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=0 if data.validation is None else 1.0,
                log_every_n_steps=10,
                use_distributed_sampler=False,
            )
        except (ValueError, RuntimeError, lightning.pytorch.utilities.exceptions.MisconfigurationException) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            if config.strategy not in _STRATEGIES:
                raise BackendError(
                    f"strategy: {config.strategy!r} cannot be used here ({reason}); choose one of "
                    f"{', '.join(_STRATEGIES)}."
                ) from error
            raise BackendError(
                f"device: {config.device!r} (accelerator {config.accelerator!r}, {config.devices} devices, strategy "
                f"{config.strategy!r}) cannot be used here ({reason}); choose --device cpu."
            ) from error

    def _strategy(self) -> Any:
        """Lightning's strategy, of shards the one that no kind of device is barred from; one device shares nothing."""
        devices, name = self.config.devices * self.machines, self.config.strategy
        if name == "fsdp":
            if devices == 1:
                return "auto"
            return LoopbackShards(devices, tensor_parallel_size=1, save_distributed_checkpoint=False)
        return LoopbackDDP() if name == "ddp" or (name == "auto" and devices > 1) else name


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / "checkpoints" / f"{name}.ckpt"


def _run(trainer: lightning.Trainer, others: Others, module: PtychoModule, data: PtychoData, last: Path | None) -> None:
    """Lightning's ``fit``, from a checkpoint if there is one."""
    others.launcher = trainer.strategy.launcher
    with ending_when_told(others, alone=trainer.world_size == 1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*number of training batches.*")
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last)
        except PtychoError:
            raise
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt) and is_first_process():  # which Lightning keeps quiet
                raise error.__context__ from None
            raise
        except Exception as error:
            if others.fate(error):
                raise PtychoError(others.fate(error)) from error
            raise
        finally:
            others.over.set()


class _PlanCallback(hooks.Callback):
    """The core's plan in Lightning's loop: order and learning rate before a step, checkpoints and logs after."""

    def __init__(self, plan: TrainingPlan, data: PtychoData, progress: tuple[EpochProgress, ...], folder: Path) -> None:
        self.plan, self.data, self.progress, self.folder = plan, data, progress, folder
        # Lightning's own count lags behind when it goes on from a checkpoint, and workers ask for the order at once
        data.epoch = plan.epoch

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        rate, momentum = self.plan.schedule.at(self.plan.step + batch_idx)
        for group in trainer.optimizers[0].param_groups:
            group["lr"], group["betas"] = rate, (momentum, group["betas"][1])

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        plan = self.plan
        better = plan.add({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.data.epoch = plan.epoch
        self._keep(trainer, better)
        params = pl_module.to_params
        if pl_module.sharded:  # that takes all processes, and the first alone reports
            params = functools.partial(dict, params())
        if trainer.is_global_zero:
            report(self.progress, plan.epoch, plan.config.nepochs, plan.last(), params)
        trainer.should_stop = trainer.should_stop or plan.finished

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["course"] = self.plan.to_json()

    def _keep(self, trainer: lightning.Trainer, better: bool) -> None:
        if self.plan.config.checkpoint:
            for name in ("best", "last") if better else ("last",):
                trainer.save_checkpoint(_checkpoint(self.folder, name))
        if trainer.is_global_zero:
            self.plan.write_table(self.folder / "logs" / "metrics.csv")


_STRATEGIES = ("auto", "ddp", "fsdp")


def _machines(config: TrainingConfig) -> int:
    """On how many machines torchrun started this training, which must be with a process for every device; else 1."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if here != config.devices:
        raise ConfigError(
            f"devices: {config.devices} given, and torchrun started {here} processes on a machine: give --devices "
            f"{here}."
        )
    return int(os.environ["WORLD_SIZE"]) // here


def _hardware(config: TrainingConfig) -> tuple[str, Any]:
    """Lightning's accelerator and devices from ``device`` (``cuda:1``), or from ``accelerator`` and ``devices``."""
    if config.device == "auto":
        return config.accelerator, config.devices
    kind, _, number = config.device.partition(":")
    if kind == "cpu":  # Lightning counts processes there; a CPU has no number
        return kind, config.devices
    accelerator = {"cuda": "gpu", "gpu": "gpu"}.get(kind, kind)
    return accelerator, [int(number)] if number.isdigit() else config.devices
