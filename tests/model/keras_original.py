"""A Keras model with PtychoPINN's layers, wired as its architecture is described, and its archive as it writes it."""

from __future__ import annotations

import io
import math
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

WIDTHS = {64: ((32, 64, 128), (64, 32)), 128: ((16, 32, 64, 128), (128, 64, 32))}
register = keras.saving.register_keras_serializable(package="ptycho")


@register
class IntensityScaler(keras.layers.Layer):
    """Divides by a scale that is a plain variable, which Keras does not save."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.w = tf.Variable(math.log(scale))

    def call(self, inputs):
        return inputs[0] / tf.exp(self.w)


@register
class ActivationLayer(keras.layers.Layer):
    def __init__(self, activation_name="sigmoid", scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.activation_name, self.scale = activation_name, scale

    def call(self, inputs):
        if self.activation_name == "tanh":
            return self.scale * tf.tanh(inputs)
        return getattr(tf.nn, self.activation_name)(inputs)

    def get_config(self):
        return {**super().get_config(), "activation_name": self.activation_name, "scale": self.scale}


class CenterMaskLayer(keras.layers.Layer):
    def __init__(self, N, c, kind="center", **kwargs):
        super().__init__(**kwargs)
        self.N, self.c, self.kind = N, c, kind

    def call(self, inputs):
        quarter = self.N // 4
        ones = tf.ones((1, self.N // 2, self.N // 2, self.c))
        centre = tf.pad(ones, [[0, 0], [quarter, quarter], [quarter, quarter], [0, 0]])
        return centre if self.kind == "center" else 1 - centre

    def get_config(self):
        return {**super().get_config(), "N": self.N, "c": self.c, "kind": self.kind}


@register
class CombineComplexLayer(keras.layers.Layer):
    def __init__(self, use_polar=True, **kwargs):
        super().__init__(**kwargs)
        self.use_polar = use_polar

    def call(self, inputs):
        amplitude, phase = inputs
        if self.use_polar:
            return tf.complex(amplitude * tf.cos(phase), amplitude * tf.sin(phase))
        return tf.complex(amplitude, phase)

    def get_config(self):
        config = super().get_config()
        return {**config, "use_polar": True} if self.use_polar else config  # the older class did not say


@register
class TrimReconstructionLayer(keras.layers.Layer):
    """Keeps the object as it is: all that padding and trimming do to a single patch."""

    def call(self, inputs):
        return tf.identity(inputs)


@register
class ProbeIllumination(keras.layers.Layer):
    def __init__(self, probe=None, **kwargs):
        super().__init__(**kwargs)
        self.w = tf.Variable(tf.ones((1, 1, 1), tf.complex64) if probe is None else probe)

    def call(self, inputs):
        return self.w * inputs


@register
class PadAndDiffractLayer(keras.layers.Layer):
    """Amplitude of the far field of single-channel patches, unitary and centred."""

    def call(self, inputs):
        wave = tf.signal.fft2d(inputs[..., 0]) / tf.cast(tf.shape(inputs)[1], tf.complex64)
        return tf.abs(tf.signal.fftshift(wave, axes=(-2, -1)))[..., None]


@register
class IntensityScaler_inv(IntensityScaler):  # noqa: N801  PtychoPINN's name
    def call(self, inputs):
        return inputs[0] * tf.exp(self.w)


def conv_block(x: Any, width: int, ending: Any) -> Any:
    """Two convolutions with ReLU and what follows them."""
    for _ in range(2):
        x = keras.layers.Conv2D(width, (3, 3), activation="relu", padding="same", data_format="channels_last")(x)
    return ending(x)


def head(x: Any, N: int, scale: int, out: int, act: Any, pad_object: bool, probe_big: bool) -> Any:
    """A decoder; its last two convolutions are made before its blocks, as in the original."""
    conv1, conv2 = (keras.layers.Conv2D(out, (3, 3), padding="same") for _ in range(2))
    up = lambda x: keras.layers.UpSampling2D((2, 2))(x)  # noqa: E731
    for width in WIDTHS[N][1]:
        x = conv_block(x, scale * width, up)
    if not pad_object:
        return act(conv2(conv_block(x, scale * (2048 // N), up)))
    centre = keras.layers.ZeroPadding2D((N // 4, N // 4))(act(conv1(x[..., :-4])))
    if not probe_big:
        return centre
    border = keras.activations.silu(conv2(conv_block(x[..., -4:], scale * (2048 // N), up)))
    return centre + border * CenterMaskLayer(N, 1, kind="border")(border)


def build(
    N: int = 64,
    gridsize: int = 1,
    scale: int = 1,
    activation: str = "sigmoid",
    object_big: bool = True,
    probe_big: bool = True,
    pad_object: bool = True,
    polar: bool = True,
    intensity_scale: float = 40.0,
    probe: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[Any, Any, Any]:
    """``diffraction_to_obj``, ``autoencoder``, and a model that gives the network's own answer."""
    keras.utils.set_random_seed(seed)
    channels = gridsize**2
    image, places = keras.Input((N, N, channels), name="input"), keras.Input((1, 2, channels), name="input_positions")
    x = IntensityScaler(intensity_scale, name="intensity_scaler")([image])
    for width in WIDTHS[N][0]:
        x = conv_block(x, scale * width, lambda x: keras.layers.MaxPool2D((2, 2), padding="same")(x))
    out = channels if object_big else 1
    acts = ActivationLayer(activation, name="amp"), ActivationLayer("tanh", math.pi, name="phi")
    decoded = [head(x, N, scale, out, act, pad_object, probe_big) for act in acts]
    answer = CombineComplexLayer(polar, name="obj")(decoded)
    trimmed = TrimReconstructionLayer(name="trimmed_obj")(answer)
    wave = ProbeIllumination(probe, name="probe_illumination")(answer[..., :1])
    far = PadAndDiffractLayer(name="amplitude")(wave)
    amplitude = IntensityScaler_inv(intensity_scale, name="intensity_scaler_inv")([far])
    for layer in keras.Model(image, answer).layers:  # biases that are not zero, or nothing would show where they go
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, np.random.default_rng(seed).normal(0, 0.02, bias.shape)])
    return (
        keras.Model([image, places], trimmed),
        keras.Model([image, places], [trimmed, amplitude]),
        keras.Model(image, answer),
    )


def keras_bytes(model: Any) -> bytes:
    """The model as ``model.keras``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


def archive_members(models: dict[str, bytes], settings: dict[str, Any]) -> dict[str, bytes]:
    """The members of PtychoPINN's ``wts.h5.zip``; its dill writes plain values as pickle does."""
    scale = io.BytesIO()
    with h5py.File(scale, "w") as file:
        file.attrs["intensity_scale"] = settings["intensity_scale"]
    members = {"manifest.dill": pickle.dumps({"models": list(models), "version": "1.0"})}
    for name, data in models.items():
        members |= {
            f"{name}/model.keras": data,
            f"{name}/model.h5": scale.getvalue(),
            f"{name}/custom_objects.dill": pickle.dumps({"CombineComplexLayer": CombineComplexLayer}),
            f"{name}/params.dill": pickle.dumps({**settings, "_version": "1.0"}),
        }
    return members


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A zip archive of the members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
