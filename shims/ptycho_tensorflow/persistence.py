"""Keras's own form of a trained model, to lie in the bundle beside the neutral weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras

from ptycho_tensorflow.model import PtychoModel

__all__ = ["native_members"]


def native_members(model: PtychoModel) -> dict[str, bytes]:
    """``model.keras``: the model without its optimiser.

    Keras loads it in safe mode once ``ptycho_tensorflow.model`` has been imported.
    """
    plain = PtychoModel(model.model, model.to_params(), model.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        keras.saving.save_model(plain, path)
        return {path.name: path.read_bytes()}
