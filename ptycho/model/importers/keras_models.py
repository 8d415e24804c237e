"""Weights of PtychoPINN's Keras models: ``model.keras`` read as zip, JSON and HDF5, its layers found by their wiring.

Keras would rebuild every layer that the file names, and a Lambda layer is code. Here the file's ``config.json`` is only
a graph to be recognised: from the layer that combines amplitude and phase back to the input, each layer has to be what
PtychoPINN's cnn has at that place. Names and order of the layers do not matter.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ptycho.data.readers.hdf5_source import names_in
from ptycho.data.readers.limits import claimed_bytes
from ptycho.errors import DataError
from ptycho.model.network import BORDER_CHANNELS, DECODERS
from ptycho.model.safe_archive import SafeArchive, check_growth, parse_json

__all__ = ["KerasNetwork", "network_of_keras"]

_COMBINES = "CombineComplexLayer"
_BLOCK_LIMIT = 8
"""Of an encoder or a decoder; PtychoPINN's largest network, for N = 256, has five."""
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, SystemError, AttributeError)
_DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


@dataclass(frozen=True)
class KerasNetwork:
    """The cnn found in a Keras model.

    Attributes
    ----------
    params : parameters under this library's names.
    activation : last activation of the amplitude, PtychoPINN's name.
    polar : amplitude * exp(i phase); else amplitude + i phase, as models of July 2025 to February 2026 have it.
    size, channels : N and gridsize^2.
    """

    params: dict[str, np.ndarray]
    activation: str
    polar: bool
    size: int
    channels: int


def network_of_keras(data: bytes, what: str) -> KerasNetwork:
    """The cnn in a ``model.keras`` file.

    Parameters
    ----------
    data
        The file.
    what
        Its name in error messages.

    Raises
    ------
    DataError
        It is damaged, or a layer is not what PtychoPINN's cnn has at its place; the message names the layer.
    """
    with SafeArchive(data, what) as archive:
        config = parse_json(archive.read("config.json"), f"{what}: config.json")
        weights = archive.read("model.weights.h5")
    try:
        graph = _Graph(config, what)
        return _recognise(graph, _read_weights(weights, graph, f"{what}: model.weights.h5"))
    except DataError:
        raise
    except _DAMAGED as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"{what}: config.json does not describe a Keras model ({reason}); it is damaged.") from error


@dataclass(frozen=True)
class _Layer:
    """One layer of the graph."""

    name: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[str, ...]
    nodes: Any


class _Graph:
    """The layers of a model by name, and which of them each takes its input from."""

    def __init__(self, config: dict[str, Any], what: str) -> None:
        self.what = what
        self.layers: dict[str, _Layer] = {}
        for entry in config["config"]["layers"]:
            name = str(entry.get("name") or entry["config"]["name"])
            nodes = entry.get("inbound_nodes", [])
            inputs = tuple(_sources(nodes))
            self.layers[name] = _Layer(name, str(entry["class_name"]), dict(entry["config"]), inputs, nodes)

    def refuse(self, layer: _Layer, expected: str) -> NoReturn:
        """Raise the error for a layer that is not the expected one."""
        raise DataError(
            f"{self.what}: the layer {layer.name!r} is {layer.kind}, where PtychoPINN's cnn has {expected}; "
            "the model cannot be imported."
        )

    def the(self, kind: str) -> _Layer:
        """The only layer of a kind."""
        found = [layer for layer in self.layers.values() if layer.kind == kind]
        if len(found) != 1:
            unknown = [layer for layer in self.layers.values() if layer.kind == "Lambda"]
            hint = f"; it has the layer {unknown[0].name!r}, a Lambda, which holds code" if unknown else ""
            raise DataError(
                f"{self.what}: there are {len(found)} layers {kind}, one is expected{hint}; only PtychoPINN's models "
                "can be imported."
            )
        return found[0]

    def input_of(self, layer: _Layer, kind: str, /, **settings: Any) -> _Layer:
        """The layer before, which has to be of a kind and to have some settings."""
        return self.expect(self.before(layer, 1)[0], kind, **settings)

    def before(self, layer: _Layer, count: int) -> list[_Layer]:
        """The layers before."""
        if len(layer.inputs) != count:
            self.refuse(layer, f"a layer with {count} input(s)")
        return [self.layers[name] for name in layer.inputs]

    def expect(self, layer: _Layer, kind: str, /, **settings: Any) -> _Layer:
        """The layer itself, if it is of a kind and has some settings."""
        if layer.kind != kind:
            self.refuse(layer, f"a {kind}")
        for name, wanted in settings.items():
            given = layer.config.get(name)
            if given != wanted:
                raise DataError(
                    f"{self.what}: the layer {layer.name!r} has {name} {given!r}, {wanted!r} is expected; the model "
                    "cannot be imported."
                )
        return layer


