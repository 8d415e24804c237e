"""Save a reconstruction, whole or not at all, with where it came from; load it without a pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ptycho._version import __version__
from ptycho.config.regular_files import is_regular
from ptycho.data import Scan
from ptycho.errors import DataError
from ptycho.evaluation import FRC, coverage, remove_ramp
from ptycho.files import mixture, saved_together
from ptycho.model.bundle import BUNDLE_NAME, bundle_id, load_bundle
from ptycho.workflows.output_folder import RESULT_FILES, adopt_earlier, require_free
from ptycho.workflows.reconstruction import LENGTHS, OPTIONAL_ARRAYS, Reconstruction, pair_of
from ptycho.workflows.report import write_pictures
from ptycho.workflows.result_files import (
    FORMAT,
    identity,
    read_arrays,
    read_identity,
    read_provenance,
    under,
    write_hdf5,
    write_npz,
    write_tiff,
)
from ptycho.workflows.scans import ScanOptions, recorded_reading

__all__ = ["RESULT_FILES", "Reconstruction", "load_reconstruction", "provenance", "save_reconstruction", "write_arrays"]

logger = logging.getLogger(__name__)

_FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras", "jax", "jaxlib")
_LIBRARIES = ("numpy", "scipy", "h5py", "array-api-compat", "matplotlib", "scikit-image")


def save_reconstruction(result: Reconstruction, out_dir: str | Path, *, overwrite: bool = False) -> dict[str, Path]:
    """Write a reconstruction as HDF5, NPZ, float TIFFs, pictures and a report.

    Everything is written to a hidden folder first and moved into place when it is complete: a full disk leaves what was
    there before, and nothing else. In the TIFFs the global phase and the linear ramp are off the phase, and pixels that
    are not covered are NaN.

    Parameters
    ----------
    result : what to save.
    out_dir : folder, made with its parents if it does not exist; other files in it are left alone.
    overwrite : replace an earlier result, as far as this library wrote its files.

    Returns
    -------
    dict
        Path of every file in :data:`RESULT_FILES`, by name.

    Raises
    ------
    OutputError
        A file is in the way, or the disk is full, or nothing can be written there.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> files = ptycho.save_reconstruction(result, "out")
    >>> files["report.html"].name
    'report.html'
    """
    out = Path(out_dir)
    require_free(out, RESULT_FILES, overwrite, locked=True)
    if overwrite:
        adopt_earlier(out)
    with saved_together(out, overwrite=overwrite) as stage:
        write_arrays(result, stage)
        write_pictures(result, stage)
    logger.info("saved the reconstruction in %s", out)
    return {name: out / name for name in RESULT_FILES}


def load_reconstruction(path: str | Path) -> Reconstruction:
    """Read a reconstruction back from its folder, its HDF5 or its NPZ file; no pickle is read.

    Raises
    ------
    DataError
        There is none, or the file cannot be read, or is not a reconstruction.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> files = ptycho.save_reconstruction(result, "out")
    >>> ptycho.load_reconstruction(files["reconstruction.h5"]).metrics == result.metrics
    True
    """
    source = Path(path)
    if os.path.isdir(source):
        found = [source / name for name in ("reconstruction.h5", "reconstruction.npz") if is_regular(source / name)]
        if not found:
            raise DataError(f"{source} holds no reconstruction.h5 and no reconstruction.npz; give another folder.")
        source = found[0]
    arrays = read_arrays(source)
    own = arrays.pop("identity", None)
    missing = [name for name in ("object", "weight", "origin", "positions", "probe") if name not in arrays]
    if missing:
        raise DataError(f"{source} lacks {missing[0]!r}; expected a complete reconstruction, of format {FORMAT}.")
    try:
        result = _from_arrays(arrays)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise DataError(f"{source} does not hold together ({error}); the file is damaged.") from error
    for sentence in _strangers(source, own, result.provenance):
        logger.warning(sentence)
    return result


def _strangers(source: Path, own: Any, came_from: Mapping[str, Any]) -> Iterator[str]:
    """Sentences that name files beside a result which do not belong to it."""
    if (sentence := mixture(source.parent)) is not None:
        yield sentence
    others = {"reconstruction.h5": "reconstruction.npz", "reconstruction.npz": "reconstruction.h5"}
    other = source.with_name(others.get(source.name, source.name))
    if other != source and other.is_file():
        with contextlib.suppress(DataError):
            theirs = read_identity(other)
            if None not in (own, theirs) and own != theirs:
                yield f"{source} and {other} are of different runs, and the first was read; repeat with --force."
    bundle, made_with = source.with_name(BUNDLE_NAME), came_from.get("bundle")
    if isinstance(made_with, str) and bundle.is_file():
        with contextlib.suppress(DataError):
            if bundle_id(load_bundle(bundle)) != made_with:
                yield f"{source} was not made with the model in {bundle}, which is of another run."


def _from_arrays(arrays: Mapping[str, Any]) -> Reconstruction:
    """The opposite of :func:`_flat`."""
    return Reconstruction(
        object=arrays["object"],
        weight=arrays["weight"],
        origin=pair_of(arrays["origin"]),
        positions=arrays["positions"],
        probe=arrays["probe"],
        **dict[str, Any]({name: float(arrays[name]) for name in LENGTHS if name in arrays}),
        history={name: list(values) for name, values in under("history", arrays).items()},
        provenance=read_provenance(arrays.get("provenance", "{}")),
        metrics={
            name: float(value) for name, value in {**under("figures", arrays), **under("metrics", arrays)}.items()
        },
        frc=_curves(arrays),
        **{name: arrays.get(name) for name in OPTIONAL_ARRAYS},
    )


def provenance(
    config: Any, scan: Scan | None, seed: int | None, command: str | None, reading: ScanOptions | None = None
) -> dict[str, Any]:
    """Where a result came from, as plain values that JSON can hold.

    Parameters
    ----------
    config : dataclass, mapping or None.
    scan : the measurement; its fingerprint is the SHA-256 of the data.
    seed : of all random numbers.
    command : the command line, or None.
    reading : how the scan was read, or None.

    Returns
    -------
    dict
        ``created`` (UTC), ``command``, ``seed``, ``data``, ``config``, ``versions``, ``machine``.
    """
    data: dict[str, Any] = {}
    if scan is not None:
        data = {"name": scan.name, "sha256": scan.fingerprint(), "patterns": len(scan), "pattern_size": scan.N}
        data |= {name: getattr(scan, name) for name in ("measurement", "wavelength", "distance")}
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "data": data,
        "config": _plain(config),
        **({} if reading is None else {"reading": recorded_reading(reading)}),
        "versions": {"ptychopinn": __version__, "python": platform.python_version(), **_installed()},
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
    }


def write_arrays(result: Reconstruction, folder: Path) -> None:
    """Write what is for other programs, HDF5, NPZ and TIFFs, into a folder that is there."""
    arrays = _flat(result)
    arrays["identity"] = identity(arrays)
    write_hdf5(folder / "reconstruction.h5", arrays)
    write_npz(folder / "reconstruction.npz", arrays)
    covered = coverage(result.weight)
    flat = remove_ramp(result.object, covered)
    for name, of, unit in (("amplitude", np.abs, "1"), ("phase", np.angle, "rad")):
        note = {"quantity": name, "unit": unit, "pixel_size_m": result.pixel_size, "origin_row_col": result.origin}
        if name == "phase":
            note["removed"] = "global phase and linear ramp"
        write_tiff(folder / f"{name}.tif", np.where(covered, of(flat), np.nan), note, result.pixel_size)


def _flat(result: Reconstruction) -> dict[str, Any]:
    """The layout of :mod:`ptycho.workflows.result_files`."""
    arrays: dict[str, Any] = {
        "object": result.object,
        "weight": result.weight,
        "origin": np.asarray(result.origin, dtype=np.float64),
        "positions": result.positions,
        "probe": result.probe,
    }
    for name in OPTIONAL_ARRAYS:
        if getattr(result, name) is not None:
            arrays[name] = getattr(result, name)
    arrays |= {name: np.float64(getattr(result, name)) for name in LENGTHS if getattr(result, name) is not None}
    arrays |= {f"history/{name}": np.asarray(values, dtype=np.float64) for name, values in result.history.items()}
    arrays |= {f"metrics/{name}": np.float64(value) for name, value in result.metrics.items()}
    for name, curve in result.frc.items():
        for part in ("frequency", "correlation", "independent"):
            arrays[f"frc/{name}/{part}"] = np.asarray(getattr(curve, part), dtype=np.float64)
    arrays["provenance"] = json.dumps(_plain(result.provenance))
    return arrays


def _curves(arrays: Mapping[str, Any]) -> dict[str, FRC]:
    parts = under("frc", arrays)
    names = dict.fromkeys(name.rsplit("/", 1)[0] for name in parts)
    return {
        name: FRC(parts[f"{name}/frequency"], parts[f"{name}/correlation"], parts[f"{name}/independent"])
        for name in names
    }


def _plain(value: Any) -> Any:
    """The value as what JSON can hold, whatever it is made of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return str(value)


def _installed() -> dict[str, str]:
    """Versions of the libraries and of the frameworks that are installed, found without importing any."""
    versions = {}
    for name in (*_LIBRARIES, *_FRAMEWORKS):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
