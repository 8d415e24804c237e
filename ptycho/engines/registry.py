"""The engines that are registered, and the settings that each declares."""

from __future__ import annotations

import dataclasses

from ptycho.backends import get_backend, resolve_device
from ptycho.config.engines import EngineConfig, engine_names, engine_points
from ptycho.config.validation import validate
from ptycho.engines.engine import Engine
from ptycho.errors import ConfigError

__all__ = ["configured", "find_engine", "settings_elsewhere"]


def find_engine(name: str) -> type[Engine]:
    """The engine that the entry-point group ``ptycho.engines`` has under a name.

    Raises
    ------
    ConfigError
        There is none, it cannot be imported, or it is no engine.
    """
    points = engine_points()
    if name not in points:
        raise ConfigError(f"engine = {name} is not possible: expected one of {', '.join(sorted(points))}.")
    try:
        engine = points[name].load()
    except Exception as error:  # whatever a package of somebody else raises
        raise ConfigError(
            f"engine = {name}: {points[name].value} cannot be imported ({error}); expected a class derived from "
            "ptycho.engines.Engine: update the package that registers it, or remove it."
        ) from error
    if not (isinstance(engine, type) and issubclass(engine, Engine)):
        raise ConfigError(
            f"engine = {name}: {points[name].value} is no class derived from ptycho.engines.Engine: update the package "
            "that registers it, or remove it."
        )
    return engine


def configured(config: EngineConfig) -> tuple[type[Engine], EngineConfig]:
    """The engine that a configuration names, and the configuration in the class that the engine declares.

    Parameters
    ----------
    config : plain, then the engine's own settings have their defaults; or of the engine's class.

    Raises
    ------
    ConfigError
        The engine is not there, the settings are another engine's, or a value is not possible; the field is named.
    BackendError
        The backend is not there, or cannot compute on the device.
    """
    engine = find_engine(config.engine)
    if type(config) is EngineConfig:
        config = engine.settings(**{item.name: getattr(config, item.name) for item in dataclasses.fields(config)})
    elif engine.settings is EngineConfig or not isinstance(config, engine.settings):
        raise ConfigError(
            f"engine = {config.engine} is not possible in a {type(config).__name__}, which holds the settings of "
            "another engine: expected an EngineConfig, or the class that the engine declares."
        )
    validate(config)
    chosen = engine.chosen(config)
    resolve_device(get_backend(config.backend or chosen.default_backend), config.device)
    return chosen, config


def settings_elsewhere(name: str, engine: str) -> list[str]:
    """Names of the engines that declare a setting of this name; empty where ``engine`` does, or none.

    An engine that cannot be imported is left out.
    """
    found = []
    for other in engine_names():
        try:
            items = dataclasses.fields(find_engine(other).settings)
        except ConfigError:
            continue
        for item in items:
            of = item.metadata.get("engines", ()) or (other,)
            if item.name == name and other in of:
                found.append(other)
    return [] if engine in found else found
