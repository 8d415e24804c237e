"""Command-line flags made from configuration classes, and one configuration out of flags and a YAML file.

Precedence: flags, then the file, then the defaults. A flag is written ``--name value``; dashes and underscores in the
name mean the same, and a flag of true or false may stand alone for true.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from ptycho.config.deprecated import rename_keys, warn_renamed
from ptycho.config.files import load_yaml_config
from ptycho.config.mapping import config_from_dict, known_former_names, known_keys, unknown_key
from ptycho.config.settings import FALSE, NOTHING, PATHS, TRUE, choices_of, describe_limits, field_types, split_optional
from ptycho.errors import ConfigError
from ptycho.visible import brief

SPELLINGS = {
    "epochs": ("--epochs", "--nepochs"),
    "nepochs": ("--nepochs", "--epochs"),
    "output_dir": ("--out", "--output_dir"),
    "output_file": ("--out", "--output_file"),
    "dry_run": ("--dry-run", "--dry_run"),
    "start_model": ("--from", "--start_model"),
    "data_dirs": ("--data-dir", "--data_dir", "--data_dirs"),
}


class FlagParser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the message of argparse as a :class:`ConfigError`."""
        lacking = re.fullmatch(r"argument ([^/\s]+)(?:/\S+)?: expected one argument", message)
        what = f"{lacking[1]} needs a value" if lacking else message[:1].upper() + message[1:]
        raise ConfigError(f"{what}: '{self.prog} --help' shows what is possible.")


def make_parser(prog: str, words: str, description: str, examples: str) -> FlagParser:
    """Return an empty parser whose help ends with examples.

    Parameters
    ----------
    prog
        The command as typed, e.g. ``"ptycho train"``.
    words
        Positional arguments before the flags, e.g. ``"SCAN"``.
    description, examples
        Text before and after the flags; line breaks are kept.
    """
    return FlagParser(
        prog=prog,
        usage=" ".join(part for part in (prog, words, "[flags]") if part),
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )


