"""Whether the parameters of a bundle are those of the network that its configuration describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ptycho.errors import DataError
from ptycho.model.bundle import Bundle, load_bundle
from ptycho.model.generators import Generator, find_generator
from ptycho.model.training import is_network
from ptycho.visible import brief

__all__ = ["load_complete_bundle", "require_complete"]

_LARGEST_STEP = 4
"""Patterns' widths from one position of a group to the next; more than 1 do not overlap."""


def load_complete_bundle(path: str | Path) -> Bundle:
    """Read a bundle whose network can be used.

    Parameters
    ----------
    path
        As for :func:`ptycho.model.bundle.load_bundle`.

    Raises
    ------
    DataError
        It cannot be read, or see :func:`require_complete`.
    ConfigError
        The package that registers its network is not installed.
    """
    bundle = load_bundle(path)
    require_complete(bundle, str(path))
    return bundle


def require_complete(bundle: Bundle, where: str = "bundle", generator: Generator | None = None) -> None:
    """Check that a bundle has every parameter of its network, of the right shape, and a probe of its patterns' size.

    Parameters
    ----------
    bundle
        A trained model.
    where
        What the message names.
    generator
        The network; None takes the one that the configuration names.

    Raises
    ------
    DataError
        A parameter is missing, unknown or of another shape; the message names it.
    ConfigError
        The package that registers the network is not installed.
    """
    model, sides = bundle.config.model, np.shape(bundle.params.get("probe/real", ()))
    if sides[1:] != (model.N, model.N) or not sides[0]:
        raise DataError(f"{where}: the probe has shape {sides}; expected (P, {model.N}, {model.N}), as N says.")
    largest = _LARGEST_STEP * (model.gridsize + 1) * model.N
    if bundle.group_canvas_side > largest:
        raise DataError(
            f"{where}: a group's canvas has {brief(bundle.group_canvas_side)} pixels; at most {largest} fit."
        )
    network = generator or find_generator(model.architecture)
    params = {name: values for name, values in bundle.params.items() if is_network(name)}
    if hasattr(network, "fault"):
        fault = network.fault(params, model)
    else:
        expected = {name: np.shape(values) for name, values in network.init(model, 0).items()}
        fault = next(_differences({name: np.shape(values) for name, values in params.items()}, expected), None)
    if fault is not None:
        raise DataError(f"{where}: {brief(fault, 300)}; the bundle does not hold its network, write it again.")


def _differences(given: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> Iterator[str]:
    for name in sorted(given.keys() | expected.keys()):
        if given.get(name) != expected.get(name):
            found, wanted = given.get(name, "missing"), expected.get(name, "nothing")
            yield f"the parameter {name} is {found}, {wanted} is expected"
