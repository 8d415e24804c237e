"""The files of a reconstruction: one flat layout of named arrays, written as HDF5 and as NPZ, and float TIFFs.

Layout, the same names in both (``/`` makes groups in HDF5)::

    object               (H, W) complex64    transmission, 1 where nothing is known
    weight               (H, W) float32      summed stitching window, 0 where nothing is known
    origin               (2,) float64        pixels, position (row, col) of object[0, 0]
    positions            (M, 2) float64      pixels, (row, col) of the patch centres: p lies on object pixel p - origin
    probe                (P, N, N) complex64 sqrt(photons), incoherent modes
    pixel_size           () float64          metres; absent when it is not known
    slices               (S, H, W) complex64 in the order in which the beam meets them, the object being their product,
                                             or absent
    slice_spacing        () float64          metres from one slice to the next, or absent
    truth                (H, W) complex64    the true object on the same grid; absent when it is not known
    measured, predicted  (K, N, N) float32   sqrt(photons), a few patterns; absent when there are none
    components           (V, N, N) complex64 sqrt(photons), of the first mode from pattern to pattern, or absent
    weights              (M, 1 + V) complex64  brightness and components of every pattern, or absent
    mask                 (N, N) bool         True where the detector is good; absent when all of it is
    history/NAME         (E,) float64        one value per epoch
    metrics/NAME         () float64          R-factor and the like
    frc/NAME/{frequency, correlation, independent}  (R,) float64; frequency in cycles per pixel
    provenance           JSON text           versions, configuration, seed, data hash, command
    identity             text                SHA-256 of all of these, the same in both files of one result

In HDF5 every array has the attribute ``units`` and the file has ``format`` and ``format_version``; in NPZ the latter
two are arrays. Neither file holds a pickle, and none is read.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config.regular_files import is_regular
from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.data.readers.hdf5_source import names_in
from ptycho.data.readers.limits import LARGEST_RESULT_EXPANSION
from ptycho.data.readers.npz import NpzArchive
from ptycho.data.writers.hdf5 import new_file, put
from ptycho.errors import DataError
from ptycho.model.safe_archive import parse_json

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "identity",
    "read_arrays",
    "read_identity",
    "read_provenance",
    "under",
    "write_hdf5",
    "write_npz",
    "write_tiff",
]

FORMAT = "ptychopinn-reconstruction"
FORMAT_VERSION = 1

_DEEPEST = 3
"""Groups within groups that the layout has; a damaged file may have one inside itself."""

_UNITS = {
    "object": "dimensionless",
    "weight": "dimensionless",
    "truth": "dimensionless",
    "origin": "pixel",
    "positions": "pixel",
    "probe": "sqrt(photon)",
    "measured": "sqrt(photon)",
    "predicted": "sqrt(photon)",
    "components": "sqrt(photon)",
    "weights": "dimensionless",
    "mask": "dimensionless",
    "pixel_size": "metre",
    "slices": "dimensionless",
    "slice_spacing": "metre",
}
_AXES = {
    "object": "row, column",
    "weight": "row, column",
    "truth": "row, column",
    "origin": "(row, column)",
    "positions": "pattern, (row, column)",
    "probe": "mode, row, column",
    "measured": "pattern, row, column",
    "predicted": "pattern, row, column",
    "mask": "row, column",
    "components": "component, row, column",
    "weights": "pattern, (brightness, components)",
    "slices": "slice, row, column",
}


def write_hdf5(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays (and texts) as HDF5, each with its units and axes.

    Raises
    ------
    OSError
        The disk is full or the file cannot be made.
    """
    with new_file(path) as file:
        file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
        for name, values in arrays.items():
            dataset = put(file, name, values)
            dataset.attrs["units"] = _unit(name)
            if name in _AXES:
                dataset.attrs["axes"] = _AXES[name]


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays (and texts) as a compressed NPZ whose bytes depend on nothing but the arrays.

    Raises
    ------
    OSError
        The disk is full or the file cannot be made.
    """
    everything = {**arrays, "format": FORMAT, "format_version": FORMAT_VERSION}
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in everything.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980 unless told otherwise
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(values), allow_pickle=False)


def write_tiff(path: Path, image: np.ndarray, description: Mapping[str, Any], pixel_size: float | None) -> None:
    """Write one (H, W) image as float32 TIFF with a JSON description, and the resolution where it is known.

    Raises
    ------
    OSError
        The disk is full or the file cannot be made.
    """
    import tifffile

    options: dict[str, Any] = {}
    per_centimetre = None if pixel_size is None else 0.01 / pixel_size
    if per_centimetre is not None and 1 <= per_centimetre < 2**32:  # the tag is a rational of 32-bit integers
        options = {"resolution": (per_centimetre, per_centimetre), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path, np.asarray(image, dtype=np.float32), description=json.dumps(description), metadata=None, **options
    )


def read_arrays(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 or NPZ file of a reconstruction, by name; texts as ``str``.

    Raises
    ------
    DataError
        The file is not there, cannot be read, is not a reconstruction, or is of a newer format.
    """
    if not is_regular(path):
        raise DataError(f"{path} does not exist; expected reconstruction.h5, reconstruction.npz or their folder.")
    arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_hdf5(path)
    form = arrays.pop("format", None)
    if not isinstance(form, str) or form != FORMAT:
        raise DataError(f"{path} is not a reconstruction; expected a file that 'ptycho reconstruct' wrote.")
    version = np.asarray(arrays.pop("format_version", None))
    if version.shape != () or version.dtype.kind not in "iu" or int(version) > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version.tolist()}; this ptychopinn reads up to {FORMAT_VERSION}: update it."
        )
    return arrays


