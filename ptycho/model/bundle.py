"""The bundle ``wts.h5.zip``: a trained model as JSON and plain arrays, which every backend loads.

Members: ``manifest.json`` (format, backend, versions, SHA-256 of every other member), ``config.json`` (the training
configuration), ``units.json``, ``weights.safetensors`` (the parameters, once, framework-neutral), and under
``autoencoder/`` and ``diffraction_to_obj/`` the native form of the backend that wrote it and ``params.dill``, a plain
dictionary for older readers. Loading reads the JSON and the weights only; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import zipfile
import zlib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import TrainingConfig, config_from_dict, config_to_dict, dataclass_to_legacy_dict
from ptycho.errors import DataError, OutputError

__all__ = ["BUNDLE_NAME", "Bundle", "load_bundle", "save_bundle"]

BUNDLE_NAME = "wts.h5.zip"
FORMAT_VERSION = 1
MODELS = ("autoencoder", "diffraction_to_obj")
_LARGEST_MEMBER = 4 << 30
# zipfile raises NotImplementedError and RuntimeError (unknown compression, encryption) on damaged headers
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError)
_RECORDED = ("ptychopinn", "numpy", "torch", "lightning", "tensorflow", "keras", "jax")


@dataclass
class Bundle:
    """A trained model.

    Parameters
    ----------
    params : every parameter by name, host arrays.
    config : the training's configuration; ``config.model`` rebuilds the network.
    intensity_scale : s; ``s * X`` is the amplitude in sqrt(photons).
    nphotons : mean photons per pattern in the model's units.
    side : pixels of a group's own canvas at training.
    history : losses per epoch.
    native : files in the writing backend's own form.
    manifest : what the file says of itself; filled on loading.
    measurement : what the training's patterns were, "counts" or "amplitude"; None where a file does not say.
    """

    params: dict[str, np.ndarray]
    config: TrainingConfig
    intensity_scale: float
    nphotons: float
    side: int
    history: dict[str, list[float]] = field(default_factory=dict)
    native: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    measurement: str | None = None

    @property
    def probe(self) -> np.ndarray:
        """(P, N, N) complex64 probe in sqrt(photons), as trained."""
        modes = self.params["probe/real"] + 1j * self.params["probe/imag"]
        return (modes * np.float32(np.exp(self.params["log_scale"]))).astype(np.complex64)


def save_bundle(bundle: Bundle, path: str | Path) -> Path:
    """Write a bundle beside its place and rename it there.

    Parameters
    ----------
    bundle : what to write.
    path : file, or a folder that will hold ``wts.h5.zip``.

    Raises
    ------
    OutputError
        The place cannot be written; an older bundle there is left whole.
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
                "side": bundle.side,
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
        "format": "ptychopinn bundle",
        "format_version": FORMAT_VERSION,
        "backend": bundle.config.backend,
        "models": list(MODELS),
        "versions": _versions(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {"manifest.json": _json(manifest), **members}.items():
                archive.writestr(name, data)
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is missing
            partial.unlink(missing_ok=True)
        raise OutputError(f"{target}: the bundle could not be written ({error.strerror or error}).") from error
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
    """
    path = Path(path)
    target = path / BUNDLE_NAME if path.is_dir() else path
    if not target.is_file():
        raise DataError(f"{target}: there is no such bundle; give a {BUNDLE_NAME} or the folder that holds it.")
    try:
        with zipfile.ZipFile(target) as archive:
            read = _verified(archive, target)
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{target}: not a readable bundle ({error}); was the file cut short?") from error
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        units = json.loads(read["units.json"])
        return Bundle(
            params={name: np.asarray(values) for name, values in load(read["weights.safetensors"]).items()},
            config=config_from_dict(TrainingConfig, json.loads(read["config.json"])),
            intensity_scale=float(units["intensity_scale"]),
            nphotons=float(units["nphotons"]),
            side=int(units["side"]),
            history=units.get("history", {}),
            manifest=json.loads(read["manifest.json"]),
            measurement=_measurement(units),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{target}: the bundle's contents do not fit together ({error}).") from error


def _verified(archive: zipfile.ZipFile, target: Path) -> dict[str, bytes]:
    """The members that loading needs, checked against the manifest."""
    names = set(archive.namelist())
    if "manifest.json" not in names:
        raise DataError(f"{target}: not a ptychopinn bundle: it has no manifest.json.")
    read = {"manifest.json": _member(archive, "manifest.json", target)}
    manifest = json.loads(read["manifest.json"])
    if not isinstance(manifest, dict):
        raise DataError(f"{target}: not a ptychopinn bundle: its manifest.json is no JSON object.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{target}: bundle format {manifest.get('format_version')!r}; this version reads format {FORMAT_VERSION}."
        )
    for name in ("config.json", "units.json", "weights.safetensors"):
        read[name] = _member(archive, name, target)
        if hashlib.sha256(read[name]).hexdigest() != manifest["sha256"][name]:
            raise DataError(f"{target}: {name} does not match its checksum; the file is damaged.")
    return read


def _member(archive: zipfile.ZipFile, name: str, target: Path) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_MEMBER:
        raise DataError(f"{target}: {name} claims to be larger than {_LARGEST_MEMBER >> 30} GiB; refused.")
    with archive.open(name) as member:
        return io.BytesIO(member.read()).getvalue()


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
