"""Weights of PtychoPINN's PyTorch models: the zip format of ``torch.save``, read without PyTorch, and their layers.

The file holds a pickle that describes the tensors, and their bytes. The pickle is read as plain data; no class that it
names is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho.data.readers.limits import readable
from ptycho.errors import DataError
from ptycho.model.importers.plain_pickle import Name, read_plain_pickle
from ptycho.model.network import DECODERS
from ptycho.model.safe_archive import SafeArchive

__all__ = ["network_of_state", "read_state"]

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BoolStorage": "?",
    "ByteStorage": "u1",
}
_SHARING_LIMIT = 2
"""Times that tensors may exceed what is stored: a few layers share weights, but each is copied when it is imported."""
_EPSILON = 1e-5
"""What batch normalisation adds to the variance."""
_WITHOUT_EFFECT = re.compile(r"num_batches_tracked$")


def read_state(data: bytes, what: str) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary that ``torch.save`` has written, as arrays, by name.

    Parameters
    ----------
    data
        The file.
    what
        Its name, for messages.

    Raises
    ------
    DataError
        It is damaged, of the format before PyTorch 1.6, or holds anything but plain tensors.
    """
    if not data.startswith(b"PK"):
        raise DataError(
            f"{what} is not of torch.save's zip format; load it with PyTorch and save its state_dict again."
        )
    with SafeArchive(data, what) as archive:
        pickles = [name for name in archive.names() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"{what} holds {len(pickles)} data.pkl, one is expected; it is no file of torch.save.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive and archive.read(f"{folder}byteorder") != b"little":
            raise DataError(f"{what} was written on a big-endian machine; save it again on a little-endian one.")
        storages: dict[str, np.ndarray] = {}

        def storage(key: Any) -> np.ndarray:
            kind, dtype, number, _, count = key
            if kind != "storage" or not isinstance(dtype, Name) or dtype.attribute not in _STORAGES:
                name = dtype.attribute if isinstance(dtype, Name) else type(dtype).__name__
                raise DataError(f"{what} holds {name}, which is not read; plain tensors of numbers are expected.")
            if number not in storages:
                raw = archive.read(f"{folder}data/{number}")
                storages[number] = np.frombuffer(raw, _STORAGES[dtype.attribute])
            if storages[number].size != int(count):
                raise ValueError("another number of values in a storage")
            return storages[number]

        state = read_plain_pickle(archive.read(pickles[0]), f"{what}: data.pkl", _TENSORS, storage)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # a Lightning checkpoint
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DataError(f"{what} holds no state dictionary; save model.state_dict() of the network.")
    tensors = {name: values for name, values in state.items() if isinstance(values, np.ndarray)}
    claimed, held = (sum(values.nbytes for values in each.values()) for each in (tensors, storages))
    if claimed > _SHARING_LIMIT * held + (1 << 20):
        raise DataError(f"{what} builds {readable(claimed)} of tensors from {readable(held)}, which is refused.")
    return tensors


def network_of_state(state: dict[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Parameters, under this library's names, of the cnn in a state dictionary of PtychoPINN's model.

    Batch normalisation is folded into the convolutions that it follows, as it acts on a trained network.

    Parameters
    ----------
    state
        From `read_state`.
    what
        For messages.

    Raises
    ------
    DataError
        A layer has no place in this library's cnn, or one is missing; the message names it.
    """
    prefix = next((name[: name.index("encoder.blocks.0.")] for name in state if "encoder.blocks.0." in name), None)
    if prefix is None or not prefix.endswith("autoencoder."):
        raise DataError(
            f"{what} has no layer autoencoder.encoder.blocks.0; only the cnn of PtychoPINN can be imported."
        )
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, values in state.items():
        if name.startswith(prefix) and not _WITHOUT_EFFECT.search(name):
            layer, _, part = name.removeprefix(prefix).rpartition(".")
            layers.setdefault(layer, {})[part] = values
    params: dict[str, np.ndarray] = {}
    used: set[str] = set()

    def convolution(target: str, layer: str, norm: str) -> None:
        used.update((layer, norm))
        kernel, bias = _folded(layers, layer, norm, f"{what}: {prefix}")
        params[f"{target}/kernel"], params[f"{target}/bias"] = kernel, bias

    def block(target: str, layer: str) -> None:
        for i in (0, 1):
            convolution(f"{target}/conv{i}", f"{layer}.conv{i + 1}", f"{layer}.bn{i + 1}")

    def blocks(target: str, layer: str) -> None:
        for i in range(sum(name.startswith(layer) and name.endswith(".conv1") for name in layers)):
            block(f"{target}/block{i}", f"{layer}{i}")

    blocks("encoder", "encoder.blocks.")
    for head, decoder in zip(DECODERS, ("decoder_amp", "decoder_phase"), strict=True):
        last = f"{decoder}.{decoder.removeprefix('decoder_')}"
        blocks(head, f"{decoder}.blocks.")
        convolution(f"{head}/centre", f"{last}.conv1", f"{last}.bn1")
        block(f"{head}/last", f"{last}.conv_up_block")
        convolution(f"{head}/border", f"{last}.conv2", f"{last}.bn2")
    strange = sorted(set(layers) - used)
    if strange:
        raise DataError(
            f"{what}: the layer {prefix}{strange[0]} has no place in this library's cnn, which has convolutions, "
            "pooling and upsampling only; train a new model."
        )
    return params


def _folded(
    layers: dict[str, dict[str, np.ndarray]], layer: str, norm: str, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel HWIO and bias of a convolution with the normalisation behind it, float32."""
    found = layers.get(layer, {})
    kernel, bias = found.get("weight"), found.get("bias")
    if kernel is None or bias is None or kernel.shape[2:] != (3, 3) or bias.shape != kernel.shape[:1]:
        raise DataError(f"{what}{layer} is no convolution with a bias, which this library's cnn has there.")
    kernel = kernel.transpose(2, 3, 1, 0).astype(np.float64)
    bias = bias.astype(np.float64)
    if norm in layers:
        parts = [layers[norm].get(name) for name in ("weight", "bias", "running_mean", "running_var")]
        if any(part is None or part.shape != bias.shape for part in parts):
            raise DataError(f"{what}{norm} is no batch normalisation of {bias.size} channels.")
        gain, offset, mean, variance = (part.astype(np.float64) for part in parts if part is not None)
        factor = gain / (variance + _EPSILON) ** 0.5
        kernel, bias = kernel * factor, (bias - mean) * factor + offset
    return np.ascontiguousarray(kernel, dtype=np.float32), bias.astype(np.float32)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A tensor as a view of its storage, within its bounds."""
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
        raise ValueError("a tensor without storage")
    sides, steps = [int(side) for side in shape], [int(step) for step in strides]
    count = 1
    for side in sides:
        count *= side
    last = int(offset) + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if min([*sides, *steps, int(offset)], default=0) < 0 or count > storage.size or (count and last >= storage.size):
        raise ValueError(f"a tensor of shape {tuple(sides)} in a storage of {storage.size}")
    steps = [step * storage.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(storage[int(offset) :], sides, steps, writeable=False)


_TENSORS: dict[Name, Callable[..., Any]] = {
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
}
