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
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.files import recorded, written_whole
from ptycho.model.safe_archive import parse_json
from ptycho.model.training import damaged

__all__ = ["CHECKPOINT_FILES", "LABEL", "Checkpoints", "is_label", "same_training"]

LABEL = "training.json"
CHECKPOINT_FILES = (
    LABEL,
    *(f"{name}{end}" for name in ("last", "best") for end in (".ckpt", ".keras", ".safetensors")),
)
"""Files in ``checkpoints/``, in the forms of all the backends."""
_LARGEST = 2**20
"""Bytes of such a label; it holds some dozens of settings."""
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
        if self.folder.is_symlink():
            return False
        earlier = is_label(self.folder / LABEL)  # a version that kept no record wrote it, or this one
        return any(
            recorded(path) or (earlier and path.name in CHECKPOINT_FILES and not path.is_symlink())
            for path in self.folder.glob("last.*")
        )

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
        label = self.folder / LABEL
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
        """Say which training writes here from now on; the checkpoints of an earlier one are removed unless it goes on.

        Only files that the folder's record lists are removed.

        Of the processes of one training the first does it: they share the folder.

        Parameters
        ----------
        scan : what it learns from, no more than it looks at.
        going_on : whether it goes on from what is there.

        Raises
        ------
        OutputError, OSError
            The folder cannot be written to, or is a link.
        """
        if not is_first_process():
            return
        if self.folder.is_symlink():
            raise OutputError(f"{self.folder} is a symbolic link, which is not followed; choose another folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in () if going_on else ("last.*", "best.*"):
            for path in [path for path in self.folder.glob(pattern) if recorded(path)]:
                path.unlink()
        label = {"scan": scan.fingerprint(), "settings": _settings(self.config)}
        with written_whole(self.folder / LABEL, overwrite=True, own=True) as stream:
            stream.write(json.dumps(label, indent=2).encode())


def is_label(path: Path) -> bool:
    """Whether a file says of which training the checkpoints beside it are."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        kept = parse_json(path.read_bytes(), str(path))
    except (DataError, OSError):
        return False
    return isinstance(kept, dict) and isinstance(kept.get("settings"), dict) and isinstance(kept.get("scan"), str)


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
