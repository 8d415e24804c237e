"""Look into model files, take over PtychoPINN's, and hand models on to other programs."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import config_to_dict
from ptycho.config.settings import data_dirs_setting, setting
from ptycho.data import load_scan
from ptycho.data.readers.limits import readable
from ptycho.errors import BackendError, ConfigError, DataError
from ptycho.files import require_replaceable, written_whole
from ptycho.model.bundle import BUNDLE_NAME, ORIGINS, Bundle, bundle_file, load_bundle
from ptycho.model.complete import load_complete_bundle, require_complete
from ptycho.model.generators import channels
from ptycho.model.importers.archives import import_archive, model_folders
from ptycho.model.importers.plain_pickle import read_plain_pickle
from ptycho.model.safe_archive import SafeArchive
from ptycho.visible import visible

__all__ = [
    "ExportOptions",
    "ImportOptions",
    "InfoOptions",
    "describe_model_file",
    "description_lines",
    "export_bundle",
    "export_description",
    "import_bundle",
]


@dataclass
class InfoOptions:
    """How a model file is described."""

    json: bool = setting(False, "print everything as JSON, the losses of every epoch included")


@dataclass
class ImportOptions:
    """Where an imported model goes, and what it lacks."""

    output_dir: Path = setting(Path("imported"), "folder for wts.h5.zip and config.yaml, created if missing")
    probe: Path | None = setting(None, "scan whose probe is taken, where the archive has none or another is wanted")
    data_dirs: tuple[Path, ...] = data_dirs_setting()


@dataclass
class ExportOptions:
    """What a model is written as."""

    to: str | None = setting(None, "what is written: onnx, or torch (a torch.export program)")
    output_file: Path | None = setting(None, "file to write; none writes BUNDLE.onnx or BUNDLE.pt2 beside the bundle")


_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def describe_model_file(path: str | Path) -> dict[str, Any]:
    """What a bundle, or an archive of PtychoPINN, is and holds; nothing in it is run.

    Parameters
    ----------
    path
        The ``.zip`` file, or the folder that holds ``wts.h5.zip``.

    Returns
    -------
    dict
        Plain values. Of both: ``file``, ``bytes``, ``kind``, ``members`` (bytes and SHA-256 by name). Of a bundle also
        ``format_version``, ``backend``, ``versions``, ``model``, ``training``, ``units``, ``parameters``, ``probe``,
        ``history``, ``imported_from``, ``simulated``, ``started_from``; of an archive ``models`` and ``settings``.

    Raises
    ------
    DataError
        It is neither, or is damaged.
    """
    target = bundle_file(path)
    with SafeArchive(target) as archive:
        folders = {} if "manifest.json" in archive else model_folders(archive)
        members = {name: _member(archive.read(name)) for name in archive.names()}
        common = {"file": str(target), "bytes": target.stat().st_size, "members": members}
        if folders:
            what = f"{target}: {next(iter(folders))}/params.dill"
            settings = read_plain_pickle(archive.read(f"{next(iter(folders))}/params.dill"), what)
            return {"kind": "archive of PtychoPINN", **common, "models": folders, "settings": _scalars(settings)}
    bundle = load_bundle(target)
    with contextlib.suppress(ConfigError):  # a network of a package that is not installed can be described all the same
        require_complete(bundle, str(target))
    config = config_to_dict(bundle.config)
    manifest = bundle.manifest
    return {
        "kind": "ptychopinn bundle",
        **common,
        "format_version": manifest.get("format_version"),
        "backend": bundle.config.backend,
        "versions": manifest.get("versions", {}),
        **{name: manifest.get(name) for name in ORIGINS},
        "model": config.pop("model"),
        "training": config,
        "units": {
            "intensity_scale": bundle.intensity_scale,
            "nphotons": bundle.nphotons,
            "side": bundle.group_canvas_side,
            "measurement": bundle.measurement,
            "log_scale": float(bundle.params["log_scale"]),
        },
        "parameters": {"arrays": len(bundle.params), "numbers": sum(int(p.size) for p in bundle.params.values())},
        "probe": list(bundle.params["probe/real"].shape),
        "history": bundle.history,
    }


def description_lines(found: Mapping[str, Any]) -> list[str]:
    """The description of a model file as lines of a name and a value, free of control codes."""
    lines = [f"file {found['file']}", f"kind {found['kind']}", f"size {readable(found['bytes'])}"]
    if "models" in found:
        lines += [f"model {name} ({framework})" for name, framework in found["models"].items()]
        lines.append(f"settings {_pairs(found['settings'])}")
    else:
        modes, side = found["probe"][0], found["probe"][-1]
        numbers = found["parameters"]
        lines += [
            f"format {found['format_version']}",
            f"backend {found['backend']}",
            f"versions {_pairs(found['versions'])}",
            *(f"{name.replace('_', ' ')} {_pairs(found[name])}" for name in ORIGINS if isinstance(found[name], dict)),
            f"model {_pairs(found['model'])}",
            f"units {_pairs(found['units'])}",
            f"parameters {numbers['numbers']} in {numbers['arrays']} arrays",
            f"probe {modes} mode(s) of {side} x {side} pixels",
            *(
                f"history {name} {values[0]:.6g} to {values[-1]:.6g}, lowest {min(values):.6g}, {len(values)} epochs"
                for name, values in found["history"].items()
                if values
            ),
        ]
    lines += [
        f"member {name} {readable(member['bytes'])} sha256 {member['sha256']}"
        for name, member in found["members"].items()
    ]
    return [visible(line) for line in lines]


def import_bundle(path: str | Path, probe: str | Path | None = None, data_dirs: Sequence[str | Path] = ()) -> Bundle:
    """PtychoPINN's archive as a bundle of this library.

    Parameters
    ----------
    path
        The archive, or the folder that holds ``wts.h5.zip``.
    probe
        A scan whose probe is taken instead of the archive's.
    data_dirs
        Folders whose files that scan may link to, as for :func:`ptycho.data.load_scan`.

    Raises
    ------
    DataError
        See :func:`ptycho.model.importers.archives.import_archive`; or the scan has no probe.
    """
    given = None
    if probe is not None:
        given = load_scan(probe, data_dirs=data_dirs).probe
        if given is None:
            raise DataError(f"{probe} holds no probe; name a scan that has one with --probe.")
    return import_archive(path, given)


def export_bundle(path: str | Path, to: str | None, out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a bundle's network in a form that other programs load.

    The network takes what :func:`export_description` says under ``x``, in float32 and for any size of batch, and gives
    ``amplitude`` and ``phase``, each (batch, N, N, C).

    Parameters
    ----------
    path
        The bundle, or the folder that holds it.
    to
        Name of an exporter: ``"onnx"`` or ``"torch"``, or what an installed package registers in the entry-point group
        ``ptycho.exporters``: a function of the bundle, the factor on the input and the description that gives bytes.
    out
        The file; None puts it beside the bundle.
    overwrite
        Replace a regular file that is there; of a file that was not named, only one that this function wrote.

    Returns
    -------
    Path
        Of the file, which appears whole or not at all.

    Raises
    ------
    ConfigError, BackendError
        There is no such exporter, or what it needs is not installed.
    DataError
        The bundle cannot be read.
    OutputError
        The file exists, or cannot be written.
    """
    target, own = export_target(path, to, out), out is None
    require_replaceable(target, overwrite=overwrite, own=own)
    export = _exporter(to)
    bundle = load_complete_bundle(path)
    content = export(bundle, input_scale(bundle), export_description(bundle))
    with written_whole(target, overwrite=overwrite, own=own) as stream:
        stream.write(content)
    return target


