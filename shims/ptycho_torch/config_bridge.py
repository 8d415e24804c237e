"""PtychoPINN's names for turning its PyTorch settings into a configuration; the rules are in `ptycho.config.bridge`."""

from ptycho.config.bridge import to_inference_config, to_model_config, to_training_config

__all__ = ["to_inference_config", "to_model_config", "to_training_config"]
