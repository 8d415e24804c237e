"""PtychoPINN's names for driving its PyTorch side from another program, as ptychodus does.

They hand on: a training is :func:`ptycho.workflows.train.train`, a reconstruction
:func:`ptycho.workflows.reconstruct.stitch`, both on PyTorch. A setting that changes nothing is named in the log.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.backends import get_backend
from ptycho.config import publish, torch_fields
from ptycho.config.bridge import to_model_config, to_training_config
from ptycho.errors import ConfigError
from ptycho.model.bundle import save_bundle
from ptycho.workflows.output_folder import output_folder
from ptycho.workflows.reconstruct import stitch
from ptycho.workflows.train import train
from ptycho_torch.api.configs import ConfigManager, as_settings, logged, member, warn_of
from ptycho_torch.api.scans import DataloaderFormats, PtychoDataLoader

__all__ = [
    "ConfigManager",
    "DataloaderFormats",
    "InferenceEngine",
    "Orchestration",
    "PtychoDataLoader",
    "PtychoModel",
    "Trainer",
]


class Orchestration(Enum):
    """PtychoPINN's keepers of a training; the library's is Lightning, whatever is asked for."""

    MLFLOW = "mlflow"
    PYTORCH = "pytorch"
    LIGHTNING = "lightning"


class PtychoModel:
    """A model with its settings; ``model`` is a :class:`ptycho_torch.model.PtychoPINN_Lightning`.

    Parameters
    ----------
    model_config, data_config, training_config, inference_config
        As of :class:`ConfigManager`.
    """

    model: Any = None

    def __init__(
        self,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
    ) -> None:
        self.model_config = as_settings("model_config", model_config)
        self.data_config = as_settings("data_config", data_config)
        self.training_config = as_settings("training_config", training_config)
        self.inference_config = as_settings("inference_config", inference_config)

    @classmethod
    def _new_model(
        cls,
        model: Any,
        config_manager: ConfigManager | None = None,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
    ) -> PtychoModel:
        """An untrained model of a class that takes the four settings objects."""
        manager = config_manager or ConfigManager(data_config, model_config, training_config, inference_config)
        made = cls(manager.model_config, manager.data_config, manager.training_config, manager.inference_config)
        made.model = model(made.model_config, made.data_config, made.training_config, made.inference_config)
        return made

    @staticmethod
    def _extract_configs_from_checkpoint(checkpoint_path: str | Path) -> tuple[Any, Any, Any, Any]:
        """Data, model, training and inference settings that a checkpoint keeps.

        Raises
        ------
        DataError
            It is no checkpoint of this library, or damaged.
        """
        from ptycho_torch.lightning_utils import read_checkpoint

        configs = read_checkpoint(checkpoint_path)[1]
        data, model, training, inference = configs.values()
        return data, model, training, inference

    @property
    def bundle(self) -> Any:
        """The trained model as the library has it.

        Raises
        ------
        ConfigError
            It is neither trained nor loaded.
        """
        if getattr(self.model, "bundle", None) is None:
            raise ConfigError("The model is neither trained nor loaded from a checkpoint: do one of them first.")
        return self.model.bundle


class Trainer:
    """A training to come.

    Parameters
    ----------
    model
        An untrained model, which holds the trained one afterwards.
    dataloader
        Its scan.
    config_manager
        Settings; None takes those of the model and of the loader.
    """

    def __init__(
        self, model: PtychoModel, dataloader: PtychoDataLoader, config_manager: ConfigManager | None = None
    ) -> None:
        self.ptycho_model, self.dataloader = model, dataloader
        self.config_manager = config_manager or ConfigManager(
            dataloader.data_config, model.model_config, dataloader.training_config, model.inference_config
        )
        self._trainer = _Listeners()

    @classmethod
    def _from_lightning(
        cls,
        model: PtychoModel,
        dataloader: PtychoDataLoader,
        orchestration: Orchestration | str = Orchestration.LIGHTNING,
        config_manager: ConfigManager | None = None,
        training_config: Any = None,
    ) -> Trainer:
        """A training in Lightning's loop; what is appended to ``_trainer.callbacks`` takes part in it."""
        _say_keeper(orchestration)
        made = cls(model, dataloader, config_manager)
        if training_config is not None and config_manager is None:
            made.config_manager.training_config = as_settings("training_config", training_config)
        return made

    def train(self, orchestration: Orchestration | str = Orchestration.LIGHTNING, experiment_name: str = "") -> str:
        """Train, and keep in the loader's output folder the checkpoints, the logs and the bundle ``wts.h5.zip``.

        Parameters
        ----------
        orchestration, experiment_name
            Without effect.

        Returns
        -------
        str
            The folder.

        Raises
        ------
        ConfigError, DataError, BackendError
            Before any work is done, each naming the field.
        OutputError
            The folder cannot be written.
        """
        from ptycho_torch.lightning_utils import BEST, save_checkpoint

        _say_keeper(orchestration)
        warn_of(["experiment_name"] if experiment_name else [])
        manager, scan = self.config_manager, self.dataloader.scan
        config = self._config(manager)
        with output_folder(config.output_dir, [], force=True) as folder:
            publish(config, measurement=scan.measurement)
            bundle = train(scan, config, self._trainer.callbacks, folder, overwrite=True)
            self.ptycho_model.model.bundle = bundle
            save_checkpoint(bundle, vars(manager), folder / "checkpoints" / BEST)
            save_bundle(bundle, folder, overwrite=True)
        return str(config.output_dir)

    def _config(self, manager: ConfigManager) -> Any:
        """The library's configuration of the settings; what has no effect is named."""
        data, training, mask = manager.data_config, manager.training_config, manager.model_config.probe_mask_tensor
        heeded = dataclasses.replace(data, measurement_domain=torch_fields.DataConfig.measurement_domain)
        usual, place = torch_fields.TrainingConfig(), self.dataloader.output_dir
        decided = ("train_data_file", "test_data_file", *(["output_dir"] if place else []))  # by the loader
        ignored = [name for name in decided if getattr(training, name) != getattr(usual, name)]
        ignored += ["subsample_seed"] if data.subsample_seed is not None else []
        mask = manager.model_config.probe_mask if mask is None else mask
        warn_of(ignored + ([] if mask is None or isinstance(mask, bool) else ["the values of probe_mask"]))
        file = self.dataloader.file or Path("arrays")
        given = {
            "nphotons": data.nphotons,
            "n_groups": training.n_groups or len(self.dataloader),
            "train_data_file": file,
            "test_data_file": file,
            "output_dir": Path(place or training.output_dir),
            "subsample_seed": None,
        }
        with logged():
            model = to_model_config(heeded, manager.model_config)
            config = to_training_config(model, data, manager.model_config, training, given)
        warn_of(torch_fields.without_effect(manager.datagen_config))
        return config


