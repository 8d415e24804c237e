"""The cnn generator: scaled diffraction amplitude in, amplitude and phase of object patches out.

One encoder and two decoders of 3 x 3 convolutions, as pure functions on a flat dictionary of named arrays. Kernels are
HWIO, padding is 'same', biases start at zero and kernels are Glorot-uniform, drawn in the order of their names from one
numpy generator: the same seed gives the same weights in every framework. Source: Hoidn, Mishra, Mehta, Scientific
Reports 13, 22789 (2023), with the layer widths of its published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ptycho.backends import Array, Backend
from ptycho.errors import ConfigError

__all__ = ["SIZES", "apply_cnn", "cnn_shapes", "conv2d_enlarged", "decode", "encode", "init_cnn", "shape_fault"]

SIZES = {
    64: ((32, 64, 128), (64, 32)),
    128: ((16, 32, 64, 128), (128, 64, 32)),
    256: ((8, 16, 32, 64, 128), (256, 128, 64, 32)),
}
"""Pattern size: (encoder widths, decoder widths), each times ``n_filters_scale``."""

BORDER_CHANNELS = 4
DECODERS = ("amplitude", "phase")


def cnn_shapes(
    size: int, filters_scale: int, channels_in: int, channels_out: int, pad_object: bool, probe_big: bool
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter.

    Parameters
    ----------
    size : N: 64, 128 or 256.
    filters_scale : multiplies every width.
    channels_in, channels_out : of the input (patterns of a group, and any estimate beside them) and of each decoder.
    pad_object : the centre head predicts the central N/2 box only.
    probe_big : with ``pad_object``, a second head predicts what lies outside that box.

    Raises
    ------
    ConfigError
        ``size`` is not supported.
    """
    if size not in SIZES:
        raise ConfigError(f"N: got {size}; the cnn supports pattern sizes {', '.join(map(str, SIZES))}.")
    encoder, decoder = ([w * filters_scale for w in widths] for widths in SIZES[size])
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, n_in: int, n_out: int) -> int:
        shapes[f"{name}/kernel"], shapes[f"{name}/bias"] = (3, 3, n_in, n_out), (n_out,)
        return n_out

    def block(name: str, n_in: int, n_out: int) -> int:
        return conv(f"{name}/conv1", conv(f"{name}/conv0", n_in, n_out), n_out)

    width = channels_in
    for i, n_out in enumerate(encoder):
        width = block(f"encoder/block{i}", width, n_out)
    last = filters_scale * (2048 // size)
    for head in DECODERS:
        inner = width
        for i, n_out in enumerate(decoder):
            inner = block(f"{head}/block{i}", inner, n_out)
        if not pad_object:
            conv(f"{head}/full", block(f"{head}/last", inner, last), channels_out)
            continue
        conv(f"{head}/centre", inner - BORDER_CHANNELS, channels_out)
        if probe_big:
            conv(f"{head}/border", block(f"{head}/last", BORDER_CHANNELS, last), channels_out)
    return shapes


def shape_fault(
    given: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], channels_out: int
) -> str | None:
    """The first layer that does not belong to a network, in words; None where all do.

    The layers of the last stage may have other widths than :func:`cnn_shapes` says, as PtychoPINN's have, as long as
    they follow one another.

    Parameters
    ----------
    given : shape of every parameter, by name.
    shapes : from :func:`cnn_shapes`.
    channels_out : of each decoder.
    """
    for name in sorted(shapes.keys() | given.keys()):
        shape, expected = given.get(name), shapes.get(name)
        if shape is None or expected is None:
            return f"the layer {name} is {shape or 'missing'}, {expected or 'nothing'} is expected"
        if shape != expected and not _may_differ(name, shape, expected, channels_out):
            return f"the layer {name} is {shape}, {expected} is expected"
        if name.endswith("/bias") and shape != given.get(name.removesuffix("bias") + "kernel", ())[-1:]:
            return f"the layer {name} is {shape}, which does not fit its kernel"
    for head in DECODERS:
        if f"{head}/centre/kernel" in shapes and not _last_stage_fits(given, shapes, head):
            return f"the layers {head}/centre, last and border do not follow one another"
    return None


