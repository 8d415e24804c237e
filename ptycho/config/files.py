"""Configurations as YAML files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeVar

from ptycho.config.mapping import config_from_dict, config_to_dict
from ptycho.config.regular_files import read_regular
from ptycho.errors import ConfigError
from ptycho.files import written_whole
from ptycho.visible import brief

Config = TypeVar("Config")
_VALUE_LIMIT = 100_000
"""Of a file, references written out: nested ones may stand for more values than memory holds."""
_LARGEST = 1 << 20
"""Bytes of a file of settings; real ones have some thousands."""
_UNREADABLE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML raises for numbers of too many digits, dates that do not exist, and tags on values of another kind."""


def load_yaml_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings without interpreting its keys.

    Parameters
    ----------
    path
        The file; plain scalars, lists and mappings only, no tags that build objects.

    Returns
    -------
    dict
        Keys and values as written; empty for an empty file.

    Raises
    ------
    ConfigError
        The file cannot be read, is no YAML, or holds something else than names with values.
    """
    import yaml

    try:
        text = read_regular(path, _LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"The configuration {path} cannot be read: {reason}.") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if _written_out(node, {}) > _VALUE_LIMIT:
            raise ConfigError(
                f"The configuration {path} holds more than {_VALUE_LIMIT} values once its references are read."
            )
        values = None if node is None else loader.construct_document(node)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"The configuration {path} is not valid YAML{where}: {problem}.") from error
    except RecursionError as error:
        raise ConfigError(f"The configuration {path} is nested too deeply for any settings.") from error
    except _UNREADABLE as error:
        raise ConfigError(
            f"The configuration {path} holds a value that cannot be read: {brief(str(error) or type(error).__name__)}."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"The configuration {path} holds a {type(values).__name__}: expected names with values, like 'nepochs: 20'."
        )
    return values


def _written_out(node: Any, counted: dict[int, float]) -> float:
    """Values below a node of the parsed file, what is referred to again counted again.

    Infinite where something holds itself. It is counted before any value is built, since merge keys copy.
    """
    if not isinstance(getattr(node, "value", None), list):
        return 1
    if id(node) not in counted:
        counted[id(node)] = math.inf
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1 + sum(_written_out(part, counted) for part in parts)
    return counted[id(node)]


def load_config(cls: type[Config], path: str | Path, **overrides: Any) -> Config:
    """Read a configuration from YAML; settings that are not in the file keep their defaults.

    Parameters
    ----------
    cls
        ``ModelConfig``, ``TrainingConfig`` or ``InferenceConfig``.
    path
        The file. Keys of the model stand flat or nested under ``model:``.
    **overrides
        Values that win over the file's, by field name (flat).

    Raises
    ------
    ConfigError
        The file cannot be read, a key is unknown, or a value is not possible.
    """
    from_file = config_to_dict(config_from_dict(cls, load_yaml_config(path), str(path)))
    nested = from_file.get("model", {})
    for key, value in overrides.items():
        (nested if key in nested else from_file)[key] = value
    return config_from_dict(cls, from_file)


def save_config(config: Any, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a configuration as YAML, the model nested under ``model:``; the file appears whole or not at all.

    Parameters
    ----------
    config
        Of any class.
    path
        The file.
    overwrite
        Replace a file that is there already.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    import yaml

    with written_whole(path, overwrite=overwrite) as stream:
        stream.write(yaml.safe_dump(config_to_dict(config), sort_keys=False).encode())
