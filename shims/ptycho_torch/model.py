"""The model as a LightningModule: parameters in PyTorch's memory layout, the loss from the core."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from ptycho.config import ModelConfig, TrainingConfig, publish
from ptycho.errors import ConfigError
from ptycho.model.generators import channels
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import is_trained

__all__ = ["ModuleGenerator", "PtychoModule", "PtychoPINN_Lightning"]


class PtychoModule(lightning.LightningModule):
    """PtychoPINN's parameters as ``nn.Parameter`` and its loss as Lightning's steps.

    Parameters
    ----------
    model : what stays fixed.
    params : host arrays by name.
    config : losses, optimiser.
    """

    def __init__(self, model: PtychoPINN, params: dict[str, np.ndarray], config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        # what never changes goes to the device once, with the parameters, and into no checkpoint
        for name, kind in _FIXED.items():
            values = getattr(model, name)
            held = None if values is None else torch.as_tensor(np.asarray(values)).to(kind)
            self.register_buffer(f"_{name}", held, persistent=False)
        self.weights = torch.nn.ParameterDict()
        for name, values in params.items():
            self.weights[name] = torch.nn.Parameter(_native(name, values), requires_grad=is_trained(name, config))

    def named_arrays(self) -> dict[str, torch.Tensor]:
        """The parameters as the core names and shapes them: views, kernels HWIO."""
        return {k: v.permute(2, 3, 1, 0) if _is_kernel(k) else v for k, v in self.weights.items()}

    def to_params(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters, kernels HWIO."""
        return {k: np.asarray(v.detach().cpu().numpy(), order="C") for k, v in self.named_arrays().items()}

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and its terms of a batch that lies where the parameters lie: nothing passes between host and device."""
        there = dataclasses.replace(self.model, **{name: getattr(self, f"_{name}") for name in _FIXED})
        return there.loss(self.named_arrays(), batch, self.config)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """See Lightning."""
        return self._step(batch, "")

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """See Lightning."""
        return self._step(batch, "val_")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, whose learning rate and momentum are set before every step."""
        return torch.optim.Adam([p for p in self.weights.values() if p.requires_grad], lr=self.config.learning_rate)

    def _step(self, batch: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
        total, terms = self.loss(batch)
        size = int(batch["groups"])  # of the whole batch, whatever this process's share
        self.log(f"{prefix}loss", total, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        for name, value in terms.items():
            self.log(f"{prefix}{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return total


class ModuleGenerator:
    """A ``torch.nn.Module`` as a network of the model; see :class:`ptycho.model.generators.Generator`.

    Parameters
    ----------
    build : called with the model's configuration, the channels in and the channels out; gives a module that takes real
        (B, N, N, channels in) and answers complex (B, N, N, channels out). Buffers (running statistics) are refused:
        what a model knows lies in its parameters.
    """

    def __init__(self, build: Callable[[ModelConfig, int, int], torch.nn.Module]) -> None:
        self._build = build
        self._modules: dict[str, torch.nn.Module] = {}

    def init(self, config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
        """The module's own starting parameters, drawn from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self._build(config, *channels(config))
        buffers = [name for name, _ in module.named_buffers()]
        if buffers:
            raise ConfigError(
                f"architecture: the module has a buffer {buffers[0]!r}; use layers without running statistics, for "
                "example GroupNorm in the place of BatchNorm."
            )
        return {_PREFIX + k.replace(".", "/"): v.detach().cpu().numpy() for k, v in module.named_parameters()}

    def apply(self, params: dict[str, torch.Tensor], x: torch.Tensor, config: ModelConfig, backend: Any) -> Any:
        """The module's answer with these parameters."""
        key = repr(config)
        if key not in self._modules:
            self._modules[key] = self._build(config, *channels(config))
        module = self._modules[key]
        named = {k: params[_PREFIX + k.replace(".", "/")] for k, _ in module.named_parameters()}
        return torch.func.functional_call(module, named, (x,))


_PREFIX = "network/"
_FIXED = {"mask": torch.bool, "merge_window": torch.float32}


def _is_kernel(name: str) -> bool:
    return name.endswith("/kernel")


def _native(name: str, values: np.ndarray) -> torch.Tensor:
    """Kernels HWIO become OIHW in channels-last memory, which the CPU's convolutions want; the rest is copied."""
    tensor = torch.tensor(values)
    if _is_kernel(name):
        return tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return tensor


class PtychoPINN_Lightning:  # noqa: N801  # PtychoPINN's name
    """PtychoPINN's name for a model of its PyTorch side: its settings and, once trained or loaded, its bundle.

    What a model computes with depends on its scan, so it is a :class:`PtychoModule` only while
    :class:`ptycho_torch.api.base_api.Trainer` trains it.

    Parameters
    ----------
    model_config, data_config, training_config, inference_config : of :mod:`ptycho_torch.config_params`.
    """

    loss_name, val_loss_name = "loss", "val_loss"

    def __init__(self, model_config: Any, data_config: Any, training_config: Any, inference_config: Any) -> None:
        self.model_config, self.data_config = model_config, data_config
        self.training_config, self.inference_config = training_config, inference_config
        self.bundle: Any = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **configs: Any) -> PtychoPINN_Lightning:
        """Read a checkpoint of a training here; its settings are published for callers of PtychoPINN's dictionary.

        Parameters
        ----------
        checkpoint_path : the ``.ckpt`` file.
        configs : settings objects in the place of those that it keeps, by the names of the class's arguments.

        Raises
        ------
        DataError
            It is no checkpoint of this library, or damaged.
        ConfigError
            The settings given are of another network.
        """
        from ptycho_torch.api.configs import same_architecture
        from ptycho_torch.lightning_utils import read_checkpoint

        bundle, kept = read_checkpoint(checkpoint_path)
        same_architecture(configs, kept)
        made = cls(**(kept | configs))
        made.bundle = bundle
        publish(bundle.config, intensity_scale=bundle.intensity_scale, measurement=bundle.measurement)
        return made
