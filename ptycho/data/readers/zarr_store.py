"""A scan as a Zarr group, the layout of this library: one array per field, the rest as attributes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.regular_files import is_regular, read_regular
from ptycho.data.lazy import LazyPatterns, frames_in
from ptycho.data.readers.limits import (
    LARGEST_EXPANSION,
    MemoryBudget,
    check_chunk,
    check_expansion,
    claimed_bytes,
    json_object,
    shortened,
)
from ptycho.data.readers.roundtrip import FORMAT_ID, stated_fields
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

ARRAYS = ("positions", "probe", "object", "mask", "scan_index")
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_LARGEST_METADATA = 2**20
_AXIS_LIMIT = 32
"""NumPy's own limit before version 2."""
# Codecs that only pack numbers: what may run code when it unpacks (numcodecs' pickle) is not among them.
_CODECS = frozenset(
    {"bytes", "transpose", "crc32c", "sharding_indexed", "shuffle", "delta"}
    | {"blosc", "zstd", "gzip", "zlib", "bz2", "lzma", "lz4"}
)


class ZarrReader:
    """Reads a folder that holds a Zarr group, of version 2 or 3, with `patterns` (M, N, N) and `positions` (M, 2).

    Everything is in the units and the order of a `Scan`. What was measured stands in the group's attributes; without
    them integers are counts, and of other numbers the caller must say.
    """

    name = "zarr"
    description = "a Zarr group (a folder) with patterns and positions"
    options: frozenset[str] = frozenset()

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the folder by its metadata."""
        return file.is_zarr

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan; the patterns stay unread."""
        if not file.is_zarr:
            raise DataError(f"{file.path} is not a folder with a Zarr group, which the format {self.name} is.")
        _inspect(file.path)
        group = _open(file.path)
        attributes = dict(group.attrs)
        stated = stated_fields(attributes) if attributes.get("format") == FORMAT_ID else {"metadata": attributes}
        missing = [name for name in ("patterns", "positions") if name not in group]
        if missing:
            raise DataError(f"{file.path} lacks the array {missing[0]}; a Zarr scan has patterns and positions.")
        source = ZarrSource(file.path, "patterns")
        measurement = given.get("measurement") or stated.get("measurement")
        if measurement is None and source.dtype.kind not in "iu":
            raise DataError(f"{file.path} does not say what was measured; give --measurement counts or amplitude.")
        fields = {name: _array(group, name, file.path) for name in ARRAYS if name in group}
        return {"measurement": measurement or "counts", **stated, **fields, "patterns": LazyPatterns((source,))}


class ZarrSource:
    """Frames in an array of a Zarr group, opened from the first read on, anew in every process."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._array: Any = None
        array = self._open()
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.frames_per_chunk = frames_in(array.chunks)

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the array.

        Raises
        ------
        DataError
            If it is damaged or gone.
        """
        try:
            return np.asarray(self._open()[part])
        except Exception as error:  # codecs raise what they like
            raise DataError(
                f"{self.path}: {self.name} cannot be read, the store is damaged ({_reason(error)})."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open array."""
        return {**self.__dict__, "_array": None}

    def _open(self) -> Any:
        if self._array is None:
            self._array = _open(self.path)[self.name]
        return self._array


def _open(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise DataError(f"{path} is a Zarr store, and zarr is not installed: pip install ptychopinn[zarr].") from error
    try:
        return zarr.open_group(str(path), mode="r", use_consolidated=False)
    except Exception as error:  # zarr raises errors of many kinds on a damaged store
        raise DataError(
            f"{path} cannot be read as a Zarr group, it is damaged or not one ({_reason(error)})."
        ) from error


def _array(group: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(group[name][...])
    except Exception as error:  # codecs raise what they like
        raise DataError(f"{path}: {name} cannot be read, the store is damaged ({_reason(error)}).") from error


def _inspect(path: Path) -> None:
    """Judge a store by its metadata, before zarr sees it: plain files, plain codecs, plain numbers, true sizes."""
    budget = MemoryBudget(str(path), 0, LARGEST_EXPANSION)
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            full = os.path.join(folder, name)
            if os.path.islink(full):
                raise DataError(f"{path}: {name} is a link, which is refused in a Zarr store; copy what it points to.")
            if (name in files or name in _METADATA) and not is_regular(full):
                raise DataError(f"{path}: {name} is a folder, a pipe, a socket or a device, a file was expected.")
        for name in set(files) & set(_METADATA):
            content = _metadata(Path(folder) / name)
            unknown = sorted({shortened(codec) for codec in _codecs(content) if codec not in _CODECS})
            if unknown:
                raise DataError(
                    f"{path}: the codec {unknown[0]} is refused, since unpacking it may run code or is not known; "
                    f"known are {', '.join(sorted(_CODECS))}."
                )
            if "shape" in content:
                _check_claims(Path(folder), content, budget)


def _metadata(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path, _LARGEST_METADATA)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; the store is damaged.") from error
    return json_object(text, str(path))


def _codecs(content: dict[str, Any]) -> Iterator[str]:
    """Names of all codecs of an array, version 2 or 3, those inside shards too."""
    lists = [content.get(name) or [] for name in ("filters", "codecs")]
    if not all(isinstance(codecs, list) for codecs in lists):
        raise DataError("codecs are no list; the store is damaged.")
    plain = [content.get("compressor"), *lists[0]]
    yield from (str(codec.get("id")) for codec in plain if isinstance(codec, dict))
    for codec in lists[1]:
        name, inside = (codec.get("name"), codec.get("configuration")) if isinstance(codec, dict) else (codec, None)
        yield str(name).removeprefix("numcodecs.")
        if isinstance(inside, dict):
            for key in ("codecs", "index_codecs"):
                yield from _codecs({"codecs": inside.get(key)})


def _check_claims(folder: Path, content: dict[str, Any], budget: MemoryBudget) -> None:
    what = f"{folder.parent}: {shortened(folder.name)}"
    try:
        dtype = np.dtype(content.get("dtype") or content.get("data_type"))
        shape = [int(length) for length in content["shape"]]
        grid = content["chunks"] if "chunks" in content else content["chunk_grid"]["configuration"]["chunk_shape"]
        chunk = [int(length) for length in grid]
    except (TypeError, ValueError, LookupError, OverflowError, SyntaxError) as error:
        reason = shortened(str(error))
        raise DataError(f"{what} is not described as an array of numbers ({reason}); the store is damaged.") from error
    if dtype.hasobject or dtype.kind not in "biufc" or min((*shape, *chunk), default=0) < 0:
        raise DataError(f"{what} holds {shortened(str(dtype))}, numbers are expected.")
    if len(shape) != len(chunk) or len(shape) > _AXIS_LIMIT or min(chunk, default=1) < 1:
        raise DataError(
            f"{what} has a shape of {len(shape)} axes and chunks of {shortened(str(chunk))}, at most {_AXIS_LIMIT} "
            "axes and as many lengths of at least 1 are expected; the store is damaged."
        )
    size = claimed_bytes(shape, dtype)
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in _METADATA)
    check_chunk(what, claimed_bytes(chunk, dtype), stored)
    check_expansion(what, size, stored)
    if folder.name != "patterns":
        budget.stored += stored
        budget.take(size)


def _reason(error: BaseException) -> str:
    """What an error of zarr says, in one line."""
    return shortened(" ".join(str(error).split()) or type(error).__name__)
