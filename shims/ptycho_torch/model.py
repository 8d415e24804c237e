"""The model as a LightningModule: parameters in PyTorch's memory layout, the loss from the core."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from ptycho.config import ModelConfig, TrainingConfig, publish
from ptycho.errors import BackendError, ConfigError
from ptycho.model.generators import Generator, channels, complex_from_polar, find_generator
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import is_trained
from ptycho_torch.layout import gathered, is_sharded, native, neutral, numbers

__all__ = [
    "CompiledGenerator",
    "ModuleGenerator",
    "PtychoModule",
    "PtychoPINN_Lightning",
    "native",
    "neutral",
    "numbers",
]


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
        if config.compile:
            network = CompiledGenerator(model.generator or find_generator(model.config.architecture))
            model = dataclasses.replace(model, generator=network)
        self.model, self.config = model, config
        # what never changes goes to the device once, with the parameters, and into no checkpoint
        for name, kind in _FIXED.items():
            values = getattr(model, name)
            constant = None if values is None else torch.as_tensor(np.asarray(values)).to(kind)
            self.register_buffer(f"_{name}", constant, persistent=False)
        self._numbers = numbers(params)
        trained = {name: is_trained(name, config) for name in params}
        # those that are trained come first: then the optimiser numbers them as the module does, sharded or not
        held = {name: native(name, params[name]) for name in sorted(params, key=lambda name: not trained[name])}
        self.weights = _Weights({k: torch.nn.Parameter(v, requires_grad=trained[k]) for k, v in held.items()})

    def configure_model(self) -> None:
        """Shard the parameters over the processes, along the first axis, where the strategy is one of shards."""
        if self.device_mesh is None:
            return
        try:
            from torch.distributed.fsdp import fully_shard
        except ImportError as error:
            raise BackendError("strategy: 'fsdp' needs PyTorch 2.6 or newer; update it, or choose ddp.") from error
        fully_shard(self.weights, mesh=self.device_mesh["data_parallel"])

    def gather(self) -> None:
        """Hold the parameters whole again on every process; all of them have to take part."""
        if self.sharded:
            parts = dict(self.weights.named_parameters())
            whole = {
                k: torch.nn.Parameter(gathered(v.detach()), requires_grad=v.requires_grad) for k, v in parts.items()
            }
            self.weights = _Weights(whole)

    @property
    def sharded(self) -> bool:
        """Whether this process holds a part of every parameter only."""
        return any(is_sharded(held) for held in self.weights.parameters())

    def named_arrays(self) -> dict[str, torch.Tensor]:
        """The parameters as the core names and shapes them: views, kernels HWIO; of shards whole only within a step."""
        return {k: neutral(k, v, self._numbers) for k, v in self.weights.named_parameters()}

    def to_params(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters, kernels HWIO; of shards all processes have to take part."""
        whole = {k: neutral(k, gathered(v.detach()), self._numbers) for k, v in self.weights.named_parameters()}
        return {k: np.array(v.cpu().numpy(), order="C") for k, v in whole.items()}

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and its terms of a batch that lies where the parameters lie: nothing passes between host and device."""
        there = dataclasses.replace(self.model, **{name: getattr(self, f"_{name}") for name in _FIXED})
        return self.weights(lambda: there.loss(self.named_arrays(), batch, self.config))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """See Lightning."""
        return self._step(batch, "")

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """See Lightning."""
        return self._step(batch, "val_")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, whose learning rate and momentum are set before every step."""
        return torch.optim.Adam([p for p in self.weights.parameters() if p.requires_grad], lr=self.config.learning_rate)

    def _step(self, batch: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
        total, terms = self.loss(batch)
        size = int(batch["groups"])  # of the whole batch, whatever this process's share
        self.log(f"{prefix}loss", total, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        for name, value in terms.items():
            self.log(f"{prefix}{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return total


class _Weights(torch.nn.Module):
    """Parameters by name. Where they are sharded, they are whole only while a call computes, and its gradient."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        super().__init__()
        for name, values in parameters.items():
            self.register_parameter(name, values)

    def forward(self, compute: Callable[[], Any]) -> Any:
        """What is computed with the parameters."""
        return compute()


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


class CompiledGenerator:
    """A network as one program of PyTorch's compiler, made at the first batch of a size and again at the next size.

    Its answer becomes complex outside: the compiler does not survive complex gradients.

    Parameters
    ----------
    network : with a method ``polar``, which gives amplitude and phase of what ``apply`` answers.
    options : of ``torch.compile``.

    Raises
    ------
    ConfigError
        The network has none.
    """

    def __init__(self, network: Generator, **options: Any) -> None:
        answer = getattr(network, "polar", None)
        if answer is None:
            raise ConfigError(
                f"compile: the network {type(network).__name__} answers in complex numbers only, which PyTorch's "
                "compiler does not differentiate; give it a method polar(params, x, config, backend) that answers "
                "amplitude and phase, or leave compile off."
            )
        self.init = network.init
        self._parts = torch.compile(answer, **options)

    def apply(self, params: dict[str, torch.Tensor], x: torch.Tensor, config: ModelConfig, backend: Any) -> Any:
        """See :class:`ptycho.model.generators.Generator`.

        Raises
        ------
        BackendError
            The compiler cannot work here.
        """
        from torch._dynamo.exc import BackendCompilerFailed

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*lru_cache.*")  # of what finds an array's namespace
            warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")  # it looks there
            try:
                amplitude, phase = self._parts(params, x, config, backend)
            except BackendCompilerFailed as error:
                raise BackendError(
                    f"compile: PyTorch's compiler cannot work here ({_reason(error)}); it needs a C++ compiler on a "
                    "CPU and Triton on a GPU. Install that, or leave compile off."
                ) from error
        return complex_from_polar(backend.xp, amplitude, phase)


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "inner_exception", error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")


_PREFIX = "network/"
_FIXED = {"mask": torch.bool, "merge_window": torch.float32}


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
