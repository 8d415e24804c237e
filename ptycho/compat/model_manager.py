"""PtychoPINN's names for saving and loading models; the file is the library's bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ptycho.compat import params
from ptycho.errors import ConfigError, DataError
from ptycho.model.bundle import Bundle, save_bundle
from ptycho.workflows.components import load_inference_bundle
from ptycho.workflows.run import open_bundle
from ptycho.workflows.trained_model import TrainedModel, trained_models

__all__ = ["ModelManager", "load_inference_bundle", "save"]


def save(out_prefix: str | Path) -> None:
    """Write the model that was trained last in this process, as ``wts.h5.zip`` (the setting ``h5_path``) in a folder.

    Raises
    ------
    DataError
        None was trained.
    OutputError
        The file cannot be written.
    """
    bundle = params.get("trained_model", None)
    if not isinstance(bundle, Bundle):
        raise DataError("No model was trained in this process, so there is none to save: train one, or save a bundle.")
    save_bundle(bundle, Path(out_prefix) / f"{params.get('h5_path')}.zip", overwrite=True)


class ModelManager:
    """The two models of an archive, by name; here both are one network."""

    @staticmethod
    def save_multiple_models(
        models_dict: Mapping[str, Bundle],
        base_path: str | Path,
        custom_objects: Any = None,
        intensity_scale: float | None = None,
    ) -> None:
        """Write an archive at ``base_path`` + ``.zip``.

        Parameters
        ----------
        models_dict
            As a training returns them under ``models``.
        base_path
            Path of the file without ``.zip``.
        custom_objects
            Not needed: a bundle holds no code.
        intensity_scale
            Replaces the model's own; None keeps it.

        Raises
        ------
        ConfigError
            There is no model of a known name.
        OutputError
            The file cannot be written.
        """
        bundle = models_dict.get("diffraction_to_obj") or models_dict.get("autoencoder")
        if not isinstance(bundle, Bundle):
            raise ConfigError(
                f"models_dict holds {', '.join(models_dict) or 'nothing'}; expected diffraction_to_obj and "
                "autoencoder, as a training returns them under 'models'."
            )
        fields = {name: value for name, value in vars(bundle).items() if name != "backend"}
        if intensity_scale is not None:
            fields["intensity_scale"] = float(intensity_scale)
        save_bundle(Bundle(**fields), Path(f"{base_path}.zip"), overwrite=True)

    @staticmethod
    def load_multiple_models(
        base_path: str | Path, model_names: Iterable[str] | None = None
    ) -> dict[str, TrainedModel]:
        """Read the archive at ``base_path`` + ``.zip``; its settings are put into the settings dictionary.

        Raises
        ------
        DataError
            There is none, or it cannot be read.
        ConfigError
            A name is not that of a model.
        """
        models = trained_models(open_bundle(Path(f"{base_path}.zip")))
        wanted = list(models) if model_names is None else list(model_names)
        unknown = [name for name in wanted if name not in models]
        if unknown:
            raise ConfigError(f"model_names: {unknown[0]!r} given, of {', '.join(models)} expected.")
        return {name: models[name] for name in wanted}
