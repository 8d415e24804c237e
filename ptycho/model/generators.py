"""The registry of networks that turn diffraction patterns into complex object patches.

A network plugs in by the entry-point group ``ptycho.generators`` of any installed package (the name is then a value of
``architecture``), or is passed to the workflows as ``generator=``. Loading a bundle looks names up in the installed
packages only; a bundle never names code to run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np

from ptycho.backends import Array, Backend
from ptycho.config import ModelConfig
from ptycho.errors import ConfigError
from ptycho.model.network import apply_cnn, cnn_shapes, init_cnn, shape_fault

__all__ = ["CnnGenerator", "Generator", "available_generators", "channels", "complex_from_polar", "find_generator"]


class Generator(Protocol):
    """A network as two functions; its parameters are a flat dictionary of named arrays.

    With ``start_iterations`` none, ``x`` is the scaled diffraction (B, N, N, C) and the answer is the object patches
    (B, N, N, C) complex. Otherwise the network corrects a given object: ``x`` holds (B, N, N, 4C), real and imaginary
    part of the object estimate minus a flat one and of the change that the pattern asks for, each C channels, and the
    answer is the complex factor on the estimate; 1 leaves it as it is. :func:`channels` gives both counts.

    A network that also has ``polar``, with the arguments of ``apply`` and amplitude and phase for an answer, can be
    exported to programs without complex numbers without its angle being taken, and compiled by PyTorch.

    A network whose parameters may have other shapes than ``init`` gives them also has ``fault(params, config)``: what
    is wrong with some parameters, in words, or None. Loading a bundle asks it.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> from ptycho.model.generators import available_generators
    >>> "cnn" in available_generators()
    True
    """

    def init(self, config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
        """Starting parameters on the host, float32; names must not be those of the probe or ``log_scale``."""

    def apply(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> Array:
        """Complex (B, N, N, C) from real (B, N, N, channels in), in the backend's arrays; pure, differentiable."""


def channels(config: ModelConfig) -> tuple[int, int]:
    """Numbers of input and output channels of a network."""
    group = config.gridsize**2
    seen = group if config.start_iterations is None else 4 * group
    return seen, group if config.object_big else 1


class CnnGenerator:
    """PtychoPINN's convolutional encoder with two decoders; see :mod:`ptycho.model.network`."""

    def init(self, config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
        """See :class:`Generator`; drawn from one numpy generator, the same in every framework."""
        params = init_cnn(_shapes(config), np.random.default_rng(seed))
        if config.start_iterations is not None:  # so that the untrained network returns the estimate unchanged
            for name in params:
                if name.endswith(("/centre/kernel", "/border/kernel", "/full/kernel")):
                    params[name] = params[name] * np.float32(0.0)
        return params

    def fault(self, params: Mapping[str, np.ndarray], config: ModelConfig) -> str | None:
        """See :class:`Generator`; nothing is allocated for it."""
        return shape_fault({name: part.shape for name, part in params.items()}, _shapes(config), channels(config)[1])

    def apply(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> Array:
        """See :class:`Generator`."""
        return complex_from_polar(backend.xp, *self.polar(params, x, config, backend))

    def polar(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> tuple[Array, Array]:
        """Amplitude and phase of the output, for programs without complex numbers."""
        xp = backend.xp
        if config.start_iterations is None:
            amplitude, phase = apply_cnn(params, x, backend, config.amp_activation)
            return xp.astype(amplitude, x.dtype), xp.astype(phase, x.dtype)
        gain, turn = apply_cnn(params, x, backend, "correction", "correction", "correction")
        # 1 + gain needs more than the 8 bits of a bfloat16
        return 1.0 + xp.astype(gain, x.dtype), xp.astype(turn, x.dtype)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return cnn_shapes(config.N, config.n_filters_scale, *channels(config), config.pad_object, config.probe_big)


def complex_from_polar(xp: Array, amplitude: Array, phase: Array) -> Array:
    """``amplitude * exp(i phase)`` in the complex dtype of the same precision."""
    kind = xp.complex128 if amplitude.dtype == xp.float64 else xp.complex64
    return xp.astype(amplitude * xp.cos(phase), kind) + xp.astype(amplitude * xp.sin(phase), kind) * 1j


def available_generators() -> list[str]:
    """Values of ``architecture`` that are available in this installation."""
    return sorted({"cnn", *(point.name for point in entry_points(group="ptycho.generators"))})


@functools.cache
def find_generator(name: str) -> Generator:
    """The network of that name.

    Raises
    ------
    ConfigError
        No installed package registers it, or the one that does cannot be imported.
    """
    if name == "cnn":
        return CnnGenerator()
    for point in entry_points(group="ptycho.generators"):
        if point.name == name:
            try:
                found = point.load()
            except ImportError as error:
                raise ConfigError(f"architecture: {name!r} is registered but cannot be imported ({error}).") from error
            return found() if isinstance(found, type) else found
    raise ConfigError(
        f"architecture: got {name!r}; choose one of {', '.join(available_generators())}, install the package that "
        "registers it in the entry-point group ptycho.generators, or pass generator=."
    )