def add_flags(
    parser: argparse.ArgumentParser,
    cls: type,
    title: str,
    skip: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> set[str]:
    """Add a flag for every field of a configuration class, a nested model's fields in a group of their own.

    Parameters
    ----------
    parser
        Where the flags go. Flags that are not given are absent from the result of parsing.
    cls
        A dataclass whose fields are made by :func:`ptycho.config.settings.setting`.
    title
        Heading of the group in the help.
    skip
        Names of fields that have their flag already.
    defaults
        Values that the command starts from instead of the fields' defaults, for the help.

    Returns
    -------
    set of str
        Names of all fields of the class, the nested model's included.
    """
    hints = field_types(cls)
    if "model" in hints:
        add_flags(parser, hints["model"], "the model", skip, defaults)
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(cls):
        if field.name != "model" and field.name not in skip:
            plain, _ = split_optional(hints[field.name])
            group.add_argument(
                *SPELLINGS.get(field.name, (f"--{field.name}",)),
                dest=field.name,
                action="append" if plain == PATHS else "store",
                metavar=_metavar(field, plain),
                help=_help(field, defaults.get(field.name, field.default)),
            )
    return known_keys(cls)


Explain = Callable[[str], str | None]
"""From the name of a setting that is not known to a sentence about it, or None."""


def parse_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str], classes: Sequence[type], explain: Explain = lambda name: None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Parse a command line into the flags of the classes and the parser's other arguments.

    Parameters
    ----------
    parser
        With the classes' flags added.
    argv
        The words after the command.
    classes
        The configuration classes.
    explain
        Why a flag is not known here.

    Returns
    -------
    own : dict
        Positional arguments and flags that belong to no class, as parsed.
    flags : dict
        Text of each configuration flag that was given, by field name.

    Raises
    ------
    ConfigError
        A flag is unknown or lacks its value.
    """
    fields = [field for cls in classes for field in _flat_fields(cls)]
    switches = {field.name: field.metadata["alone"] for field in fields if field.metadata["alone"]}
    switches |= {field.name: "true" for field in fields if field.type in ("bool", bool)}
    former: dict[str, str] = {}
    for cls in classes:
        former |= known_former_names(cls)
    parsed, extra = parser.parse_known_args(_normalise(argv, switches, former))
    if extra:
        sentence = explain(extra[0][2:].partition("=")[0]) if extra[0].startswith("--") else None
        raise ConfigError(sentence) if sentence else _unknown_word(parser, extra[0])
    keys = set().union(*(known_keys(cls) for cls in classes))
    values = vars(parsed)
    return (
        {name: value for name, value in values.items() if name not in keys},
        {name: value for name, value in values.items() if name in keys},
    )


def combine(
    classes: Sequence[type],
    flags: Mapping[str, str],
    config_file: str | None = None,
    without: Collection[str] = (),
    explain: Explain = lambda name: None,
) -> tuple[list[Any], set[str]]:
    """Build one configuration of each class from flags, a YAML file and defaults, in this order of precedence.

    Parameters
    ----------
    classes
        The configuration classes; a key that two of them have goes to both.
    flags
        Text by field name.
    config_file
        YAML file with keys of any of the classes, flat or nested under ``model:``.
    without
        Fields of the classes that are set otherwise: unknown keys of a file.
    explain
        Why a key is not known here.

    Returns
    -------
    configs : list
        One instance per class.
    given : set of str
        Names of the fields that the flags or the file set.

    Raises
    ------
    ConfigError
        A key is unknown or a value is not possible.
    """
    values = load_yaml_config(config_file) if config_file is not None else {}
    nested = values.pop("model", None)
    if nested is not None:
        values = _flatten(values, nested, str(config_file))
    for cls in classes:
        values = rename_keys(cls, values, str(config_file))
        model = field_types(cls).get("model")
        values = rename_keys(model, values, str(config_file)) if model else values
    known = set().union(*(known_keys(cls) for cls in classes))
    for key in values:
        if key not in known or key in without:
            if sentence := explain(str(key)):
                raise ConfigError(f"{config_file}: {sentence}")
            raise unknown_key(key, known - set(without), str(config_file))
    configs: list[Any] = []
    for cls in classes:
        keys = known_keys(cls)
        from_file = {key: value for key, value in values.items() if key in keys and key not in flags}
        from_flags = {key: value for key, value in flags.items() if key in keys}
        configs.append(config_from_dict(cls, from_file | from_flags, str(config_file or "the command line")))
    return configs, set(values) | set(flags)


def _flatten(values: dict[str, Any], nested: Any, source: str) -> dict[str, Any]:
    if not isinstance(nested, dict):
        raise ConfigError(f"model = {brief(nested)} in {source} is not possible: expected names with values below it.")
    for key, value in nested.items():
        if key in values and values[key] != value:
            raise ConfigError(
                f"{brief(key)} stands twice in {source} ({brief(values[key])} and model: {brief(value)}): keep one."
            )
    return values | nested


def _flat_fields(cls: type) -> list[dataclasses.Field[Any]]:
    hints = field_types(cls)
    fields = [field for field in dataclasses.fields(cls) if field.name != "model"]
    return fields + (_flat_fields(hints["model"]) if "model" in hints else [])


def _metavar(field: dataclasses.Field[Any], plain: type) -> str:
    choices = choices_of(field)
    if choices:
        return "|".join(str(choice) for choice in choices)
    if field.metadata["alone"]:
        return "WHERE"
    return {bool: "true|false", int: "N", float: "X", str: "NAME"}.get(
        plain, "DIR" if field.name.endswith(("_dir", "_dirs")) else "FILE"
    )


def _help(field: dataclasses.Field[Any], value: Any) -> str:
    default = "none" if value in (None, ()) else str(value)
    if isinstance(value, bool):
        default = default.lower()
    elif isinstance(value, float):
        default = f"{value:g}"
    details = [part for part in (field.metadata["unit"], describe_limits(field), f"default {default}") if part]
    return f"{field.metadata['help']} [{'; '.join(details)}]".replace("%", "%%")


def _normalise(argv: Sequence[str], switches: Mapping[str, str], former: Mapping[str, str]) -> list[str]:
    """Spell flags with underscores and by their present names, and give a lone switch what it means."""
    words: list[str] = []
    for place, word in enumerate(argv):
        if not word.startswith("--") or word == "--":
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in former:
            warn_renamed(f"--{name}", f"--{former[name]}", stacklevel=3)
            name = former[name]
        words.append(f"--{name}{equals}{value}")
        if name in switches and not equals:
            following = argv[place + 1].lower() if place + 1 < len(argv) else ""
            if not _is_value(following, switches[name]):
                words.append(switches[name])
    return words


def _is_value(word: str, alone: str) -> bool:
    """Whether a word after a switch is its value; one of an address is told by its colon, or says how many."""
    if alone == "true":
        return word in TRUE | FALSE
    return not word.startswith("-") and (":" in word or word.isdigit() or word in NOTHING - {""} | {alone})


def _unknown_word(parser: argparse.ArgumentParser, word: str) -> ConfigError:
    if not word.startswith("-"):
        return ConfigError(f"'{brief(word)}' is one argument too many: '{parser.prog} --help' shows what is possible.")
    flag = brief(word.partition("=")[0])
    known = [option for action in parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
    advice = f"did you mean {near[0]}?" if near else f"'{parser.prog} --help' lists the flags there are."
    return ConfigError(f"Unknown flag {flag}: {advice}")
