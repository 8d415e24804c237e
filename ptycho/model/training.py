"""What every shim's training loop takes, keeps and gives."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptycho.config import TrainingConfig
from ptycho.errors import ConfigError, DataError
from ptycho.files import written_whole
from ptycho.model.schedules import Schedule
from ptycho.observers import EpochProgress, notify

__all__ = ["TrainResult", "TrainingPlan", "damaged", "is_network", "is_trained", "report"]

logger = logging.getLogger(__name__)

_TRAINED_IF = {
    "probe/real": "probe_trainable",
    "probe/imag": "probe_trainable",
    "log_scale": "intensity_scale_trainable",
}


@dataclass
class TrainResult:
    """Parameters after training and how they came about."""

    params: dict[str, np.ndarray]
    """As :func:`ptycho.model.pinn.initial_parameters` makes them."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """Per epoch: ``loss``, its terms, ``val_loss``, ``learning_rate``."""
    native: dict[str, bytes] = field(default_factory=dict)
    """Files in the framework's own form to go into the bundle, by name."""


class TrainingPlan:
    """How far a training is and how it went: all that a checkpoint keeps beside weights and optimiser.

    Parameters
    ----------
    config : epochs, schedule of the learning rate, patience.
    per_epoch : steps of the optimiser in an epoch.
    """

    def __init__(self, config: TrainingConfig, per_epoch: int) -> None:
        self.config, self.per_epoch = config, per_epoch
        self.schedule = Schedule(config, config.nepochs * per_epoch)
        self.epoch, self.best, self.waited = 0, math.inf, 0
        self.history: dict[str, list[float]] = {}

    @property
    def step(self) -> int:
        """Steps of the optimiser in the finished epochs."""
        return self.epoch * self.per_epoch

    @property
    def finished(self) -> bool:
        """Whether no epoch is left, or the loss has not been better for as long as the patience lasts."""
        patience = self.config.early_stopping_patience
        return self.epoch >= self.config.nepochs or (patience is not None and self.waited >= patience)

    def add(self, losses: dict[str, float]) -> bool:
        """Add an epoch's mean losses; whether no epoch was better.

        Raises
        ------
        ConfigError
            The loss is not a number.
        """
        self.epoch += 1
        if not math.isfinite(losses["loss"]):
            raise ConfigError(
                f"learning_rate: the loss became {losses['loss']} in epoch {self.epoch}; use a smaller learning rate "
                "or --gradient_clip 1."
            )
        figures = {**losses, "learning_rate": self.schedule.at(self.step)[0]}
        for name in {**self.history, **figures}:  # what is not told of every epoch is NaN for the others
            values = self.history.setdefault(name, [math.nan] * (self.epoch - 1))
            values.append(float(figures.get(name, math.nan)))
        watched = float(losses.get("val_loss", losses["loss"]))
        self.schedule.watch(watched)
        better = self.epoch == 1 or watched < self.best
        self.best, self.waited = (watched, 0) if better else (self.best, self.waited + 1)
        return better

    def last(self) -> dict[str, float]:
        """The figures of the last epoch by name."""
        return {name: values[-1] for name, values in self.history.items()}

    def write_table(self, path: Path) -> None:
        """Write the epochs so far as CSV, all of them, so that what goes on continues the table.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(["epoch", "step", *self.history])
        for number, values in enumerate(zip(*self.history.values(), strict=True), 1):
            table.writerow([number, number * self.per_epoch, *values])
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, overwrite=True, own=True) as stream:
            stream.write(text.getvalue().encode())

    def to_json(self) -> str:
        """All of it as text."""
        names = ("epoch", "best", "waited", "history")
        return json.dumps({name: getattr(self, name) for name in names} | {"schedule": self.schedule.state()})

    def go_on(self, text: str, path: Path) -> None:
        """Take over what :meth:`to_json` wrote.

        Parameters
        ----------
        text : what it wrote.
        path : the checkpoint, for messages.

        Raises
        ------
        DataError
            It is something else.
        """
        try:
            kept = json.loads(text)
            epoch = int(kept["epoch"])
            history = {str(name): [float(value) for value in values] for name, values in kept["history"].items()}
            if epoch < 1 or {len(values) for values in history.values()} != {epoch}:
                raise ValueError(f"losses of other than {epoch} epochs")
            self.schedule.restore(kept["schedule"])
            self.epoch, self.best, self.waited = epoch, float(kept["best"]), int(kept["waited"])
            self.history = history
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise damaged(path, error) from error
        logger.info("The training goes on after epoch %d of %d.", self.epoch, self.config.nepochs)


def damaged(path: Path, reason: object) -> DataError:
    """The error to raise when a training cannot go on from a checkpoint."""
    words = " ".join(str(reason).split()) or type(reason).__name__
    return DataError(f"{path}: no checkpoint from which this training could go on ({words}); start anew with --force.")


def report(
    progress: Iterable[EpochProgress],
    epoch: int,
    n_epochs: int,
    metrics: dict[str, float],
    params: Callable[[], dict[str, np.ndarray]],
) -> None:
    """Tell everybody of a finished epoch, and give observers the parameters.

    Parameters
    ----------
    progress : who is told.
    epoch, n_epochs, metrics : as :class:`~ptycho.observers.EpochProgress` takes them.
    params : makes host copies of the parameters as they are now.
    """
    for each in progress:
        each(epoch, n_epochs, metrics)
        notify(each, params)


def is_trained(name: str, config: TrainingConfig) -> bool:
    """Whether a parameter of the model is learned: the network's always, probe and scale where they are asked for."""
    return bool(getattr(config, _TRAINED_IF[name])) if name in _TRAINED_IF else True


def is_network(name: str) -> bool:
    """Whether a parameter belongs to the network, whose arithmetic alone may be halved."""
    return name not in _TRAINED_IF
