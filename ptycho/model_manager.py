"""PtychoPINN's import path for saving and loading models; see :mod:`ptycho.compat.model_manager`."""

from ptycho.compat.model_manager import ModelManager, load_inference_bundle, save

__all__ = ["ModelManager", "load_inference_bundle", "save"]