def export_target(path: str | Path, to: str | None, out: str | Path | None) -> Path:
    """The file that :func:`export_bundle` writes; arguments as there."""
    if out is not None:
        return Path(out)
    source = Path(path) / BUNDLE_NAME if Path(path).is_dir() else Path(path)
    return source.with_name(source.name.split(".")[0] + _SUFFIXES.get(str(to), f".{to}"))


def input_scale(bundle: Bundle) -> float:
    """Factor between the input of an exported network and what the network sees."""
    if bundle.config.model.start_iterations is not None:
        return 1.0
    return bundle.intensity_scale * math.exp(-float(bundle.params["log_scale"]))


def export_description(bundle: Bundle) -> dict[str, str]:
    """What the arrays of an exported network are, in words, by their names."""
    model = bundle.config.model
    seen, answered = channels(model)
    group = f"the {answered} pattern(s) of a group" if model.gridsize > 1 else "a pattern"
    if model.start_iterations is None:
        x = (
            f"float32 (batch, {model.N}, {model.N}, {seen}): amplitudes of {group}, zero frequency in the middle, "
            "times one factor that makes the mean over the scan of the sum of their squares (N/2)^2"
        )
        answer = "the object patch is amplitude * exp(i phase)"
    else:
        x = (
            f"float32 (batch, {model.N}, {model.N}, {seen}): real and imaginary part of the object estimate at "
            f"{group}, over its mean transmission and less 1, and of the change that the patterns ask for"
        )
        answer = "the object patch is the estimate times amplitude * exp(i phase)"
    shape = f"float32 (batch, {model.N}, {model.N}, {answered})"
    return {
        "x": x,
        "amplitude": f"{shape}: {answer}, before the patches of a group are merged",
        "phase": f"{shape}, radians",
        "model": ", ".join(f"{name} {value}" for name, value in config_to_dict(model).items()),
        "nphotons": repr(bundle.nphotons),
        "intensity_scale": repr(bundle.intensity_scale),
        "log_scale": repr(float(bundle.params["log_scale"])),
    }


def _exporter(name: str | None) -> Callable[..., bytes]:
    points = {point.name: point for point in entry_points(group="ptycho.exporters")}
    if name not in points:
        raise ConfigError(f"to = {name} is not possible: expected one of {', '.join(sorted(points)) or '(none)'}.")
    try:
        return points[name].load()
    except ImportError as error:
        raise BackendError(
            f"The export to {name} needs PyTorch, which could not be imported ({error}); install it with: "
            "pip install ptychopinn[onnx]"
        ) from error


def _member(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _scalars(settings: Any) -> dict[str, Any]:
    """Settings that are numbers and texts; of arrays the shape."""
    plain: dict[str, Any] = {}
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if isinstance(value, np.ndarray):
            plain[str(name)] = f"{value.dtype} {value.shape}"
        elif value is None or isinstance(value, bool | int | float | str):
            plain[str(name)] = value
    return plain


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