def _sources(nodes: Any) -> Iterator[str]:
    """Names of the layers that a layer's only call took its tensors from."""
    if isinstance(nodes, dict) and nodes.get("class_name") == "__keras_tensor__":
        yield str(nodes["config"]["keras_history"][0])
    elif isinstance(nodes, dict):
        yield from (name for value in nodes.values() for name in _sources(value))
    elif isinstance(nodes, list):
        yield from (name for value in nodes for name in _sources(value))


def _recognise(graph: _Graph, weights: dict[str, list[np.ndarray]]) -> KerasNetwork:
    """Follow the graph from the combining layer to the input, naming every convolution on the way."""
    params: dict[str, np.ndarray] = {}
    combine = graph.the(_COMBINES)
    ends, activations = set(), []
    for head, start in zip(DECODERS, graph.before(combine, 2), strict=True):
        trunk, activation = _last_stage(graph, weights, params, head, start)
        activations.append(activation)
        blocks, end = _blocks(graph, weights, trunk, "UpSampling2D")
        _name(params, head, blocks)
        ends.add(end.name)
    if len(ends) != 1:
        raise DataError(f"{graph.what}: amplitude and phase do not come from one encoder; the model is no cnn.")
    blocks, scaler = _blocks(graph, weights, graph.layers[ends.pop()], "MaxPooling2D")
    _name(params, "encoder", blocks)
    graph.expect(scaler, "IntensityScaler")
    shape = graph.input_of(scaler, "InputLayer").config.get("batch_shape") or []
    if activations[1] != "phase" or len(shape) != 4:
        raise DataError(f"{graph.what}: the phase is not pi * tanh, or the input no image; the model is no cnn.")
    return KerasNetwork(params, activations[0], combine.config.get("use_polar") is True, int(shape[1]), int(shape[3]))


def _last_stage(
    graph: _Graph, weights: dict[str, list[np.ndarray]], params: dict[str, np.ndarray], head: str, end: _Layer
) -> tuple[_Layer, str]:
    """Name the convolutions of a decoder's last stage; the layer before it, and the last activation."""

    def convolution(target: str, layer: _Layer) -> _Layer:
        params[f"{head}/{target}/kernel"], params[f"{head}/{target}/bias"] = _plain(graph, weights, layer)
        return graph.before(layer, 1)[0]

    def up_block(layer: _Layer) -> _Layer:
        inner, before = _block(graph, weights, layer, "UpSampling2D")
        _name(params, f"{head}/last", inner, "")
        return before

    if end.kind == "ActivationLayer":  # without pad_object
        activation = _activation(graph, end)
        return up_block(convolution("full", graph.before(end, 1)[0])), activation
    padded, border = end, None
    if end.kind == "Add":
        padded, border = graph.before(end, 2)
    activated = graph.before(graph.expect(padded, "ZeroPadding2D"), 1)[0]
    activation = _activation(graph, activated)
    inside = convolution("centre", graph.before(activated, 1)[0])
    trunk = _channels(graph, inside, None, -BORDER_CHANNELS)
    if border is not None:
        outer, mask = graph.before(graph.expect(border, "Multiply"), 2)
        graph.expect(mask, "CenterMaskLayer", kind="border")
        swish = outer if outer.kind in ("Silu", "Swish") else graph.expect(outer, "Silu")
        outside = up_block(convolution("border", graph.before(swish, 1)[0]))
        if _channels(graph, outside, -BORDER_CHANNELS, None) != trunk:
            graph.refuse(outside, f"a part of {trunk.name!r}")
    return trunk, activation


