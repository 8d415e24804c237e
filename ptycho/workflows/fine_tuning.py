"""Start a training from a trained network: what it takes over, and what is the new scan's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.bundle import Bundle, origins
from ptycho.model.complete import load_complete_bundle
from ptycho.model.training import is_network

__all__ = ["origin_of", "settled", "start_of", "with_network_of"]


def start_of(config: TrainingConfig) -> Bundle | None:
    """The bundle that a training starts from; None where it starts from random weights.

    Raises
    ------
    DataError
        It cannot be read.
    """
    return None if config.start_model is None else load_complete_bundle(config.start_model)


def settled(config: TrainingConfig, given: Collection[str] | None = None) -> TrainingConfig:
    """A training with the model's settings of the bundle that it starts from; as it is where it starts from none.

    Parameters
    ----------
    config : the training.
    given : names of the settings that were chosen by hand, which must not be others than the bundle's; by default
        those that have another value than where nothing is said.

    Raises
    ------
    ConfigError
        A chosen setting contradicts the bundle; it is named.
    DataError
        The bundle cannot be read.
    """
    start = start_of(config)
    if start is None:
        return config
    for item in dataclasses.fields(ModelConfig):
        wanted, there = getattr(config.model, item.name), getattr(start.config.model, item.name)
        chosen = wanted != item.default if given is None else item.name in given
        if chosen and wanted != there:
            raise ConfigError(
                f"{item.name}: {_said(wanted)} given, and the model in {config.start_model} has {_said(there)}; leave "
                "it out, or train without --from."
            )
    return dataclasses.replace(config, model=dataclasses.replace(start.config.model))


def with_network_of(params: dict[str, np.ndarray], start: Bundle) -> dict[str, np.ndarray]:
    """Starting parameters of a scan with the network of a bundle in the place of the untrained one.

    Probe and scale stay the scan's own: they say how this scan was lit, and the network sees its patterns and its
    estimate relative to them.

    Parameters
    ----------
    params : as :func:`ptycho.model.pinn.initial_parameters` makes them for the scan.
    start : the bundle.

    Raises
    ------
    ConfigError
        Its parameters are not those of the network that is trained.
    """
    learned = {name: values.astype(np.float32) for name, values in start.params.items() if is_network(name)}
    strange = sorted(set(learned) ^ {name for name in params if is_network(name)})
    if strange:
        raise ConfigError(f"start_model: the bundle is of another network than the one to be trained ({strange[0]}).")
    return {**params, **learned}


def origin_of(start: Bundle, config: TrainingConfig) -> dict[str, Any]:
    """What a manifest says of the model that a training started from."""
    digest = start.manifest.get("sha256", {}).get("weights.safetensors")
    return {"file": str(config.start_model), "weights_sha256": digest, **origins(start)}


def _said(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
