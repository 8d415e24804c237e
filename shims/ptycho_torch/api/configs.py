"""PtychoPINN's five settings objects together, and what is said of settings that change nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Protocol

from ptycho.config import torch_fields
from ptycho.config.mapping import unknown_key
from ptycho.config.torch_fields import CLASSES
from ptycho.errors import ConfigError

__all__ = ["ConfigManager", "as_settings", "logged", "member", "same_architecture", "warn_of"]

logger = logging.getLogger(__name__)


class LoadedModel(Protocol):
    """What is read of a :class:`ptycho_torch.api.base_api.PtychoModel`."""

    model: Any
    """Its settings objects as attributes."""

    @property
    def bundle(self) -> Any:
        """The trained model."""


class ConfigManager:
    """The five settings objects together.

    Parameters
    ----------
    data_config, model_config, training_config, inference_config, datagen_config
        Of :mod:`ptycho_torch.config_params`, or a mapping of some of its fields; None takes the defaults.
    """

    def __init__(
        self,
        data_config: Any = None,
        model_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
        datagen_config: Any = None,
    ) -> None:
        self.data_config = as_settings("data_config", data_config)
        self.model_config = as_settings("model_config", model_config)
        self.training_config = as_settings("training_config", training_config)
        self.inference_config = as_settings("inference_config", inference_config)
        self.datagen_config = as_settings("datagen_config", datagen_config)
        self.measurement: str | None = None
        """What the loaded model's training patterns were; None without a loaded model."""
        self._trained: dict[str, Any] = {}

    @classmethod
    def from_configs(
        cls,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
        datagen_config: Any = None,
    ) -> ConfigManager:
        """The same as the class, in PtychoPINN's other order."""
        return cls(data_config, model_config, training_config, inference_config, datagen_config)

    @classmethod
    def from_loaded_model(cls, model: LoadedModel) -> ConfigManager:
        """The settings of a loaded model; those of its architecture cannot be changed by :meth:`update` then.

        Raises
        ------
        ConfigError
            The model is neither trained nor loaded.
        """
        bundle, module = model.bundle, model.model
        made = cls(module.data_config, module.model_config, module.training_config, module.inference_config)
        made.measurement = bundle.measurement
        made._trained = {name: dataclasses.replace(getattr(made, name)) for name in torch_fields.ARCHITECTURE}
        return made

    def validate_arch_compatibility(self, model: LoadedModel) -> None:
        """Refuse settings that are not those a model was made with.

        Raises
        ------
        ConfigError
            Naming every setting of the architecture that differs.
        """
        same_architecture(vars(self), vars(model.model))

    def update(self, **changes: Mapping[str, Any] | None) -> None:
        """Change fields: ``update(training_config={"epochs": 3})``.

        Raises
        ------
        ConfigError
            There is no such settings object or field, or a loaded model's architecture would change; then nothing is.
        """
        changed = {}
        for name, values in changes.items():
            if name not in CLASSES:
                raise unknown_key(name, CLASSES, "update")
            changed[name] = as_settings(name, values or {}, getattr(self, name))
        same_architecture(changed, self._trained)
        for name, values in changes.items():
            for field, value in (values or {}).items():
                setattr(getattr(self, name), field, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """Data, model, training, inference and datagen settings."""
        return tuple(getattr(self, name) for name in CLASSES)


def as_settings(name: str, given: Any, base: Any = None) -> Any:
    """A settings object of what a caller gave: one as it is, or a copy of ``base`` with some fields changed."""
    cls = CLASSES[name]
    if given is None or isinstance(given, Mapping):
        known = {item.name for item in dataclasses.fields(cls)}
        for field in given or {}:
            if field not in known:
                raise unknown_key(field, known, name)
        return dataclasses.replace(base or cls(), **(given or {}))
    return given


def same_architecture(given: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Refuse settings objects, by name, that are of another network than those of a trained model.

    Raises
    ------
    ConfigError
        Naming every setting that differs.
    """
    both = [name for name in torch_fields.ARCHITECTURE if name in given and name in trained]
    values = [
        (f"{name}.{field}", repr(getattr(given[name], field)), repr(getattr(trained[name], field)))
        for name in both
        for field in torch_fields.ARCHITECTURE[name]
    ]
    differing = [f"{field} = {wanted} instead of {found}" for field, wanted, found in values if wanted != found]
    if differing:
        raise ConfigError(f"The model was trained with other settings: {', '.join(differing)}; use it with its own.")


def member(kind: type[Enum], name: str, value: Any) -> Any:
    """A member of an enumeration, or of its value; ConfigError names what is possible."""
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(str(each.value) for each in kind)
        raise ConfigError(f"{name} = {value} is not possible: expected one of {words}.") from None


def warn_of(names: list[str]) -> None:
    """Say in the log which settings change nothing."""
    if names:
        logger.warning("%s: accepted, without effect here.", ", ".join(names))


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Warnings as records of the log, which ptychodus brings from its child process to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        logger.warning("%s", warning.message)