def _may_differ(name: str, given: tuple[int, ...], expected: tuple[int, ...], out: int) -> bool:
    """Whether a layer of the last stage may have other widths: PyTorch's splits off fewer channels, into more."""
    stage = name.split("/")[1]
    if stage not in ("centre", "last", "border") or len(given) != len(expected) or given[:-2] != expected[:-2]:
        return False
    return 0 not in given and (stage == "last" or given[-1] in (1, out))


def _last_stage_fits(given: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], head: str) -> bool:
    """The centre and the border share the channels of the last block; the border's layers follow one another."""
    kernels = [f"{head}/{part}/kernel" for part in ("centre", "last/conv0", "last/conv1", "border")]
    centre, *border = (given[name] for name in kernels if name in shapes)
    width = shapes[kernels[0]][2] + BORDER_CHANNELS
    fed = [centre[2] + border[0][2], *(shape[2] for shape in border[1:])] if border else [width]
    return fed == [width, *(shape[3] for shape in border[:-1])] and len({s[3] for s in (centre, *border[-1:])}) == 1


def init_cnn(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Glorot-uniform kernels and zero biases, float32, on the host."""
    params = {}
    for name, shape in shapes.items():
        if name.endswith("/bias"):
            params[name] = np.zeros(shape, dtype=np.float32)
            continue
        height, width, n_in, n_out = shape
        limit = math.sqrt(6.0 / (height * width * (n_in + n_out)))
        params[name] = rng.uniform(-limit, limit, size=shape).astype(np.float32)
    return params


def apply_cnn(
    params: dict[str, Array],
    x: Array,
    backend: Backend,
    amplitude_activation: str,
    phase_activation: str = "phase",
    border_activation: str = "swish",
) -> tuple[Array, Array]:
    """Amplitude and phase of the object patches, each (B, N, N, C) real.

    Parameters
    ----------
    params : as :func:`init_cnn` makes them, in the backend's arrays.
    x : (B, N, N, channels_in) real.
    backend : provides convolution, relu and pooling.
    amplitude_activation : ``"sigmoid"``, ``"swish"``, ``"softplus"`` or ``"relu"``.
    phase_activation, border_activation : ``pi * tanh`` and swish; ``"correction"`` (tanh) around a given object.
    """
    hidden = encode(params, x, backend)
    amplitude = decode(params, hidden, "amplitude", backend, amplitude_activation, border_activation)
    phase = decode(params, hidden, "phase", backend, phase_activation, border_activation)
    return amplitude, phase


def encode(params: dict[str, Array], x: Array, backend: Backend) -> Array:
    """Blocks of two convolutions and a 2 x 2 maximum, down to 8 x 8 pixels."""
    for i in range(_count(params, "encoder/block")):
        x = backend.max_pool2d(_block(params, f"encoder/block{i}", x, backend))
    return x


def decode(
    params: dict[str, Array], x: Array, head: str, backend: Backend, activation: str, border_activation: str = "swish"
) -> Array:
    """Blocks of two convolutions and a 2 x upsampling, then the centre and border heads.

    The upsampled image is never formed: :func:`conv2d_enlarged` applies the convolution after it to the small image.
    """
    blocks = _count(params, f"{head}/block")
    for i in range(blocks):
        x = _block(params, f"{head}/block{i}", x, backend, i > 0)
    larger = blocks > 0
    if f"{head}/full/kernel" in params:
        x = _block(params, f"{head}/last", x, backend, larger)
        return _head(params, f"{head}/full", x, backend, True, activation)
    inside = params[f"{head}/centre/kernel"].shape[2]  # the rest is the border head's: 4, unless imported
    centre = _head(params, f"{head}/centre", x[..., :inside], backend, larger, activation)
    padded = _surround(backend.xp, centre)
    if f"{head}/border/kernel" not in params:
        return padded
    x = _block(params, f"{head}/last", x[..., inside:], backend, larger)
    border = _head(params, f"{head}/border", x, backend, True, border_activation)
    return padded + border * _outside(backend.xp, border)


def _head(params: dict[str, Array], name: str, x: Array, backend: Backend, larger: bool, activation: str) -> Array:
    """The activation of a convolution in the precision of the parameters, since the physics follows it."""
    y = _conv(params, name, x, backend, larger)
    return _activation(backend, activation)(backend.xp.astype(y, params[f"{name}/bias"].dtype))


def _block(params: dict[str, Array], name: str, x: Array, backend: Backend, larger: bool = False) -> Array:
    x = backend.relu(_conv(params, f"{name}/conv0", x, backend, larger))
    return backend.relu(_conv(params, f"{name}/conv1", x, backend))


def _conv(params: dict[str, Array], name: str, x: Array, backend: Backend, larger: bool = False) -> Array:
    convolve = conv2d_enlarged if larger else _conv2d
    return convolve(x, params[f"{name}/kernel"], params[f"{name}/bias"], backend)


def _conv2d(x: Array, kernel: Array, bias: Array, backend: Backend) -> Array:
    return backend.conv2d(x, kernel, bias)


def conv2d_enlarged(x: Array, kernel: Array, bias: Array, backend: Backend) -> Array:
    """'Same' cross-correlation of ``x`` upsampled by repeating every pixel 2 x 2 times, without forming it.

    Parameters
    ----------
    x : (B, H, W, I).
    kernel, bias : (3, 3, I, O) and (O,).
    backend : provides the convolution, here of ``x`` to 4 O channels.

    Returns
    -------
    (B, 2 H, 2 W, O).
    """
    xp = backend.xp
    batch, height, width, _ = x.shape
    y = backend.conv2d(x, _between(xp, kernel), xp.concat([bias] * 4))
    y = xp.reshape(y, (batch, height, width, 2, 2, bias.shape[0]))
    return xp.reshape(xp.permute_dims(y, (0, 1, 3, 2, 4, 5)), (batch, 2 * height, 2 * width, bias.shape[0]))


def _between(xp: Array, kernel: Array) -> Array:
    """The kernel (3, 3, I, O) for repeated pixels as one (3, 3, I, 4 O) for the pixels: two of the three fall on one.

    The channels out are the pixels of each 2 x 2 block, row by row.
    """
    before, at, after = kernel[0, ...], kernel[1, ...], kernel[2, ...]
    none = xp.zeros_like(at)
    rows = (xp.stack([before, at + after, none]), xp.stack([none, before + at, after]))
    blocks = []
    for row in rows:
        before, at, after = row[:, 0, ...], row[:, 1, ...], row[:, 2, ...]
        none = xp.zeros_like(at)
        blocks += [xp.stack([before, at + after, none], axis=1), xp.stack([none, before + at, after], axis=1)]
    return xp.concat(blocks, axis=-1)


def _count(params: dict[str, Array], prefix: str) -> int:
    return sum(name.startswith(prefix) and name.endswith("conv0/kernel") for name in params)


def _activation(backend: Backend, name: str) -> Callable[[Array], Array]:
    """The named activation, in a form whose values and gradients do not overflow."""
    xp = backend.xp

    def sigmoid(x: Array) -> Array:
        return 0.5 * (1.0 + xp.tanh(0.5 * x))

    activations: dict[str, Callable[[Array], Array]] = {
        "relu": backend.relu,
        "sigmoid": sigmoid,
        "swish": lambda x: x * sigmoid(x),
        "softplus": lambda x: 0.5 * (x + xp.abs(x)) + xp.log1p(xp.exp(-xp.abs(x))),
        "phase": lambda x: math.pi * xp.tanh(x),
        "correction": xp.tanh,
    }
    if name not in activations:
        raise ConfigError(f"amp_activation: got {name!r}; choose one of sigmoid, swish, softplus, relu.")
    return activations[name]


def _surround(xp: Array, centre: Array) -> Array:
    """The centre box on N x N zeros."""
    half = centre.shape[1] // 2
    rows = xp.zeros_like(centre[:, :half, :, :])
    tall = xp.concat([rows, centre, rows], axis=1)
    cols = xp.zeros_like(tall[:, :, :half, :])
    return xp.concat([cols, tall, cols], axis=2)


def _outside(xp: Array, like: Array) -> Array:
    """1 outside the central N/2 box and 0 inside, (1, N, N, 1), on the device of ``like``."""
    half = like.shape[1] // 2
    return 1.0 - _surround(xp, xp.ones_like(like[:1, :half, :half, :1]))
