"""Names that have changed: the old spelling keeps working for one version, with a warning that names the new one."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

__all__ = ["REMOVAL", "former_names", "former_names_of", "formerly_positional", "rename_keys", "warn_renamed"]

REMOVAL = "0.3"
"""The version that drops the spellings that 0.2 renames."""

_ATTRIBUTE = "__former_names__"
_Class = TypeVar("_Class", bound=type)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class _Former(NamedTuple):
    new: str
    files_warn: bool


def warn_renamed(old: str, new: str, removal: str = REMOVAL, stacklevel: int = 2) -> None:
    """Warn that a name has changed.

    Parameters
    ----------
    old, new
        As the user writes them, e.g. ``"--shift"`` and ``"--interpolation"``.
    removal
        The version that no longer accepts the old name.
    stacklevel
        As for :func:`warnings.warn`; 2 points at the caller of the function that calls this one.
    """
    message = f"{old} is now called {new}; the old name stops working in version {removal}."
    warnings.warn(message, FutureWarning, stacklevel=stacklevel + 1)


def former_names(names: Mapping[str, str], *, files_warn: bool = True) -> Callable[[_Class], _Class]:
    """Decorate a class so that its constructor and its attributes accept former names too.

    Configuration classes also accept them as flags and in files, see :func:`rename_keys`.

    Parameters
    ----------
    names
        From each former name to the name of the field or attribute now.
    files_warn
        False for keys that files keep for ever: reading such a file does not warn.
    """

    def decorate(cls: _Class) -> _Class:
        construct = cls.__init__  # type: ignore[misc]  # replaced on the class itself, below

        @functools.wraps(construct)
        def accepting(self: Any, *args: Any, **given: Any) -> None:
            for old in names.keys() & given.keys():  # dataclasses.replace passes the new name as well: the old one wins
                warn_renamed(f"{cls.__name__}.{old}", names[old])
                given[names[old]] = given.pop(old)
            construct(self, *args, **given)

        cls.__init__ = accepting  # type: ignore[misc]  # as above
        for old, new in names.items():
            setattr(cls, old, _alias(old, new))
        own = {old: _Former(new, files_warn) for old, new in names.items()}
        setattr(cls, _ATTRIBUTE, getattr(cls, _ATTRIBUTE, {}) | own)
        return cls

    return decorate


def formerly_positional(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function of keyword-only arguments that still accepts them by position, with a warning."""
    call: Callable[..., _Result] = function
    names = [name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]

    @functools.wraps(function)
    def accepting(*args: _Arguments.args, **given: _Arguments.kwargs) -> _Result:
        if not args:
            return call(**given)
        by_name = dict(zip(names, args, strict=False))
        if len(args) > len(names) or by_name.keys() & given.keys():
            return call(*args, **given)  # which raises the TypeError
        warnings.warn(
            f"{function.__name__} takes its arguments by name, {names[0]}= and {names[1]}= first; positional arguments "
            f"stop working in version {REMOVAL}.",
            FutureWarning,
            stacklevel=2,
        )
        return call(**by_name, **given)

    return accepting


def former_names_of(cls: type) -> dict[str, str]:
    """The former names of a class's fields, each with the name that it has now."""
    return {old: former.new for old, former in getattr(cls, _ATTRIBUTE, {}).items()}


def rename_keys(cls: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The same values under the names that the fields of a configuration class have now.

    Where a key stands beside its former spelling, both are returned: the reader refuses the one that it does not know.
    """
    former: dict[str, _Former] = getattr(cls, _ATTRIBUTE, {})
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        if key in former and former[key].new not in values:
            if former[key].files_warn:
                warn_renamed(f"{key} in {source}", former[key].new, stacklevel=3)
            key = former[key].new
        renamed[key] = value
    return renamed


def _alias(old: str, new: str) -> property:
    def read(self: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    def write(self: Any, value: Any) -> None:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        setattr(self, new, value)

    return property(read, write, doc=f"Former name of ``{new}``.")
