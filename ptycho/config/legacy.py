"""The bridge to callers of PtychoPINN's settings dictionary: flat, with some dotted names.

The library itself reads configurations, never a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ptycho.config.mapping import config_from_dict, config_to_dict, known_former_names, known_keys

Config = TypeVar("Config")

KEY_MAPPING = {
    "object_big": "object.big",
    "probe_big": "probe.big",
    "probe_mask": "probe.mask",
    "probe_trainable": "probe.trainable",
    "intensity_scale_trainable": "intensity_scale.trainable",
    "positions_provided": "positions.provided",
    "output_dir": "output_prefix",
    "train_data_file": "train_data_file_path",
    "test_data_file": "test_data_file_path",
}


def dataclass_to_legacy_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as one flat dictionary under PtychoPINN's old names, model included, paths as text.

    Parameters
    ----------
    config
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.

    Returns
    -------
    dict
        Every field, also those that are ``None``.
    """
    values = config_to_dict(config)
    values.update(values.pop("model", {}))
    return {KEY_MAPPING.get(key, key): value for key, value in values.items()}


def update_legacy_dict(cfg: dict[str, Any], config: Any) -> None:
    """Write a configuration into a legacy dictionary in place.

    Fields that are ``None`` leave the dictionary's value alone; keys that the configuration does not know stay.

    Parameters
    ----------
    cfg
        The dictionary, usually ``ptycho.params.cfg``.
    config
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.
    """
    for key, value in dataclass_to_legacy_dict(config).items():
        if value is not None:
            cfg[key] = str(value) if isinstance(value, Path) else value


def config_from_legacy(cls: type[Config], cfg: Mapping[str, Any]) -> Config:
    """Build a configuration from a legacy dictionary; keys that it does not know, and None, are left out.

    Parameters
    ----------
    cls
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.
    cfg
        As :func:`dataclass_to_legacy_dict` makes it, e.g. the settings of a loaded model.

    Raises
    ------
    ConfigError
        A value is not possible.
    """
    names = {KEY_MAPPING.get(name, name): name for name in known_keys(cls)}
    names = known_former_names(cls) | names
    values = {names[key]: value for key, value in cfg.items() if key in names and value is not None}
    return config_from_dict(cls, values, "the settings dictionary")
