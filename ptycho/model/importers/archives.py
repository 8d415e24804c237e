"""PtychoPINN's model archives as bundles of this library: weights, scale and probe; their code is never run.

An archive ``wts.h5.zip`` holds a folder per model with ``model.keras`` (TensorFlow) or ``model.pth`` (PyTorch) and the
settings as ``params.dill``. The modules beside this one read them: ``keras_models``, ``torch_models`` and
``plain_pickle``; everything else is left unread.
"""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.backends import Array, Backend
from ptycho.config import ModelConfig, TrainingConfig, config_from_legacy
from ptycho.errors import ConfigError, DataError
from ptycho.model.bundle import Bundle, bundle_file
from ptycho.model.generators import CnnGenerator
from ptycho.model.importers.keras_models import network_of_keras
from ptycho.model.importers.plain_pickle import read_plain_pickle
from ptycho.model.importers.torch_models import network_of_state, read_state
from ptycho.model.network import DECODERS, SIZES, apply_cnn, cnn_shapes, shape_fault
from ptycho.model.safe_archive import SafeArchive
from ptycho.physics.photons import intensity_scale
from ptycho.physics.probe import normalise_probe
from ptycho.physics.reassembly import group_canvas_size

__all__ = ["CARTESIAN", "CartesianCnn", "import_archive", "model_folders"]

logger = logging.getLogger(__name__)

CARTESIAN = "cnn-cartesian"
"""Value of ``architecture`` for models whose two decoders are summed as amplitude + i phase."""

_KEPT = frozenset(
    {"N", "gridsize", "amp_activation", "model_type", "object.big", "probe.big", "probe.mask", "pad_object"}
    | {"probe_scale", "gaussian_smoothing_sigma", "nphotons", "probe.trainable", "intensity_scale.trainable"}
)
_PREFERRED = ("diffraction_to_obj", "autoencoder")
_FORMS = {"model.keras": "tensorflow", "model.pth": "pytorch"}


