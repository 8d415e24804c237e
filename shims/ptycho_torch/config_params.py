"""PtychoPINN's names for the settings of its PyTorch side; they are kept in `ptycho.config.torch_fields`."""

from __future__ import annotations

from importlib.util import find_spec

from ptycho.config.torch_fields import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig

__all__ = ["TORCH_AVAILABLE", "DataConfig", "DatagenConfig", "InferenceConfig", "ModelConfig", "TrainingConfig"]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


TORCH_AVAILABLE: bool = _is_there("torch")
"""Whether PyTorch is installed; it is not imported to find out."""
