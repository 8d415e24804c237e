"""PtychoPINN's named workflow steps on PyTorch, those of `ptycho.workflows.components` whatever backend a config names.

Signatures and results are the same; containers hold tensors, and a run also saves its model.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ptycho.backends import backend_for_training
from ptycho.compat.raw_data import RawData
from ptycho.config import InferenceConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.workflows import components
from ptycho.workflows.output_folder import output_folder
from ptycho.workflows.run import train_scan
from ptycho.workflows.scans import as_scan
from ptycho.workflows.trained_model import TrainedModel
from ptycho_torch.data_container_bridge import PtychoDataContainerTorch
from ptycho_torch.model_manager import load_torch_bundle, save_torch_bundle

__all__ = ["load_inference_bundle_torch", "run_cdi_example_torch", "train_cdi_model_torch"]

Results = dict[str, Any]


def run_cdi_example_torch(
    train_data: Any,
    test_data: Any,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    do_stitching: bool = False,
) -> tuple[Any, Any, Results]:
    """Train on one scan and, if asked, reconstruct another one; save the model where ``output_dir`` is not None.

    Arguments, results and errors are those of :func:`ptycho.workflows.components.run_cdi_example`.

    Raises
    ------
    OutputError
        The bundle cannot be written to ``output_dir``; found out before the training where it can be.
    """
    steps = (train_cdi_model_torch, _reassemble_cdi_image_torch)
    chosen = _on_torch(config)
    orientation = (flip_x, flip_y, transpose)
    place: Any = config.output_dir  # a path by its type, but callers clear it
    if place is None:
        return components.run_steps(*steps, train_data, test_data, chosen, orientation, M, do_stitching)
    with output_folder(place, [], force=True) as folder:
        done = components.run_steps(*steps, train_data, test_data, chosen, orientation, M, do_stitching)
        save_torch_bundle(done[2]["models"], folder / "wts.h5", chosen, done[2]["intensity_scale"])
    return done


def train_cdi_model_torch(train_data: Any, test_data: Any, config: TrainingConfig) -> Results:
    """Train on a scan; as :func:`ptycho.workflows.components.train_cdi_model`."""
    chosen = _on_torch(config)
    test_container = None
    if test_data is not None:  # one group for every pattern
        scan = as_scan(test_data)
        every = dataclasses.replace(chosen, n_groups=len(scan), sequential_sampling=True, enable_oversampling=False)
        test_container = _ensure_container(scan, every)
    return _train_with_lightning(_ensure_container(train_data, chosen), test_container, chosen)


def load_inference_bundle_torch(
    bundle_dir: str | Path, model_name: str = "diffraction_to_obj"
) -> tuple[TrainedModel, dict[str, Any]]:
    """Load a trained model to compute on PyTorch; as :func:`ptycho.workflows.components.load_inference_bundle`.

    Parameters
    ----------
    bundle_dir
        Folder that holds ``wts.h5.zip``, from any backend.
    model_name
        ``"diffraction_to_obj"`` or ``"autoencoder"``; here both are one network.

    Raises
    ------
    DataError
        There is no such folder, or no bundle in it, or it cannot be read.
    ConfigError
        There is no model of this name.
    """
    components.bundle_folder(bundle_dir)
    models, settings = load_torch_bundle(Path(bundle_dir) / "wts.h5", model_name)
    return models[model_name], settings


def _ensure_container(data: Any, config: TrainingConfig) -> PtychoDataContainerTorch:
    """Data in any form as a container of tensors, with the groups that a training with this configuration draws."""
    if isinstance(data, PtychoDataContainerTorch):
        return data
    scan = as_scan(data)
    raw, side = RawData.from_scan(scan), config.model.gridsize
    grouped = raw.generate_grouped_data(
        config.model.N,
        K=config.neighbor_count,
        nsamples=min(config.n_groups, len(scan)) if side == 1 else config.n_groups,
        seed=config.seed,
        sequential_sampling=config.sequential_sampling,
        gridsize=side,
        enable_oversampling=config.enable_oversampling,
    )
    return PtychoDataContainerTorch(grouped, raw.probeGuess)


def _train_with_lightning(
    train_container: PtychoDataContainerTorch, test_container: PtychoDataContainerTorch | None, config: TrainingConfig
) -> Results:
    """Train on the scan that a container was drawn from."""
    bundle = train_scan(as_scan(train_container), _on_torch(config))
    return components.training_results(bundle, train_container, test_container)


def _reassemble_cdi_image_torch(
    test_data: Any,
    config: TrainingConfig | InferenceConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    coord_scale: float = 1.0,
    *,
    model: Any = None,
    train_results: Results | None = None,
) -> tuple[Any, Any, Results]:
    """Reconstruct a scan; as :func:`ptycho.workflows.components.reassemble_cdi_image`.

    The model is ``model``, or that of the results of a training, or the one in the configuration's folder.

    Raises
    ------
    ConfigError
        The results of a training hold no model.
    """
    if model is None and train_results is not None:
        model = train_results.get("bundle") or (train_results.get("models") or {}).get("diffraction_to_obj")
        if model is None:
            raise ConfigError("train_results hold no model: give what train_cdi_model_torch returned.")
    chosen: Any = _on_torch(config)
    return components.reassemble_cdi_image(test_data, chosen, flip_x, flip_y, transpose, M, coord_scale, model=model)


def _on_torch(config: Any) -> Any:
    """The configuration with PyTorch as its backend, refused at once if that is not there."""
    backend_for_training("pytorch")
    return dataclasses.replace(config, backend="pytorch", output_dir=config.output_dir or Path())
