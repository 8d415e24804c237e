"""The bundle ``wts.h5.zip``: a trained model as JSON and plain arrays, which every backend loads.

Members: ``manifest.json`` (format, backend, versions, SHA-256 of every other member), ``config.json`` (the training
configuration), ``units.json``, ``weights.safetensors`` (the parameters, once, framework-neutral), and under
``autoencoder/`` and ``diffraction_to_obj/`` the native form of the backend that wrote it and ``params.dill``, a plain
dictionary for older readers. Loading checks every member and reads the JSON and the weights; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import TrainingConfig, config_from_dict, config_to_dict, dataclass_to_legacy_dict
from ptycho.config.deprecated import former_names
from ptycho.config.regular_files import is_regular
from ptycho.errors import DataError, OutputError
from ptycho.files import adopt, mixture, written_whole
from ptycho.model.safe_archive import SafeArchive, parse_json
from ptycho.notebook import summary_html
from ptycho.visible import visible

__all__ = [
    "BUNDLE_NAME",
    "ORIGINS",
    "Bundle",
    "bundle_file",
    "bundle_id",
    "is_bundle",
    "load_bundle",
    "origins",
    "save_bundle",
    "verified_members",
]

logger = logging.getLogger(__name__)

BUNDLE_NAME = "wts.h5.zip"
_FORMAT = "ptychopinn bundle"
FORMAT_VERSION = 1
MODELS = ("autoencoder", "diffraction_to_obj")
ORIGINS = ("imported_from", "simulated", "started_from")
"""What a manifest may say of where the model came from."""
_LARGEST_LOG_SCALE = 80.0
"""The exponential of more overflows in float32."""
_LARGEST_UNIT = 1e18
"""Of scales and photons; the squares of larger ones overflow in float32."""
_NEEDED = ("config.json", "units.json", "weights.safetensors")
_RECORDED = ("ptychopinn", "numpy", "torch", "lightning", "tensorflow", "keras", "jax")


@former_names({"side": "group_canvas_side"})
@dataclass
class Bundle:
    """A trained model.

    Parameters
    ----------
    params : every parameter by name, host arrays.
    config : the training's configuration; ``config.model`` rebuilds the network.
    intensity_scale : s; ``s * X`` is the amplitude in sqrt(photons).
    nphotons : mean photons per pattern in the model's units.
    group_canvas_side : pixels of a group's own canvas at training.
    history : losses per epoch.
    native : files in the writing backend's own form.
    manifest : what the file says of itself; filled on loading, and before with where the model came from.
    measurement : what the training's patterns were, "counts" or "amplitude"; None where a file does not say.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> from ptycho.model.pinn import initial_parameters
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, backend="numpy")
    >>> params = initial_parameters(model, scan.probe, 1e4, seed=0)
    >>> bundle = ptycho.Bundle(params, config, intensity_scale=3.1, nphotons=1e4, group_canvas_side=64)
    >>> bundle.config.model.N
    64
    """

    params: dict[str, np.ndarray]
    config: TrainingConfig
    intensity_scale: float
    nphotons: float
    group_canvas_side: int
    history: dict[str, list[float]] = field(default_factory=dict)
    native: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    measurement: str | None = None

    def __repr__(self) -> str:
        """One line: what the model is, without its arrays."""
        return f"{type(self).__name__}({', '.join(f'{name} {value}' for name, value in self._numbers().items())})"

    def _repr_html_(self) -> str:
        """Pictures and numbers for a notebook; numbers alone where there is no Pillow."""
        known = {"probe/real", "probe/imag"} <= self.params.keys()
        return summary_html("Bundle", self._numbers(), {"probe amplitude": np.abs(self.probe[0])} if known else {})

    def _numbers(self) -> dict[str, Any]:
        model, losses = self.config.model, self.history.get("loss", [])
        return {
            "architecture": model.architecture,
            "N": model.N,
            "gridsize": model.gridsize,
            "parameters": sum(int(np.size(values)) for values in self.params.values()),
            "backend": self.config.backend,
            "epochs": len(losses),
            **({"loss": f"{losses[-1]:.4g}"} if losses else {}),
        }

    @property
    def probe(self) -> np.ndarray:
        """(P, N, N) complex64 probe in sqrt(photons), as trained."""
        return probe_of(self.params)


def probe_of(params: Mapping[str, np.ndarray]) -> np.ndarray:
    """(P, N, N) complex64, sqrt(photons): the probe among a model's parameters, host arrays."""
    modes = params["probe/real"] + 1j * params["probe/imag"]
    return (modes * np.float32(np.exp(params["log_scale"]))).astype(np.complex64)


