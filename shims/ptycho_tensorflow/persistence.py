"""What a training in Keras leaves: the bundle's native member and checkpoints."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import keras

from ptycho.files import written_whole
from ptycho.model.safe_archive import SafeArchive
from ptycho.model.training import damaged
from ptycho_tensorflow.model import PtychoModel

__all__ = ["load_checkpoint", "native_members", "save_checkpoint"]

_COURSE = "course.json"


def native_members(model: PtychoModel) -> dict[str, bytes]:
    """``model.keras``: the model without its optimiser.

    Keras loads it in safe mode once ``ptycho_tensorflow.model`` has been imported.
    """
    plain = PtychoModel(model.model, model.to_params(), model.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        keras.saving.save_model(plain, path)
        return {path.name: path.read_bytes()}


def save_checkpoint(path: Path, model: PtychoModel, plan: str) -> None:
    """Write all that a training needs to go on, whole or not at all: Keras's archive with one member more.

    Parameters
    ----------
    path : the file.
    model : with its optimiser.
    plan : the rest, see :class:`ptycho.model.training.TrainingPlan`.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model.keras"
        keras.saving.save_model(model, whole)
        with zipfile.ZipFile(whole, "a") as archive:
            archive.writestr(_COURSE, plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, overwrite=True, own=True) as stream:
            stream.write(whole.read_bytes())


def load_checkpoint(path: Path, model: PtychoModel) -> str:
    """Bring the weights and the optimiser to what :func:`save_checkpoint` wrote; the plan.

    Parameters
    ----------
    path : the file.
    model : of the same network, compiled.

    Raises
    ------
    DataError
        The file is not there, damaged, or of another network.
    """
    try:
        with SafeArchive(path) as archive:
            plan = {name: archive.read(name) for name in archive.names()}[_COURSE].decode()  # each against its sum
        model.load_weights(path)
    except Exception as error:  # whatever another network's file makes of Keras and h5py
        raise damaged(path, error) from error
    return plan
