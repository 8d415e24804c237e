"""Configuration: dataclasses, validation, YAML, and the bridge to PtychoPINN's settings dictionary."""

from ptycho.config.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.config.engines import EngineConfig, EngineSettings
from ptycho.config.files import load_config, load_yaml_config, save_config
from ptycho.config.legacy import config_from_legacy, dataclass_to_legacy_dict, update_legacy_dict
from ptycho.config.mapping import config_from_dict, config_to_dict, known_keys
from ptycho.config.published import publish
from ptycho.config.validation import validate

__all__ = [
    "EngineConfig",
    "EngineSettings",
    "InferenceConfig",
    "ModelConfig",
    "TrainingConfig",
    "config_from_dict",
    "config_from_legacy",
    "config_to_dict",
    "dataclass_to_legacy_dict",
    "known_keys",
    "load_config",
    "load_yaml_config",
    "publish",
    "save_config",
    "update_legacy_dict",
    "validate",
]