def origins(bundle: Bundle) -> dict[str, Any]:
    """Where a model came from: the archive, the simulation or the earlier model that it says."""
    return {name: bundle.manifest[name] for name in ORIGINS if name in bundle.manifest}


def bundle_id(bundle: Bundle) -> str:
    """SHA-256 of a model's parameters, by which a result names the model that it was made with."""
    digest = hashlib.sha256()
    for name, values in sorted(bundle.params.items()):
        array = np.asarray(values, order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether a file is a bundle of this library, as far as its manifest says."""
    try:
        with SafeArchive(path) as archive:
            return parse_json(archive.read("manifest.json"), str(path)).get("format") == _FORMAT
    except (DataError, OSError, KeyError, AttributeError):
        return False


def save_bundle(bundle: Bundle, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a bundle, whole or not at all.

    Parameters
    ----------
    bundle : what to write.
    path : file, or a folder that will hold ``wts.h5.zip``.
    overwrite : replace an earlier bundle; a file that was named is replaced whatever it is.

    Raises
    ------
    OutputError
        The place cannot be written; an older bundle there is left whole.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> from ptycho.model.pinn import initial_parameters
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, backend="numpy")
    >>> params = initial_parameters(model, scan.probe, 1e4, seed=0)
    >>> bundle = ptycho.Bundle(params, config, intensity_scale=3.1, nphotons=1e4, group_canvas_side=64)
    >>> path = ptycho.save_bundle(bundle, "model")
    >>> ptycho.reconstruct(scan, ptycho.load_bundle(path)).object.dtype
    dtype('complex64')
    """
    from safetensors.numpy import save

    path = Path(path)
    target = path if path.suffix == ".zip" else path / BUNDLE_NAME
    weights = {name: np.asarray(values, order="C") for name, values in bundle.params.items()}
    members = {
        "config.json": _json(config_to_dict(bundle.config)),
        "units.json": _json(
            {
                "intensity_scale": bundle.intensity_scale,
                "nphotons": bundle.nphotons,
                "side": bundle.group_canvas_side,
                "history": bundle.history,
                **({} if bundle.measurement is None else {"measurement": bundle.measurement}),
            }
        ),
        "weights.safetensors": save(weights),
    }
    legacy = {k: str(v) if isinstance(v, Path) else v for k, v in dataclass_to_legacy_dict(bundle.config).items()}
    legacy["intensity_scale"] = bundle.intensity_scale
    for model in MODELS:
        members[f"{model}/params.dill"] = pickle.dumps(legacy, protocol=4)
        members.update({f"{model}/{name}": data for name, data in bundle.native.items()})
    manifest = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "backend": bundle.config.backend,
        "models": list(MODELS),
        "versions": _versions(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    manifest |= origins(bundle)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and target != path and is_bundle(target):
            adopt(target.parent, [target.name])
        whole = written_whole(target, overwrite=overwrite, own=target != path)
        with whole as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {"manifest.json": _json(manifest), **members}.items():
                archive.writestr(name, data)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{target}: the bundle could not be written ({error.strerror or error}).") from error
    return target


def bundle_file(path: str | Path) -> Path:
    """The file of a bundle, or of an archive of PtychoPINN: the path itself, or ``wts.h5.zip`` in a folder.

    Raises
    ------
    DataError
        There is none, or it is no regular file.
    """
    target = Path(path) / BUNDLE_NAME if os.path.isdir(path) else Path(path)
    if not is_regular(target):
        raise DataError(f"{target}: there is no such file; give a {BUNDLE_NAME} or the folder that holds it.")
    return target


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle; no code in it is run.

    Parameters
    ----------
    path : the ``.zip`` file, or the folder that holds ``wts.h5.zip``.

    Raises
    ------
    DataError
        The file is missing, is not a bundle of this library, or does not match its own checksums.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> from ptycho.model.pinn import initial_parameters
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, backend="numpy")
    >>> params = initial_parameters(model, scan.probe, 1e4, seed=0)
    >>> bundle = ptycho.Bundle(params, config, intensity_scale=3.1, nphotons=1e4, group_canvas_side=64)
    >>> path = ptycho.save_bundle(bundle, "model")
    >>> ptycho.load_bundle("model").nphotons
    10000.0
    """
    target = bundle_file(path)
    if (sentence := mixture(target.parent)) is not None:
        logger.warning(sentence)
    with SafeArchive(target) as archive:
        read = verified_members(archive)
    units = parse_json(read["units.json"], f"{target}: units.json")
    config = parse_json(read["config.json"], f"{target}: config.json")
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return Bundle(
            params=_params(load(read["weights.safetensors"])),
            config=config_from_dict(TrainingConfig, config),
            intensity_scale=_positive(units, "intensity_scale"),
            nphotons=_positive(units, "nphotons"),
            group_canvas_side=int(_positive(units, "side")),
            history=_history(units.get("history", {})),
            manifest=_manifest(parse_json(read["manifest.json"], f"{target}: manifest.json")),
            measurement=_measurement(units),
        )
    except (SafetensorError, ValueError, LookupError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{target}: the bundle's contents do not fit together ({reason}).") from error


def verified_members(archive: SafeArchive) -> dict[str, bytes]:
    """Every member of a bundle, its manifest included, each as its checksum in the manifest says.

    Raises
    ------
    DataError
        It is no bundle of this version; a member is missing, is damaged, or is there without a checksum.
    """
    target = archive.what
    if "manifest.json" not in archive:
        raise DataError(
            f"{target}: not a ptychopinn bundle: it has no manifest.json; if PtychoPINN wrote it, turn it into "
            "one with 'ptycho bundle import'."
        )
    read = {"manifest.json": archive.read("manifest.json")}
    manifest = parse_json(read["manifest.json"], f"{target}: manifest.json")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{target}: bundle format {manifest.get('format_version')!r}; this version reads format {FORMAT_VERSION}."
        )
    sums = manifest.get("sha256")
    if not isinstance(sums, dict):
        raise DataError(f"{target}: not a ptychopinn bundle: its manifest.json has no checksums.")
    for name in dict.fromkeys([*_NEEDED, *sums, *archive.names()]):
        if name == "manifest.json":
            continue
        read[name] = archive.read(name)
        if hashlib.sha256(read[name]).hexdigest() != sums.get(name):
            raise DataError(f"{target}: {name} does not match its checksum; the file is damaged.")
    return read


def _params(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters with the probe and the scale that every model has."""
    params = {name: np.asarray(values) for name, values in arrays.items()}
    real, imaginary, scale = (params[name] for name in ("probe/real", "probe/imag", "log_scale"))
    if real.ndim != 3 or real.shape != imaginary.shape or real.shape[1] != real.shape[2] or scale.shape != ():
        raise ValueError(f"a probe of {real.shape} and {imaginary.shape}, a scale of {scale.shape}")
    for name, values in params.items():
        if values.dtype != np.float32:
            raise ValueError(f"{visible(name)} is {values.dtype}, float32 is expected")
        if not np.isfinite(values).all():
            raise ValueError(f"{visible(name)} has values that are not finite")
    if abs(float(scale)) > _LARGEST_LOG_SCALE:
        raise ValueError(f"log_scale {scale}")
    return params


def _positive(units: dict[str, Any], name: str) -> float:
    value = float(units[name])
    if not 1 / _LARGEST_UNIT < value < _LARGEST_UNIT:
        raise ValueError(f"{name} {value}")
    return value


def _history(values: Any) -> dict[str, list[float]]:
    return {str(name): [float(value) for value in each] for name, each in dict(values).items()}


def _manifest(stated: dict[str, Any]) -> dict[str, Any]:
    """A manifest whose groups hold names with values."""
    for name in ("versions", *ORIGINS):
        if not isinstance(stated.get(name), dict | None):
            raise ValueError(f"manifest.json: {name} is {type(stated[name]).__name__}, names with values are expected")
    return stated


def _measurement(units: dict[str, Any]) -> str | None:
    """What the training's patterns were; older files do not say."""
    found = units.get("measurement")
    if found not in (None, "counts", "amplitude"):
        raise ValueError(f"measurement {found!r}")
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, default=str).encode()


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
