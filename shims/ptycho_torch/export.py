"""A bundle's network for programs that know neither this library nor PyTorch's training: ``torch.export`` and ONNX.

Both take one array and give two, amplitude and phase, since neither ONNX nor most of its runtimes know complex numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator

import numpy as np
import torch

from ptycho.backends import get_backend
from ptycho.errors import BackendError, ConfigError
from ptycho.model.bundle import Bundle
from ptycho.model.generators import channels, find_generator

__all__ = ["export_onnx", "export_program"]

_DESCRIPTION = "ptychopinn.json"


class _Network(torch.nn.Module):
    """The network as a module of one input, its weights as buffers."""

    def __init__(self, bundle: Bundle, input_scale: float) -> None:
        super().__init__()
        self.config, self.input_scale = bundle.config.model, input_scale
        self.generator, self.backend = find_generator(self.config.architecture), get_backend("pytorch")
        self.names = {name: name.replace("/", "__") for name in bundle.params}
        for name, values in bundle.params.items():
            self.register_buffer(self.names[name], torch.from_numpy(np.array(values, np.float32)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Amplitude and phase, each (batch, N, N, C), of x (batch, N, N, channels)."""
        params = {name: getattr(self, own) for name, own in self.names.items()}
        x = x * self.input_scale
        polar = getattr(self.generator, "polar", None)
        if polar is not None:
            amplitude, phase = polar(params, x, self.config, self.backend)
            return torch.broadcast_tensors(amplitude, phase)
        answer = self.generator.apply(params, x, self.config, self.backend)
        return torch.abs(answer), torch.angle(answer)


def export_program(bundle: Bundle, input_scale: float, description: dict[str, str]) -> bytes:
    """The network as the file of a ``torch.export`` program (``.pt2``), for any size of batch.

    Parameters
    ----------
    bundle : the trained model.
    input_scale : factor on the input.
    description : what the arrays are; it lies in the file as ``ptychopinn.json``.
    """
    target = io.BytesIO()
    torch.export.save(_program(bundle, input_scale), target, extra_files={_DESCRIPTION: json.dumps(description)})
    return target.getvalue()


def export_onnx(bundle: Bundle, input_scale: float, description: dict[str, str]) -> bytes:
    """The network as an ONNX model with the input ``x`` and the outputs ``amplitude`` and ``phase``.

    Parameters
    ----------
    bundle, input_scale : as in :func:`export_program`.
    description : what the arrays are; it lies in the model's metadata.

    Raises
    ------
    BackendError
        onnx or onnxscript is not installed.
    ConfigError
        The network does something that ONNX cannot.
    """
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it and says so late
    except ImportError as error:
        raise BackendError(
            f"ONNX export needs onnx and onnxscript ({error}); install them with: pip install ptychopinn[onnx]"
        ) from error
    program = _program(bundle, input_scale)
    with _quiet():
        try:
            model = torch.onnx.export(
                program, dynamo=True, input_names=["x"], output_names=["amplitude", "phase"], verbose=False
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(
                f"architecture: the network {bundle.config.model.architecture!r} cannot be written as ONNX "
                f"({str(error).splitlines()[0]}); export it with --to torch."
            ) from error
    if model is None:
        raise ConfigError(f"architecture: the network {bundle.config.model.architecture!r} gave no ONNX model.")
    content = model.model_proto
    for name, text in description.items():
        content.metadata_props.add(key=name, value=text)
    return content.SerializeToString()


def _program(bundle: Bundle, input_scale: float) -> torch.export.ExportedProgram:
    config = bundle.config.model
    example = torch.zeros((2, config.N, config.N, channels(config)[0]))
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(_Network(bundle, input_scale).eval(), (example,), dynamic_shapes=({0: batch},))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.onnx from warning of libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
