"""From the settings of PtychoPINN's PyTorch side (`ptycho.config.torch_fields`) to the configuration of this library.

Overrides win over everything; settings without effect here are named in a warning.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ptycho.config import config as ours
from ptycho.config import torch_fields as theirs
from ptycho.config.deprecated import rename_keys
from ptycho.config.mapping import unknown_key
from ptycho.errors import ConfigError
from ptycho.visible import brief

__all__ = ["to_inference_config", "to_model_config", "to_training_config"]

Config = TypeVar("Config")

MODES = {"Unsupervised": "pinn", "Supervised": "supervised"}
ACTIVATIONS = {"silu": "swish", "SiLU": "swish", **{name: name for name in ("sigmoid", "swish", "softplus", "relu")}}
SCHEDULES = {"Default": "constant", "Cosine": "cosine", "WarmupCosine": "cosine", "ReduceLROnPlateau": "plateau"}
PATHS = ("train_data_file", "test_data_file", "model_path", "output_dir")
OTHER_NPHOTONS = theirs.DataConfig.nphotons


def to_model_config(
    data: theirs.DataConfig, model: theirs.ModelConfig, overrides: Mapping[str, Any] | None = None
) -> ours.ModelConfig:
    """The model's configuration.

    Parameters
    ----------
    data
        ``N``, ``grid_size`` (square, becomes ``gridsize``), ``probe_scale``.
    model
        ``mode`` (Unsupervised is pinn, Supervised supervised), ``amp_activation`` (silu is swish), ``probe_mask`` (a
        mask given as an array is True), and the fields that have the same name here.
    overrides
        Fields of the result, by its names.

    Raises
    ------
    ConfigError
        The grid is not square, or the mode, the activation or an override is unknown.
    """
    rows, columns = data.grid_size
    if rows != columns:
        raise ConfigError(f"grid_size = {data.grid_size} is not possible: expected a square, like (2, 2).")
    channels = (data.C, model.C_model, model.C_forward, model.decoder_last_amp_channels)
    ignored = _channels_ignored(channels, rows * columns)
    _warn_of((*theirs.without_effect(data), *theirs.without_effect(model), *ignored))
    mask = model.probe_mask if model.probe_mask_tensor is None else model.probe_mask_tensor
    same = ("architecture", "n_filters_scale", "object_big", "probe_big", "pad_object", "gaussian_smoothing_sigma")
    values = {
        "N": data.N,
        "gridsize": rows,
        "probe_scale": data.probe_scale,
        "model_type": _translated("mode", model.mode, MODES),
        "amp_activation": _translated("amp_activation", model.amp_activation, ACTIVATIONS),
        "probe_mask": mask if isinstance(mask, bool) else mask is not None,
        **{name: getattr(model, name) for name in same},
    }
    return _made(ours.ModelConfig, values, overrides)


def to_training_config(
    model: ours.ModelConfig,
    data: theirs.DataConfig,
    pt_model: theirs.ModelConfig,
    training: theirs.TrainingConfig,
    overrides: Mapping[str, Any] | None = None,
) -> ours.TrainingConfig:
    """The training's configuration; its backend is pytorch.

    Parameters
    ----------
    model
        Of :func:`to_model_config`.
    data
        ``K`` (``neighbor_count``), ``nphotons``, ``subsample_seed``.
    pt_model
        ``intensity_scale_trainable``, ``loss_function``.
    training
        ``epochs`` (``nepochs``), ``nll`` (its weight, 1 or 0; without it, or with MAE as the loss, the mean absolute
        error weighs 1), ``scheduler``, ``gradient_clip_val``, where it runs, and the fields that have the same name.
    overrides
        Fields of the result, by its names; ``train_data_file`` and ``n_groups`` are needed here or in ``training``.

    Raises
    ------
    ConfigError
        ``nphotons`` is left at 1e5, ``n_groups`` or ``train_data_file`` is missing, or an override is unknown.
    """
    _warn_of(theirs.without_effect(training))
    overrides = overrides or {}
    absolute = not training.nll or training.torch_loss_mode == "mae" or pt_model.loss_function == "MAE"
    if training.scheduler not in SCHEDULES:
        _warn_of([f"scheduler = {training.scheduler}"])
    several = training.n_devices not in (1, "auto")
    same = ("batch_size", "learning_rate", "train_data_file", "test_data_file", "output_dir", "n_groups")
    values = {
        "model": model,
        "nepochs": training.epochs,
        "nll_weight": 0.0 if absolute else 1.0,
        "mae_weight": 1.0 if absolute else 0.0,
        "neighbor_count": data.K,
        "nphotons": data.nphotons,
        "subsample_seed": data.subsample_seed,
        "intensity_scale_trainable": pt_model.intensity_scale_trainable,
        "lr_schedule": SCHEDULES.get(training.scheduler, "constant"),
        "gradient_clip": training.gradient_clip_val,
        "backend": "pytorch",
        "device": "auto" if training.device == "cuda" else training.device,
        "devices": training.n_devices if several else 1,
        "strategy": (training.strategy or "auto") if several else "auto",
        **{name: getattr(training, name) for name in same},
    }
    _need({**values, **overrides}["n_groups"], "n_groups", 512)
    config = _made(ours.TrainingConfig, values, overrides)
    if "nphotons" not in overrides and data.nphotons == OTHER_NPHOTONS:
        usual = ours.TrainingConfig.nphotons
        raise ConfigError(
            f"nphotons = {OTHER_NPHOTONS:g} is the default of the PyTorch settings, and that of a TrainingConfig is "
            f"{usual:g}: say which is meant, like overrides={{'nphotons': {usual:g}}}."
        )
    if config.test_data_file is None:
        warnings.warn(
            "test_data_file is not given: nothing can be reconstructed or tested after the training until it is.",
            stacklevel=2,
        )
    _need(config.train_data_file, "train_data_file", "train.npz")
    return config


def to_inference_config(
    model: ours.ModelConfig,
    data: theirs.DataConfig,
    inference: theirs.InferenceConfig,
    overrides: Mapping[str, Any] | None = None,
) -> ours.InferenceConfig:
    """The reconstruction's configuration; its backend is pytorch.

    Parameters
    ----------
    model
        Of :func:`to_model_config`.
    data
        ``K`` (``neighbor_count``).
    inference
        ``batch_size``, where it is not its default.
    overrides
        Fields of the result, by its names; ``model_path`` and ``test_data_file`` are needed.

    Raises
    ------
    ConfigError
        ``model_path`` or ``test_data_file`` is missing, or an override is unknown.
    """
    _warn_of(theirs.without_effect(inference))
    values: dict[str, Any] = {"model": model, "neighbor_count": data.K, "backend": "pytorch"}
    if inference.batch_size != theirs.InferenceConfig.batch_size:
        values["batch_size"] = inference.batch_size
    config = _made(ours.InferenceConfig, values, overrides)
    _need(config.model_path, "model_path", "training_outputs")
    _need(config.test_data_file, "test_data_file", "test.npz")
    return config


def _made(cls: type[Config], values: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> Config:
    """The configuration of these values and overrides, text made paths where a path is meant."""
    known = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]  # any config dataclass
    overrides = rename_keys(cls, overrides or {}, "overrides")
    for name in overrides:
        if name not in known:
            raise unknown_key(name, known, "overrides")
    wanted = {**values, **overrides}
    paths = {name: Path(wanted[name]) for name in PATHS if isinstance(wanted.get(name), str)}
    return cls(**{**wanted, **paths})


def _translated(name: str, value: Any, words: Mapping[str, str]) -> str:
    if value not in words:
        raise ConfigError(f"{name} = {brief(value)} is not possible: expected one of {', '.join(words)}.")
    return words[value]


def _need(value: Any, name: str, example: Any) -> None:
    if value is None:
        raise ConfigError(f"{name} is missing: give it, like overrides={{{name!r}: {example!r}}}.")


def _channels_ignored(given: tuple[int, int, int, int], channels: int) -> list[str]:
    """Names of the channel counts that somebody set to something else than the grid has."""
    defaults = (theirs.DataConfig.C, theirs.ModelConfig.C_model, theirs.ModelConfig.C_forward, 1)
    names = ("C", "C_model", "C_forward", "decoder_last_amp_channels")
    return [
        name for name, value, default in zip(names, given, defaults, strict=True) if value not in (default, channels)
    ]


def _warn_of(names: Any) -> None:
    if names:
        warnings.warn(f"{', '.join(names)}: accepted, without effect here.", stacklevel=3)