class CartesianCnn(CnnGenerator):
    """The cnn with its output taken as amplitude + i phase, as PtychoPINN did from July 2025 to February 2026."""

    def apply(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> Array:
        """See :class:`ptycho.model.generators.Generator`."""
        xp = backend.xp
        real, imaginary = self._parts(params, x, config, backend)
        kind = xp.complex128 if x.dtype == xp.float64 else xp.complex64
        return xp.astype(real, kind) + xp.astype(imaginary, kind) * 1j

    def polar(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> tuple[Array, Array]:
        """Amplitude and phase of the output, for programs without complex numbers."""
        real, imaginary = self._parts(params, x, config, backend)
        return backend.xp.sqrt(real * real + imaginary * imaginary), backend.xp.atan2(imaginary, real)

    def _parts(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> list[Array]:
        if config.start_iterations is not None:
            raise ConfigError(f"architecture: {CARTESIAN} exists for imported models; set start_iterations none.")
        return [backend.xp.astype(part, x.dtype) for part in apply_cnn(params, x, backend, config.amp_activation)]


def model_folders(archive: SafeArchive) -> dict[str, str]:
    """The models of PtychoPINN's archive by their folders, each with its framework; empty for any other archive."""
    found: dict[str, str] = {}
    for name in archive.names():
        folder, _, file = name.rpartition("/")
        if file in _FORMS and f"{folder}/params.dill" in archive:
            found.setdefault(folder, _FORMS[file])
    return found


def import_archive(path: str | Path, probe: np.ndarray | None = None) -> Bundle:
    """PtychoPINN's archive as a bundle whose network returns the same patches as the original.

    Parameters
    ----------
    path
        The ``.zip`` file, or the folder that holds ``wts.h5.zip``.
    probe
        (P, N, N) complex, any unit, replaces the archive's; archives of PtychoPINN's PyTorch version have none.

    Raises
    ------
    DataError
        The file is no such archive, is damaged, holds anything but plain data, or has a layer that this library's
        cnn lacks; the message names it.
    """
    target = bundle_file(path)
    with SafeArchive(target) as archive:
        folder, framework = _chosen(archive)
        settings = _settings(archive, folder)
        model = archive.read(f"{folder}/model.{'keras' if framework == 'tensorflow' else 'pth'}")
    config = _configuration(settings, framework, f"{target}: {folder}/params.dill")
    if framework == "tensorflow":
        network = network_of_keras(model, f"{target}: {folder}/model.keras")
        params, config.model.amp_activation = network.params, network.activation
        config.model.architecture = "cnn" if network.polar else CARTESIAN
        if (network.size, network.channels) != (config.model.N, config.model.gridsize**2):
            raise DataError(
                f"{target}: the model sees {network.channels} pattern(s) of {network.size} pixels, but its params.dill "
                f"says N {config.model.N} and gridsize {config.model.gridsize}; the archive does not fit together."
            )
    else:
        params = network_of_state(read_state(model, f"{target}: {folder}/model.pth"), f"{target}: {folder}/model.pth")
        if config.model.amp_activation != "sigmoid":
            config.model.amp_activation = (
                "swish"  # PtychoPINN's PyTorch version ignores the setting and always uses this
            )
        if not config.model.probe_big:
            params = {name: part for name, part in params.items() if "/last/" not in name and "/border/" not in name}
    _fit_model(config.model, params, str(target))
    return _bundle(target, config, params, _probe(settings, probe, config.model, str(target)), settings, framework)


def _chosen(archive: SafeArchive) -> tuple[str, str]:
    folders = model_folders(archive)
    if "manifest.json" in archive:
        raise DataError(f"{archive.what} is a bundle of this library already; it can be used as it is.")
    if not folders:
        if any(name.endswith("/saved_model.pb") for name in archive.names()):
            raise DataError(
                f"{archive.what} holds a saved_model.pb, which is a program; load it with the PtychoPINN that wrote "
                "it, and save it as model.keras."
            )
        raise DataError(
            f"{archive.what} is no model archive of PtychoPINN; a folder with params.dill and model.keras or model.pth "
            "is expected."
        )
    folder = next((name for name in _PREFERRED if name in folders), next(iter(folders)))
    return folder, folders[folder]


def _settings(archive: SafeArchive, folder: str) -> dict[str, Any]:
    what = f"{archive.what}: {folder}/params.dill"
    settings = read_plain_pickle(archive.read(f"{folder}/params.dill"), what)
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise DataError(f"{what} holds no settings by name; the archive is damaged.")
    missing = [name for name in ("N", "gridsize") if name not in settings]
    if missing:
        raise DataError(f"{what} does not say {missing[0]}, without which the model cannot be rebuilt.")
    return settings


def _configuration(settings: dict[str, Any], framework: str, what: str) -> TrainingConfig:
    """The model's settings, without training settings and without those that the network's layers determine."""
    known = {name: settings[name] for name in _KEPT if name in settings}
    strange = [name for name, value in known.items() if not isinstance(value, bool | int | float | str | None)]
    if strange:
        raise DataError(f"{what}: {strange[0]} is a {type(known[strange[0]]).__name__}, a number or word is expected.")
    if known.get("amp_activation") == "silu":
        known["amp_activation"] = "swish"
    try:
        config = config_from_legacy(TrainingConfig, known)
    except ConfigError as error:
        raise DataError(f"{what}: {' '.join(str(error).split())}") from error
    config.backend, config.model.start_iterations = framework, None
    return config


def _fit_model(model: ModelConfig, params: dict[str, np.ndarray], what: str) -> None:
    """Determine the network's settings from the shapes of its layers, and check that these fit together."""
    if model.N not in SIZES:
        raise DataError(f"{what}: the model is for patterns of {model.N} pixels; {', '.join(map(str, SIZES))} can be.")
    first, last = (params.get(f"{name}/kernel") for name in ("encoder/block0/conv0", "amplitude/block0/conv0"))
    if first is None or last is None:
        raise DataError(f"{what}: the model has no encoder or no decoder; only PtychoPINN's cnn can be imported.")
    model.n_filters_scale = max(1, first.shape[3] // SIZES[model.N][0][0])
    model.pad_object = "amplitude/full/kernel" not in params
    model.probe_big = "amplitude/border/kernel" in params if model.pad_object else model.probe_big
    group = model.gridsize**2
    out = max(params[f"{head}/{'centre' if model.pad_object else 'full'}/kernel"].shape[3] for head in DECODERS)
    model.object_big = out == group if group > 1 else model.object_big
    wanted = cnn_shapes(model.N, model.n_filters_scale, group, out, model.pad_object, model.probe_big)
    if (fault := shape_fault({name: part.shape for name, part in params.items()}, wanted, out)) is not None:
        raise DataError(
            f"{what}: {fault} for N {model.N} and n_filters_scale {model.n_filters_scale}; "
            "the model cannot be imported."
        )


def _probe(settings: dict[str, Any], given: np.ndarray | None, model: ModelConfig, what: str) -> np.ndarray:
    """(P, N, N) complex64 in the model's units."""
    if given is not None:
        if given.shape[-2:] != (model.N, model.N):
            raise DataError(f"{what}: a probe of {given.shape} is given, {model.N} x {model.N} pixels are expected.")
        return normalise_probe(given.astype(np.complex64), model.probe_scale)
    stored = settings.get("probe")
    if not isinstance(stored, np.ndarray) or stored.size == 0:
        raise DataError(f"{what} holds no probe; name a scan whose probe is to be used with --probe FILE.")
    sides = [side for side in stored.shape if side != 1]
    if sides != [model.N, model.N] or stored.dtype.kind not in "fc" or not np.isfinite(stored).all():
        raise DataError(
            f"{what}: its probe is {stored.dtype} of shape {stored.shape}, {model.N} x {model.N} finite numbers are "
            "expected; name a scan whose probe is to be used with --probe FILE."
        )
    return stored.reshape(1, model.N, model.N).astype(np.complex64)


def _bundle(
    target: Path,
    config: TrainingConfig,
    params: dict[str, np.ndarray],
    probe: np.ndarray,
    settings: dict[str, Any],
    framework: str,
) -> Bundle:
    scale = intensity_scale(config.nphotons, config.model.N)
    trained = settings.get("intensity_scale") if framework == "tensorflow" else None  # PyTorch's is not the model's
    if not (isinstance(trained, float | int) and 0 < trained < math.inf):
        trained = scale
    everything = {
        **params,
        "probe/real": np.ascontiguousarray(probe.real, np.float32),
        "probe/imag": np.ascontiguousarray(probe.imag, np.float32),
        "log_scale": np.asarray(math.log(trained), np.float32),
    }
    if not all(np.isfinite(values).all() for values in everything.values()):
        raise DataError(f"{target}: the model's weights are not all finite; it was not trained to an end.")
    side = group_canvas_size(np.zeros((1, config.model.gridsize**2, 2)), config.model.N, config.model.gridsize)
    manifest = {
        "imported_from": {
            "file": target.name,
            "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
            "framework": framework,
        }
    }
    return Bundle(everything, config, scale, config.nphotons, side, manifest=manifest)