class _Listeners:
    """What stands for Lightning's trainer until it is made: ``callbacks`` is a list of Lightning's callbacks."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []


class InferenceEngine:
    """Reconstructs scans with a trained model.

    Parameters
    ----------
    ptycho_model
        Trained or loaded.
    config_manager
        Settings; None takes the model's, changed by the others.
    model_config, data_config, training_config, inference_config
        As of :class:`ConfigManager`.
    """

    def __init__(
        self,
        ptycho_model: PtychoModel,
        config_manager: ConfigManager | None = None,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
    ) -> None:
        manager = config_manager or ConfigManager(
            data_config or ptycho_model.data_config,
            model_config or ptycho_model.model_config,
            training_config or ptycho_model.training_config,
            inference_config or ptycho_model.inference_config,
        )
        self.ptycho_model, self.model = ptycho_model, ptycho_model.model
        self.data_config, self.model_config = manager.data_config, manager.model_config
        self.training_config, self.inference_config = manager.training_config, manager.inference_config

    def predict_and_stitch(self, ptycho_dataloader: PtychoDataLoader) -> Any:
        """The object of a scan.

        ``inference_config.batch_size`` groups are computed at once. With ``patch_weighting`` "probe" a pixel of a patch
        weighs what the probe's intensity is there; with "uniform" the central ``middle_trim`` x ``middle_trim`` pixels
        weigh the same and the others nothing. The model has its own probe; the scan's is not used.

        Returns
        -------
        (H, W) complex64 tensor on the host, H and W even: the middle of the positions' range, along each axis, is at
        pixel ``[H//2, W//2]``; the object is 1 where no patch lies.

        Raises
        ------
        ConfigError
            The model is not trained, or a setting is not possible.
        DataError, BackendError
            The scan does not fit the model; the device is not there.
        """
        scan = ptycho_dataloader.scan
        middle = (scan.positions.min(axis=0) + scan.positions.max(axis=0)) / 2
        device = self.training_config.device
        stitched = stitch(
            scan.replace(positions=scan.positions - middle, object=None, object_origin=None),
            self.ptycho_model.bundle,
            backend="pytorch",
            device=None if device == "cuda" else device,
            neighbor_count=self.data_config.K,
            **_stitching(self.inference_config),
        )
        return get_backend("pytorch").asarray(_around(stitched.object, stitched.origin))


def _stitching(inference: Any) -> dict[str, Any]:
    """What the settings of an inference ask of :func:`reconstruct`; what has no effect is named."""
    if inference.patch_weighting not in ("probe", "uniform"):
        raise ConfigError(f"patch_weighting = {inference.patch_weighting} is not possible: expected probe or uniform.")
    wanted: dict[str, Any] = {"window": "probe"}
    if inference.patch_weighting == "uniform":
        wanted = {"window": "crop", "crop": inference.middle_trim}
    heeded = {"patch_weighting"} | ({"middle_trim"} if "crop" in wanted else set())
    warn_of([name for name in torch_fields.without_effect(inference) if name not in heeded])
    if inference.batch_size != torch_fields.InferenceConfig.batch_size:
        wanted["batch_size"] = inference.batch_size
    return wanted


def _around(image: np.ndarray, origin: tuple[float, float]) -> np.ndarray:
    """An image whose pixel [0, 0] is at ``origin``, which is whole, grown by 1 until position (0, 0) is its middle."""
    first = [round(value) for value in origin]
    halves = [max(-start, start + size) for start, size in zip(first, image.shape, strict=True)]
    widths = [(half + start, half - start - size) for half, start, size in zip(halves, first, image.shape, strict=True)]
    return np.pad(image, widths, constant_values=1)


def _say_keeper(orchestration: Orchestration | str) -> None:
    if member(Orchestration, "orchestration", orchestration) is Orchestration.MLFLOW:
        warn_of(["orchestration = mlflow"])
