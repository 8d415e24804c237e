"""Which training the checkpoints in a folder are of, so that it goes on as itself or not at all.

``checkpoints/training.json`` holds the settings and the scan's hash; ``last.*`` and ``best.*`` beside it are the
shim's, each written whole. What belongs to an epoch stands in these alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptycho.config import ModelConfig, TrainingConfig, config_to_dict
from ptycho.config.deprecated import rename_keys
from ptycho.config.processes import is_first_process
from ptycho.data import Scan
from ptycho.data.atomic import written_whole
from ptycho.errors import ConfigError, DataError
from ptycho.model.safe_archive import parse_json
from ptycho.model.training import damaged

__all__ = ["Checkpoints", "same_training"]

_LABEL = "training.json"
_FREE = ("train_data_file", "test_data_file", "output_dir", "num_workers", "tensorboard", "checkpoint")
"""Settings without a part in the numbers; the scan itself is compared instead of its name."""
_PLACES = ("device", "accelerator", "devices", "strategy")
"""Where it computes: a training may go on elsewhere, with the other place's rounding."""
_ENDLESS = ("constant", "plateau")
"""Schedules of the learning rate that do not ask how many epochs there will be."""


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder : of the training, which holds ``checkpoints/``.
    config : its settings.
    """

    def __init__(self, folder: str | Path, config: TrainingConfig) -> None:
        self.folder, self.config = Path(folder) / "checkpoints", config

    def found(self) -> bool:
        """Whether there is a checkpoint to go on from, of whatever training."""
        return any(self.folder.glob("last.*"))

    def check(self, scan: Scan) -> None:
        """Refuse the checkpoints of another training.

        Parameters
        ----------
        scan : what this one learns from, no more than it looks at.

        Raises
        ------
        ConfigError
            A setting differs; it is named.
        DataError
            The scan is another, or the folder does not say which training its checkpoints are of.
        """
        label = self.folder / _LABEL
        if not label.is_file():
            raise damaged(label, "there is no such file")
        kept = parse_json(label.read_bytes(), str(label))
        then, now = kept.get("settings"), _settings(self.config)
        if not isinstance(then, dict) or not isinstance(kept.get("scan"), str):
            raise damaged(label, "it names no settings or no scan")
        then = rename_keys(ModelConfig, then, str(label))
        for name in {**then, **now}:
            if then.get(name) != now.get(name) and not (name == "nepochs" and _is_longer(now, then)):
                raise ConfigError(
                    f"{name}: {now.get(name)} given, and the training in {self.folder} has {then.get(name)}; resume it "
                    "with its own settings, or start anew with --force."
                )
        if kept["scan"] != scan.fingerprint():
            raise DataError(
                f"scan: the training in {self.folder} learned from other data; resume it with its own scan, or start "
                "anew with --force."
            )

    def begin(self, scan: Scan, going_on: bool) -> None:
        """Say which training writes here from now on; what an earlier one left is taken away unless it goes on.

        Of the processes of one training the first does it: they share the folder.

        Parameters
        ----------
        scan : what it learns from, no more than it looks at.
        going_on : whether it goes on from what is there.

        Raises
        ------
        OutputError, OSError
            The folder cannot be written to.
        """
        if not is_first_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        left = [".*.part", *(() if going_on else ("last.*", "best.*"))]
        for path in [found for pattern in left for found in self.folder.glob(pattern)]:
            path.unlink(missing_ok=True)
        label = {"scan": scan.fingerprint(), "settings": _settings(self.config)}
        with written_whole(self.folder / _LABEL) as stream:
            stream.write(json.dumps(label, indent=2).encode())


def same_training(one: TrainingConfig, other: TrainingConfig) -> bool:
    """Whether two configurations are of trainings with the same numbers."""
    return _settings(one) == _settings(other)


def _settings(config: TrainingConfig) -> dict[str, Any]:
    """The settings that decide the numbers, flat, as JSON gives them back."""
    plain = json.loads(json.dumps(config_to_dict(config), default=str))
    flat = {**plain.pop("model"), **plain}
    return {name: value for name, value in flat.items() if name not in (*_FREE, *_PLACES)}


def _is_longer(now: dict[str, Any], then: dict[str, Any]) -> bool:
    return now["lr_schedule"] in _ENDLESS and isinstance(then["nepochs"], int) and now["nepochs"] > then["nepochs"]
