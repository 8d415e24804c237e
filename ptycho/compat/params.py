"""PtychoPINN's settings dictionary for outside callers; the library writes it at its two gates and never reads it."""

from __future__ import annotations

from typing import Any

from ptycho.config.published import cfg

__all__ = ["cfg", "get", "params", "set"]

_REQUIRED = object()


def get(key: str, default: Any = _REQUIRED) -> Any:
    """Return a setting by PtychoPINN's name, e.g. ``"intensity_scale"``.

    Raises
    ------
    KeyError
        The setting is not there and no default is given.
    """
    if key == "bigN":
        return cfg["N"] + (cfg["gridsize"] - 1) * cfg["offset"]
    return cfg[key] if default is _REQUIRED else cfg.get(key, default)


def set(key: str, value: Any) -> None:
    """Change a setting for whoever reads the dictionary; the library does not."""
    cfg[key] = value


def params() -> dict[str, Any]:
    """Return a copy of all settings, ``bigN`` (N + (gridsize - 1) * offset) included."""
    return cfg | {"bigN": get("bigN")}
