"""Save a reconstruction, whole or not at all, with where it came from; load it without a pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ptycho._version import __version__
from ptycho.data import Scan
from ptycho.errors import DataError, OutputError
from ptycho.evaluation import FRC, coverage, remove_ramp
from ptycho.workflows.reconstruction import LENGTHS, OPTIONAL_ARRAYS, Reconstruction, pair_of
from ptycho.workflows.report import write_pictures
from ptycho.workflows.result_files import FORMAT, read_arrays, write_hdf5, write_npz, write_tiff

__all__ = ["RESULT_FILES", "Reconstruction", "load_reconstruction", "provenance", "save_reconstruction", "write_arrays"]

logger = logging.getLogger(__name__)

RESULT_FILES = (
    "reconstruction.h5",
    "reconstruction.npz",
    "amplitude.tif",
    "phase.tif",
    "amplitude.png",
    "phase.png",
    "complex.png",
    "probe.png",
    "report.html",
)
"""What :func:`save_reconstruction` writes."""

_FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras", "jax", "jaxlib")
_LIBRARIES = ("numpy", "scipy", "h5py", "array-api-compat", "matplotlib", "scikit-image")


def save_reconstruction(result: Reconstruction, out_dir: str | Path, force: bool = False) -> dict[str, Path]:
    """Write a reconstruction as HDF5, NPZ, float TIFFs, pictures and a report.

    Everything is written to a hidden folder first and moved into place when it is complete: a full disk leaves what was
    there before, and nothing else. In the TIFFs the global phase and the linear ramp are off the phase, and pixels that
    are not covered are NaN.

    Parameters
    ----------
    result : what to save.
    out_dir : folder, made with its parents if it does not exist; other files in it are left alone.
    force : replace an earlier result.

    Returns
    -------
    dict
        Path of every file in :data:`RESULT_FILES`, by name.

    Raises
    ------
    OutputError
        A result is there already, or the disk is full, or nothing can be written there.
    """
    out = Path(out_dir)
    present = [name for name in RESULT_FILES if os.path.lexists(out / name)]
    if present and not force:
        raise OutputError(f"{out / present[0]} exists already; choose another folder, or replace it with force.")
    with _staging(out) as stage:
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
    """
    source = Path(path)
    if source.is_dir():
        found = [source / name for name in ("reconstruction.h5", "reconstruction.npz") if (source / name).is_file()]
        if not found:
            raise DataError(f"{source} holds no reconstruction.h5 and no reconstruction.npz; give another folder.")
        source = found[0]
    arrays = read_arrays(source)
    missing = [name for name in ("object", "weight", "origin", "positions", "probe") if name not in arrays]
    if missing:
        raise DataError(f"{source} lacks {missing[0]!r}; expected a complete reconstruction, of format {FORMAT}.")
    try:
        return _from_arrays(arrays)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise DataError(f"{source} does not hold together ({error}); the file is damaged.") from error


def _from_arrays(arrays: Mapping[str, Any]) -> Reconstruction:
    """The opposite of :func:`_flat`."""
    return Reconstruction(
        object=arrays["object"],
        weight=arrays["weight"],
        origin=pair_of(arrays["origin"]),
        positions=arrays["positions"],
        probe=arrays["probe"],
        **dict[str, Any]({name: float(arrays[name]) for name in LENGTHS if name in arrays}),
        history={name: list(values) for name, values in _under("history", arrays).items()},
        provenance=dict(json.loads(arrays.get("provenance", "{}"))),
        metrics={
            name: float(value) for name, value in {**_under("figures", arrays), **_under("metrics", arrays)}.items()
        },
        frc=_curves(arrays),
        **{name: arrays.get(name) for name in OPTIONAL_ARRAYS},
    )


def provenance(config: Any, scan: Scan | None, seed: int | None, command: str | None) -> dict[str, Any]:
    """Where a result came from, as plain values that JSON can hold.

    Parameters
    ----------
    config : dataclass, mapping or None.
    scan : the measurement; its fingerprint is the SHA-256 of the data.
    seed : of all random numbers.
    command : the command line, or None.

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
        "versions": {"ptychopinn": __version__, "python": platform.python_version(), **_installed()},
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
    }


def write_arrays(result: Reconstruction, folder: Path) -> None:
    """Write what is for other programs, HDF5, NPZ and TIFFs, into a folder that is there."""
    arrays = _flat(result)
    write_hdf5(folder / "reconstruction.h5", arrays)
    write_npz(folder / "reconstruction.npz", arrays)
    covered = coverage(result.weight)
    flat = remove_ramp(result.object, covered)
    for name, of, unit in (("amplitude", np.abs, "1"), ("phase", np.angle, "rad")):
        note = {"quantity": name, "unit": unit, "pixel_size_m": result.pixel_size, "origin_row_col": result.origin}
        if name == "phase":
            note["removed"] = "global phase and linear ramp"
        write_tiff(folder / f"{name}.tif", np.where(covered, of(flat), np.nan), note, result.pixel_size)


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden folder on the same disk as ``out``, whose files are moved into ``out`` at the end, all or none."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ptycho-", dir=out) as hidden:
            stage, earlier = Path(hidden) / "new", Path(hidden) / "earlier"
            stage.mkdir()
            earlier.mkdir()
            yield stage
            _move_in(stage, earlier, out)
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            reason = error.strerror or str(error)
            raise OutputError(f"The result cannot be saved in {out}: {reason}; nothing was left behind.") from error
        raise


def _move_in(stage: Path, earlier: Path, out: Path) -> None:
    """Put the staged files in the place of earlier ones; if one of them fails, put everything back as it was.

    Under every name there is a whole file at any moment, the old one or the new one.
    """
    names = sorted(path.name for path in stage.iterdir())
    moved: list[str] = []
    try:
        for name in names:
            _to_disk(stage / name)
            if os.path.lexists(out / name):
                _second_name(out / name, earlier / name)
        for name in names:
            os.replace(stage / name, out / name)
            moved.append(name)
    except OSError:
        for name in moved:
            if os.path.lexists(earlier / name):
                os.replace(earlier / name, out / name)
            else:
                (out / name).unlink()
        raise


def _to_disk(path: Path) -> None:
    """Make the system write out what it holds back, so that a power cut after the rename finds the contents."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _second_name(path: Path, name: Path) -> None:
    """Give a file another name beside its own, or a copy where the file system has no such names."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, name, follow_symlinks=False)


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


def _under(group: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{group}/"): value for name, value in arrays.items() if name.startswith(f"{group}/")}


def _curves(arrays: Mapping[str, Any]) -> dict[str, FRC]:
    parts = _under("frc", arrays)
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
