"""Declaration of a configuration field with its default, help and limits; conversion of text and YAML values.

The same rules serve command-line flags, YAML files and values assigned in Python, so that a value means the same
wherever it was written.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ptycho.errors import ConfigError
from ptycho.visible import brief

NOTHING = frozenset({"none", "null", "~", ""})
TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
PATHS = tuple[Path, ...]
"""The type of a field that takes several paths, by repeating its flag or as a list in YAML."""


_Class = typing.TypeVar("_Class", bound=type)


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[Any, ...] | Callable[[], tuple[Any, ...]] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    alone: str = "",
    engines: tuple[str, ...] = (),
    placeholder: Any = None,
) -> Any:
    """Declare a dataclass field with the text and limits that are shared by help, validation and documentation.

    Parameters
    ----------
    default
        Default value.
    help
        What the field does, in one sentence without a full stop.
    unit
        Unit of the value, e.g. ``"pixels"`` or ``"photons"``; empty for a pure number or a word.
    choices
        The only values allowed, or a function that returns them; empty: any value within the limits.
    at_least, at_most, above
        Inclusive lower, inclusive upper and exclusive lower limit of a number.
    alone
        Value of the flag without an argument. The word after the flag is its value if it has a colon, is a number or
        none, or follows ``=``.

    placeholder
        A value that a constructor accepts until the real one is known, and that :func:`~ptycho.config.validate` does
        not.

    Returns
    -------
    dataclasses.Field
        To be assigned to an annotated name in a dataclass body.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "alone": alone,
        "placeholder": placeholder,
        "engines": engines,
    }
    return dataclasses.field(default=default, metadata=metadata)


def data_dirs_setting() -> Any:
    """The setting of a command that reads HDF5 files which may link to others."""
    return setting(
        (),
        "a folder whose files the scan file may link to, beside its own folder; may be repeated, and "
        "PTYCHO_DATA_DIRS names such folders for every command",
    )


def documented(cls: _Class) -> _Class:
    """Decorate a configuration class: its docstring, and so ``help()``, lists every field with meaning and limits."""
    lines = [cls.__doc__ or "", "", "    Parameters", "    ----------"]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "help" not in field.metadata:
            lines += [f"    {field.name} : {hints[field.name].__name__}"]
            continue
        choices = field.metadata["choices"]
        admitted = "the name of one that is installed" if callable(choices) else describe(field, hints[field.name])
        lines += [f"    {field.name} : {admitted}; default {field.default}", f"        {field.metadata['help']}"]
    cls.__doc__ = "\n".join([*lines, ""])
    return cls


def field_types(cls: type) -> dict[str, Any]:
    """Return the resolved annotation of every field of a configuration class, by field name."""
    return typing.get_type_hints(cls)


def split_optional(hint: Any) -> tuple[type, bool]:
    """Return the plain type of an annotation and whether ``None`` is allowed beside it."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        plain = [member for member in typing.get_args(hint) if member is not type(None)]
        return plain[0], len(plain) < len(typing.get_args(hint))
    return hint, False


def choices_of(field: dataclasses.Field[Any]) -> tuple[Any, ...]:
    """Return the only values that a field admits; empty where it admits any."""
    choices = field.metadata.get("choices", ())
    return choices() if callable(choices) else choices


def describe(field: dataclasses.Field[Any], hint: Any) -> str:
    """Return the values that a field admits as words, e.g. ``"an integer, at least 1"``."""
    plain, optional = split_optional(hint)
    ending = " or none" if optional else ""
    choices = choices_of(field)
    if choices:
        listed = [str(choice) for choice in choices]
        return "one of " + ", ".join(listed) + ending
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a word",
        Path: "a path",
        PATHS: "a path or a list of paths",
    }[plain]
    limits = describe_limits(field)
    unit = field.metadata.get("unit", "")
    return words + (f", {limits}" if limits else "") + (f" ({unit})" if unit else "") + ending


def describe_limits(field: dataclasses.Field[Any]) -> str:
    """Return the limits of a number as words, e.g. ``"at least 0, at most 0.9"``; empty where there are none."""
    phrases = (("at_least", "at least"), ("above", "above"), ("at_most", "at most"))
    given = [(phrase, field.metadata.get(key)) for key, phrase in phrases]
    return ", ".join(f"{phrase} {limit:g}" for phrase, limit in given if limit is not None)


def read_value(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """Convert a value written by a person (flag text, YAML scalar) to the field's type and check its limits.

    Parameters
    ----------
    field
        The dataclass field, made by :func:`setting`.
    hint
        Its resolved annotation: ``bool``, ``int``, ``float``, ``str``, ``Path``, or one of these or ``None``.
    value
        Text such as ``"false"``, ``"1e6"`` or ``"none"``, or an already typed scalar.

    Returns
    -------
    bool | int | float | str | Path | None
        The typed value.

    Raises
    ------
    ConfigError
        Naming the field, what was given and what is expected.
    """
    plain, optional = split_optional(hint)
    if value is None or (optional and isinstance(value, str) and value.strip().lower() in NOTHING):
        if optional:
            return None
        raise _refusal(field, hint, value)
    try:
        converted = _READERS[plain](value)
    except (TypeError, ValueError, OverflowError):
        raise _refusal(field, hint, value) from None
    check_value(field, hint, converted)
    return converted


def check_value(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    """Refuse a value of the wrong type or outside the field's limits; nothing is converted.

    Raises
    ------
    ConfigError
        Naming the field, what was given and what is expected.
    """
    plain, optional = split_optional(hint)
    if value is None and optional:
        return
    choices = choices_of(field)
    good = _is_a(plain, value) and (not choices or value in choices)
    if good and plain in (int, float):
        try:
            good = _within(field, float(value))
        except OverflowError:
            good = False
    if not good:
        raise _refusal(field, hint, value)


def _within(field: dataclasses.Field[Any], number: float) -> bool:
    lowest, above, highest = (field.metadata.get(key) for key in ("at_least", "above", "at_most"))
    return (
        math.isfinite(number)
        and (lowest is None or number >= lowest)
        and (above is None or number > above)
        and (highest is None or number <= highest)
    )


def _is_a(plain: type, value: Any) -> bool:
    if plain is bool:
        return isinstance(value, bool)
    if plain is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if plain is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if plain is Path:
        return isinstance(value, str | Path)
    if plain == PATHS:
        return isinstance(value, tuple) and all(isinstance(path, str | Path) for path in value)
    return isinstance(value, plain)


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value.strip().lower() in TRUE
    raise ValueError


def _read_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    number = float(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _read_str(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise ValueError
    return str(value)


def _read_path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError
    return Path(value)


def _read_paths(value: Any) -> tuple[Path, ...]:
    if isinstance(value, str) and value.strip().lower() in NOTHING:
        return ()
    return tuple(_read_path(path) for path in (value if isinstance(value, list | tuple) else [value]))


_READERS: dict[Any, Callable[[Any], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
    Path: _read_path,
    PATHS: _read_paths,
}


def _refusal(field: dataclasses.Field[Any], hint: Any, value: Any) -> ConfigError:
    return ConfigError(f"{field.name} = {brief(value)} is not possible: expected {describe(field, hint)}.")
