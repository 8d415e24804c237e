"""Check a configuration, field by field when it is made and as a whole when it is used; the error names the field."""

from __future__ import annotations

import dataclasses
from typing import Any

from ptycho.config.settings import check_value, field_types
from ptycho.errors import ConfigError


def check_fields(config: Any) -> None:
    """Refuse a value that its field does not admit; a placeholder, ``ModelConfig(N=0)``, may wait for the real value.

    Parameters
    ----------
    config
        A configuration that is being made.

    Raises
    ------
    ConfigError
        A field has the wrong type or lies outside its limits.
    """
    hints = field_types(type(config))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name == "model":
            if not dataclasses.is_dataclass(value):
                raise ConfigError(f"model = {value} is not possible: expected a ModelConfig.")
        elif value is None or value != item.metadata.get("placeholder"):
            check_value(item, hints[item.name], value)


def validate(config: Any) -> None:
    """Refuse a configuration that cannot run.

    Parameters
    ----------
    config
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``; a nested model is checked too.

    Raises
    ------
    ConfigError
        A field has the wrong type, lies outside its limits, or contradicts another one.
    """
    hints = field_types(type(config))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name == "model":
            if not dataclasses.is_dataclass(value):
                raise ConfigError(f"model = {value} is not possible: expected a ModelConfig.")
            validate(value)
        else:
            check_value(item, hints[item.name], value)
    if hasattr(config, "neighbor_count"):
        _check_groups(config)
    if hasattr(config, "nll_weight"):
        _check_losses(config)


def _check_groups(config: Any) -> None:
    size = config.model.gridsize**2
    pool = config.neighbor_count
    if config.enable_oversampling and config.neighbor_pool_size is not None:
        pool = config.neighbor_pool_size
    if pool + 1 < size:
        name = "neighbor_count" if pool == config.neighbor_count else "neighbor_pool_size"
        raise ConfigError(
            f"{name} = {pool} is not possible with gridsize = {config.model.gridsize}: "
            f"a group of {size} needs at least {size - 1} neighbours."
        )


def _check_losses(config: Any) -> None:
    if config.model.model_type == "pinn" and config.nll_weight == 0 and config.mae_weight == 0:
        raise ConfigError("nll_weight = 0 with mae_weight = 0 leaves no loss: give one of them a value above 0.")
