"""Configurations as nested dictionaries of plain values, with unknown keys refused."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ptycho.config.deprecated import former_names_of, rename_keys
from ptycho.config.settings import field_types, read_value
from ptycho.errors import ConfigError
from ptycho.visible import brief

Config = TypeVar("Config")

RENAMED = {
    "n_images": "n_groups",
    "gradient_clip_val": "gradient_clip",
    "scheduler": "lr_schedule",
    "epochs": "nepochs",
    "grid_size": "gridsize",
    "oversample": "enable_oversampling",
    "learning_rate_schedule": "lr_schedule",
    "train_data_file_path": "train_data_file",
    "test_data_file_path": "test_data_file",
    "output_prefix": "output_dir",
}


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain values: the model nested under ``model``, paths as text.

    Parameters
    ----------
    config
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.

    Returns
    -------
    dict
        Ready for JSON and YAML; :func:`config_from_dict` returns an equal configuration.
    """
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            plain[item.name] = config_to_dict(value)
        elif isinstance(value, Path):
            plain[item.name] = str(value)
        elif isinstance(value, tuple):
            plain[item.name] = [str(part) for part in value]
        else:
            plain[item.name] = value
    return plain


def config_from_dict(cls: type[Config], values: Mapping[str, Any], source: str = "the configuration") -> Config:
    """Build a configuration from plain values; settings that are not given keep their defaults.

    Keys of the model may stand flat beside the others or nested under ``model``.

    Parameters
    ----------
    cls
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.
    values
        Field names and values; text such as ``"1e6"`` or ``"false"`` is read as its field's type.
    source
        Where the values come from, for error messages, e.g. ``"settings.yaml"``.

    Returns
    -------
    cls
        The configuration; each value has its field's type and keeps its field's limits.

    Raises
    ------
    ConfigError
        A key is unknown, given twice with different values, or its value is not possible.
    """
    own = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]  # any config dataclass
    hints = field_types(cls)
    model_cls = hints.get("model")
    model_names = {item.name for item in dataclasses.fields(model_cls)} if model_cls else set()
    if isinstance(values, Mapping):
        values = rename_keys(cls, values, source)
        values = rename_keys(model_cls, values, source) if model_cls else values
    flat, nested = _separate(values, model_names, source)
    arguments: dict[str, Any] = {}
    for key, value in flat.items():
        if key not in own:
            raise unknown_key(key, set(own) - {"model"} | model_names, source)
        arguments[key] = read_value(own[key], hints[key], value)
    if model_cls:
        arguments["model"] = config_from_dict(model_cls, nested, source)
    return cls(**arguments)


def known_keys(cls: type) -> set[str]:
    """Return every key that a configuration class reads, the model's keys included and ``model`` itself not."""
    names = {item.name for item in dataclasses.fields(cls)}
    model_cls = field_types(cls).get("model")
    return names - {"model"} | (known_keys(model_cls) if model_cls else set())


def known_former_names(cls: type) -> dict[str, str]:
    """Return the former spellings that a configuration class reads, the model's included, with the present ones."""
    model_cls = field_types(cls).get("model")
    return former_names_of(cls) | (known_former_names(model_cls) if model_cls else {})


def _separate(values: Mapping[str, Any], model_names: set[str], source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source} holds {type(values).__name__}: expected names with values, like 'nepochs: 20'.")
    flat = dict(values)
    nested: dict[str, Any] = {}
    if model_names and "model" in flat:
        given = flat.pop("model")
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            given = config_to_dict(given)
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"model = {brief(given)} in {source} is not possible: expected names with values below it."
            )
        nested.update(given)
    for name in model_names & set(flat):
        value = flat.pop(name)
        if name in nested and nested[name] != value:
            raise ConfigError(
                f"{name} stands twice in {source} ({brief(value)} and model: {brief(nested[name])}): keep one."
            )
        nested[name] = value
    return flat, nested


def unknown_key(key: Any, known: Collection[str], source: str) -> ConfigError:
    """Return the refusal of a key, with the most similar known key.

    Parameters
    ----------
    key
        The key as written.
    known
        Every key that would have been accepted.
    source
        Where it stands, e.g. ``"settings.yaml"``.
    """
    key = brief(key)
    near = RENAMED.get(key) or next(iter(difflib.get_close_matches(key, sorted(known), n=1)), None)
    if near in known:
        return ConfigError(f"{source} has the unknown key {key}: did you mean {near}?")
    return ConfigError(f"{source} has the unknown key {key}: '--help' of the command lists the keys there are.")