def _channels(graph: _Graph, layer: _Layer, start: int | None, stop: int | None) -> _Layer:
    """The layer before one that takes some of the channels."""
    graph.expect(layer, "GetItem")
    wanted = [
        {"class_name": "__ellipsis__", "config": {}},
        {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": None}},
    ]
    if layer.nodes[0]["args"][1] != wanted:
        graph.refuse(layer, f"the channels from {start} to {stop}")
    return graph.before(layer, 1)[0]


def _activation(graph: _Graph, layer: _Layer) -> str:
    graph.expect(layer, "ActivationLayer")
    name, scale = str(layer.config.get("activation_name")), float(layer.config.get("scale", 1.0))
    if name == "tanh" and abs(scale - np.pi) < 1e-6:
        return "phase"
    if name not in ("sigmoid", "swish", "softplus", "relu"):
        raise DataError(
            f"{graph.what}: the layer {layer.name!r} is {scale:g} * {name}, which is no activation of this library; "
            "the model cannot be imported."
        )
    return name


Block = list[tuple[np.ndarray, np.ndarray]]


def _blocks(
    graph: _Graph, weights: dict[str, list[np.ndarray]], layer: _Layer, ending: str
) -> tuple[list[Block], _Layer]:
    """All blocks that end in a kind of layer, first to last, and the layer before them."""
    found: list[Block] = []
    while layer.kind == ending:
        if len(found) == _BLOCK_LIMIT:
            graph.refuse(layer, f"at most {_BLOCK_LIMIT} blocks, and none that follows itself")
        block, layer = _block(graph, weights, layer, ending)
        found.insert(0, block)
    return found, layer


def _block(graph: _Graph, weights: dict[str, list[np.ndarray]], layer: _Layer, ending: str) -> tuple[Block, _Layer]:
    """Two convolutions with ReLU and what halves or doubles the image; the layer before them."""
    size = {"MaxPooling2D": {"pool_size": [2, 2], "strides": [2, 2]}}.get(ending, {"size": [2, 2]})
    if ending == "UpSampling2D":
        size["interpolation"] = "nearest"  # type: ignore[assignment]
    second = graph.input_of(graph.expect(layer, ending, **size), "Conv2D", activation="relu")
    first = graph.input_of(second, "Conv2D", activation="relu")
    block = [_kernel(graph, weights, one) for one in (first, second)]
    return block, graph.before(first, 1)[0]


def _name(params: dict[str, np.ndarray], part: str, blocks: list[Any], block: str = "/block") -> None:
    """Put the convolutions of blocks into the parameters (of one block, where its name is the part's)."""
    for i, convolutions in enumerate(blocks if block else [blocks]):
        for j, (kernel, bias) in enumerate(convolutions):
            name = f"{part}{block}{i if block else ''}/conv{j}"
            params[f"{name}/kernel"], params[f"{name}/bias"] = kernel, bias


def _plain(graph: _Graph, weights: dict[str, list[np.ndarray]], layer: _Layer) -> tuple[np.ndarray, np.ndarray]:
    return _kernel(graph, weights, graph.expect(layer, "Conv2D", activation="linear"))


def _kernel(graph: _Graph, weights: dict[str, list[np.ndarray]], layer: _Layer) -> tuple[np.ndarray, np.ndarray]:
    """Kernel HWIO and bias of a convolution."""
    graph.expect(layer, "Conv2D", kernel_size=[3, 3], padding="same", strides=[1, 1], dilation_rate=[1, 1])
    graph.expect(layer, "Conv2D", use_bias=True, groups=1, data_format="channels_last")
    found = weights.get(layer.name, [])
    if [part.ndim for part in found] != [4, 1] or found[0].shape[:2] != (3, 3) or found[0].shape[3:] != found[1].shape:
        raise DataError(f"{graph.what}: the layer {layer.name!r} lacks its 3 x 3 kernel and bias; the file is damaged.")
    return found[0].astype(np.float32), found[1].astype(np.float32)


def _read_weights(data: bytes, graph: _Graph, what: str) -> dict[str, list[np.ndarray]]:
    """The variables of every layer by the layer's name.

    A group of the file is the layer that its attribute ``name`` says; in files older than that attribute, the n-th
    layer of its class in the model's order.
    """
    import h5py

    found: dict[str, list[np.ndarray]] = {}
    size = 0
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            for folder in ("layers", "_layer_checkpoint_dependencies"):
                group = _inside(file, folder, h5py.Group)
                for key in [] if group is None else names_in(group):
                    variables = _inside(group, f"{key}/vars", h5py.Group)
                    if variables is not None and len(variables):
                        name = variables.attrs.get("name")
                        layer = str(name) if name is not None else _by_class(graph, key)
                        found[layer] = []
                        for number in range(len(variables)):
                            dataset = _variable(variables, str(number), f"{what}: {layer}")
                            size += claimed_bytes(dataset.shape, dataset.dtype)
                            check_growth(what, size, len(data))
                            found[layer].append(np.asarray(dataset[()]))
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).split("\n")[0]
        raise DataError(f"{what} is damaged or no file of weights ({reason}).") from error
    return found


def _inside(group: Any, name: str, kind: type) -> Any:
    """What stands in a group under a name, if nothing on the way is a link; None if there is none."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            return None
        group = group[part]
    return group if isinstance(group, kind) else None


def _variable(group: Any, name: str, what: str) -> Any:
    """A dataset of numbers that lies in the file itself, in pieces that can be unpacked."""
    import h5py

    dataset = _inside(group, name, h5py.Dataset)
    if dataset is None or dataset.dtype.kind != "f" or dataset.external or dataset.is_virtual or dataset.shape is None:
        raise DataError(f"{what}: the variable {name} is no plain array of numbers; the file is refused.")
    if dataset.chunks is not None:
        check_growth(f"{what}: {name}", claimed_bytes(dataset.chunks, dataset.dtype), dataset.id.get_storage_size())
    return dataset


def _by_class(graph: _Graph, key: str) -> str:
    """The layer behind a key like ``conv2d_3``: the fourth Conv2D in the model's order."""
    kind, _, number = key.rpartition("_") if re.search(r"_\d+$", key) else (key, "", "0")
    same = [layer.name for layer in graph.layers.values() if _snake_case(layer.kind) == kind]
    return same[int(number)] if int(number) < len(same) else key


def _snake_case(name: str) -> str:
    """A class's name as Keras writes it in files: ``Conv2D`` is ``conv2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