def identity(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of named arrays and texts, by which two files of one result know each other."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        array = np.asarray(values, order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def read_identity(path: Path) -> str | None:
    """The identity of a result's HDF5 or NPZ file; None where an earlier version wrote it.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    if zipfile.is_zipfile(path):
        archive = NpzArchive(path)
        return str(archive.array("identity")) if "identity" in archive.keys() else None  # noqa: SIM118  no mapping
    with Hdf5File(path) as h5:
        return None if h5.find("identity") is None else h5.text("identity")


def _read_npz(path: Path) -> dict[str, Any]:
    archive = NpzArchive(path, LARGEST_RESULT_EXPANSION)
    return {name: _plain(archive.array(name)) for name in archive.keys()}  # noqa: SIM118  no mapping


def _read_hdf5(path: Path) -> dict[str, Any]:
    with Hdf5File(path) as h5:
        arrays = {name: h5.attribute("/", name) for name in ("format", "format_version")}
        return {**arrays, **_collected(h5, "", _DEEPEST)}


def _collected(h5: Hdf5File, group: str, depth: int) -> dict[str, Any]:
    """Every dataset in a group and the groups inside it, by its full name."""
    found: dict[str, Any] = {}
    for key in names_in(h5.find(group or "/")) if depth else ():
        name = f"{group}/{key}".lstrip("/")
        node = h5.find(name)
        if hasattr(node, "keys"):
            found.update(_collected(h5, name, depth - 1))
        elif node is not None:
            found[name] = h5.text(name) if node.dtype.kind in "OS" else h5.array(name)
    return found


def _plain(values: Any) -> Any:
    """Texts as ``str``; arrays as they are."""
    array = np.asarray(values)
    return str(array[()]) if array.dtype.kind == "U" and array.ndim == 0 else array


def read_provenance(text: Any) -> dict[str, Any]:
    """The provenance in a file, whose groups hold names with values.

    Raises
    ------
    DataError
        It is no JSON object, is nested too deeply, or a group of it is something else.
    """
    found = parse_json(str(text), "provenance")
    for name in ("data", "config", "versions", "machine", "reading"):
        if not isinstance(found.get(name), dict | None):
            raise DataError(f"provenance: {name} is {type(found[name]).__name__}; expected names with values.")
    return found


def under(group: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays in a group, by their names within it."""
    return {name.removeprefix(f"{group}/"): value for name, value in arrays.items() if name.startswith(f"{group}/")}


def _unit(name: str) -> str:
    if name.endswith("/frequency"):
        return "cycles/pixel"
    return _UNITS.get(name, "dimensionless" if "/" in name else "none")
