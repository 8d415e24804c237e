"""The settings of the demonstration: a scan and a training that take a few minutes on two processor cores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

DEMO_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "output_dir": Path("demo"),
        "size": 256,
        "positions": "fermat",
        "step": 6.0,
        "nepochs": 5,
        "n_filters_scale": 1,
    }
)
"""What the demonstration changes about the defaults of the configurations."""


def apply_demo_settings(config: Any, given: Collection[str]) -> None:
    """Give a configuration the demonstration's values, in place, where the user gave none.

    Parameters
    ----------
    config
        Any configuration; a nested model gets its values too.
    given
        Names of the fields that the user set.
    """
    for target in (config, getattr(config, "model", None)):
        for name, value in DEMO_SETTINGS.items():
            if name not in given and hasattr(target, name):
                setattr(target, name, value)
