"""PtychoPINN's names for saving and loading models of its PyTorch side; the file is the library's bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.backends import get_backend
from ptycho.compat.model_manager import ModelManager
from ptycho.config import TrainingConfig, config_from_legacy, validate
from ptycho.errors import ConfigError
from ptycho.model.bundle import Bundle
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics.photons import intensity_scale as scale_of
from ptycho.physics.probe import disc_probe
from ptycho.physics.reassembly import group_canvas_size
from ptycho.workflows.trained_model import TrainedModel, legacy_settings, trained_models

__all__ = ["create_torch_model_with_gridsize", "load_torch_bundle", "save_torch_bundle"]


def save_torch_bundle(
    models_dict: Mapping[str, Any],
    base_path: str | Path,
    config: TrainingConfig,
    intensity_scale: float | None = None,
) -> None:
    """Write a bundle at ``base_path`` + ``.zip``.

    Parameters
    ----------
    models_dict
        ``diffraction_to_obj`` and ``autoencoder``, as a training returns them under ``models`` or
        :func:`create_torch_model_with_gridsize` makes them.
    base_path
        Path of the file without ``.zip``.
    config
        The training's configuration.
    intensity_scale
        Replaces the model's own; None keeps it.

    Raises
    ------
    ConfigError
        There is no model of a known name.
    OutputError
        The file cannot be written.
    """
    models = {name: _as_bundle(model, config) for name, model in models_dict.items()}
    ModelManager.save_multiple_models(models, base_path, intensity_scale=intensity_scale)


def load_torch_bundle(
    base_path: str | Path, model_name: str | None = None
) -> tuple[dict[str, TrainedModel], dict[str, Any]]:
    """Read the bundle at ``base_path`` + ``.zip``, from any backend, to compute on PyTorch.

    Parameters
    ----------
    base_path
        Path of the file without ``.zip``.
    model_name
        A model that must be there; both are returned.

    Returns
    -------
    models, settings
        Both models by name, and the settings under PtychoPINN's names, which are put into its dictionary too.

    Raises
    ------
    DataError
        There is no bundle, or it cannot be read.
    ConfigError
        There is no model of this name.
    """
    models = ModelManager.load_multiple_models(base_path)
    if model_name is not None and model_name not in models:
        raise ConfigError(f"model_name: {model_name!r} given, one of {', '.join(models)} expected.")
    bundle = models["diffraction_to_obj"]
    return trained_models(bundle, "pytorch"), legacy_settings(bundle)


def create_torch_model_with_gridsize(gridsize: int, N: int, params_dict: Mapping[str, Any] | None = None) -> Any:
    """An untrained model as a LightningModule.

    Parameters
    ----------
    gridsize, N
        Side of a group and of a pattern.
    params_dict
        Further settings under PtychoPINN's names; None takes the defaults.

    Returns
    -------
    ptycho_torch.model.PtychoModule
        With starting weights and a disc for its probe.

    Raises
    ------
    BackendError
        PyTorch is not installed.
    ConfigError
        A setting is not possible.
    """
    backend = get_backend("pytorch")
    from ptycho_torch.model import PtychoModule

    config = config_from_legacy(TrainingConfig, params_dict or {})
    config.model.gridsize, config.model.N = gridsize, N
    validate(config)
    probe = disc_probe(N, N / 4)[None]
    params = initial_parameters(config.model, probe, config.nphotons, config.seed)
    side = group_canvas_size(np.zeros((1, gridsize**2, 2)), N, gridsize)
    model = PtychoPINN(config.model, backend, scale_of(config.nphotons, N), side, None, merge_window(probe))
    return PtychoModule(model, params, config)


def _as_bundle(model: Any, config: TrainingConfig) -> Any:
    """A bundle of a bundle or a module, with this configuration; anything else as it is."""
    if isinstance(model, Bundle):
        fields = {name: value for name, value in vars(model).items() if name != "backend"}
        return Bundle(**{**fields, "config": config})
    if not hasattr(model, "to_params"):
        return model
    from ptycho_torch.persistence import native_members

    fixed, native = model.model, native_members(model)
    return Bundle(model.to_params(), config, fixed.intensity_scale, config.nphotons, fixed.side, native=native)
