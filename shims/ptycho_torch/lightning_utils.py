"""Checkpoints as other programs pass them around: one file with a trained model and the settings that it was made with.

They are dictionaries of tensors and plain values, laid out like Lightning's (``state_dict``, ``hyper_parameters``), and
are read with ``weights_only=True``: nothing in them is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from ptycho.config import TrainingConfig, config_from_dict, config_to_dict, torch_fields
from ptycho.errors import DataError
from ptycho.files import written_whole
from ptycho.model.bundle import Bundle
from ptycho_torch.layout import native, neutral, numbers

__all__ = ["BEST", "Configs", "find_best_checkpoint", "read_checkpoint", "save_checkpoint"]

Configs = dict[str, Any]
"""PtychoPINN's settings by name: ``data_config``, ``model_config``, ``training_config``, ``inference_config``."""

BEST = "best-checkpoint.ckpt"
_KEPT = ("data_config", "model_config", "training_config", "inference_config")
_PREFIX = "weights."
_UNITS = {
    "intensity_scale": "intensity_scale",
    "nphotons": "nphotons",
    "side": "group_canvas_side",
    "measurement": "measurement",
    "history": "history",
}
"""Fields of a bundle by their key in the checkpoint."""


def find_best_checkpoint(run_dir: str | Path) -> Path | None:
    """The checkpoint in a training's folder to go on with; None if there is none.

    Parameters
    ----------
    run_dir
        Folder of the run, which holds ``checkpoints/``. ``best-checkpoint.ckpt`` is taken, or else that of the best
        epoch, or the last one, or any.
    """
    folder = Path(run_dir) / "checkpoints"
    named = [folder / name for name in (BEST, "best.ckpt", "last.ckpt")]
    return next((path for path in (*named, *sorted(folder.glob("*.ckpt"))) if path.is_file()), None)


def save_checkpoint(bundle: Bundle, configs: Mapping[str, Any], path: str | Path) -> None:
    """Write a trained model with its settings, whole or not at all.

    Parameters
    ----------
    bundle
        The model.
    configs
        See :data:`Configs`.
    path
        The file; its folder is made.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    content = {
        "state_dict": {_PREFIX + name: native(name, values) for name, values in bundle.params.items()},
        "hyper_parameters": {name: _plain(_fields(configs[name])) for name in _KEPT},
        "ptychopinn": _plain(
            {
                "config": config_to_dict(bundle.config),
                "numbers": numbers(bundle.params),
                **{key: getattr(bundle, name) for key, name in _UNITS.items()},
            }
        ),
        "pytorch-lightning_version": lightning.__version__,
    }
    with contextlib.suppress(OSError):  # writing says what is wrong
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, overwrite=True) as stream:
        torch.save({**content, "sha256": _digest(content)}, stream)


def read_checkpoint(path: str | Path) -> tuple[Bundle, Configs]:
    """Read what :func:`save_checkpoint` wrote.

    Raises
    ------
    DataError
        There is no such file, it is another program's, or it is damaged.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such checkpoint; give the .ckpt file that a training wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or a foreign file makes of torch.load
        raise DataError(
            f"{path}: not a checkpoint that can be read without running code in it ({_first_line(error)})."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("ptychopinn"), dict):
        raise DataError(
            f"{path}: a checkpoint without a model of this library; train one here, since others' networks differ."
        )
    try:
        if content.pop("sha256") != _digest(content):
            raise DataError(f"{path}: the checkpoint does not match its checksum; the file is damaged.")
        told = content["ptychopinn"]
        bundle = Bundle(
            params=_params(content["state_dict"], told["numbers"]),
            config=config_from_dict(TrainingConfig, told["config"], str(path)),
            **{name: told[key] for key, name in _UNITS.items()},
        )
        _ = bundle.probe  # KeyError or ValueError where its parts are not there or do not belong together
        return bundle, {name: torch_fields.CLASSES[name](**content["hyper_parameters"][name]) for name in _KEPT}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: the checkpoint's contents do not fit together ({_first_line(error)}); was it written by another "
            "version?"
        ) from error


def _fields(config: Any) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    """Values that load without code: of what is none (a mask, a path) it is kept that it was given, as text."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_plain(part) for part in value)
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _params(state: Mapping[str, torch.Tensor], without_axis: list[str]) -> dict[str, np.ndarray]:
    """The parameters as the core names and shapes them."""
    named = {name.removeprefix(_PREFIX): values for name, values in state.items()}
    return {name: np.asarray(neutral(name, values, without_axis).numpy(), order="C") for name, values in named.items()}


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a checkpoint says."""
    said = {name: value for name, value in content.items() if name != "state_dict"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, values in sorted(content["state_dict"].items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
