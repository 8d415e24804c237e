"""A look at an HDF5 file's global heaps before HDF5 reads them.

Texts of variable length stand in heaps without a checksum; on a damaged one HDF5 may never return. So the chain of
objects in every heap is followed here first.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ptycho.errors import DataError

_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16
_LOOKED_AT = 2**26
_PIECE_BYTES = 2**20
_BUFFER_BYTES = 2**16
"""A heap has 4096 bytes unless a text is longer, so that most are read by one call."""


def check_heaps(path: Path) -> None:
    """Refuse a file with a global heap whose objects do not follow one another.

    Heaps are sought in the first and the last 64 MiB, where HDF5 puts what is no pattern.

    Raises
    ------
    DataError
        If a heap is damaged.
    OSError
        If the file cannot be read.
    """
    status = path.stat()
    _check(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _check(path: Path, size: int, changed: int) -> None:
    """Look once at every state of a file."""
    if size == 0:
        return
    with path.open("rb", buffering=_BUFFER_BYTES) as stream:  # no memory map: a file truncated meanwhile is no SIGBUS
        regions = [(0, size)] if size <= 2 * _LOOKED_AT else [(0, _LOOKED_AT), (size - _LOOKED_AT, size)]
        for start, stop in regions:
            if not all(_is_sound(stream, place, size) for place in _heaps(stream, start, stop)):
                raise DataError(f"{path} cannot be read as an HDF5 file, its texts are damaged.")


def _heaps(stream: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Where heaps begin between two places; pieces overlap, so that none is missed at a boundary."""
    overlap = len(_SIGNATURE) - 1
    while start + overlap < stop:
        stream.seek(start)
        piece = stream.read(min(_PIECE_BYTES, stop - start))
        found = piece.find(_SIGNATURE)
        while found >= 0:
            yield start + found
            found = piece.find(_SIGNATURE, found + 1)
        if len(piece) <= overlap:  # truncated since
            return
        start += len(piece) - overlap


def _is_sound(stream: BinaryIO, start: int, size: int) -> bool:
    """Whether a heap ends inside the file, and its objects, one after the other, inside the heap."""
    if start + _HEADER > size:
        return False
    header = _header(stream, start)
    if header is None:
        return False
    end = start + struct.unpack_from("<Q", header, 8)[0]
    if end > size:
        return False
    place = start + _HEADER
    while end - place >= _HEADER:
        header = _header(stream, place)
        if header is None:
            return False
        index, _, _, length = struct.unpack("<HHIQ", header)
        step = length if index == 0 else _HEADER + (length + 7) // 8 * 8
        if step < _HEADER:
            return False
        place += step
    return place <= end


def _header(stream: BinaryIO, place: int) -> bytes | None:
    """The header of a heap or of an object in it; None where the file has been truncated."""
    stream.seek(place)
    header = stream.read(_HEADER)
    return header if len(header) == _HEADER else None
