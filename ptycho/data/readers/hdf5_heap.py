"""A look at an HDF5 file's global heaps before HDF5 reads them.

Texts of variable length stand in heaps without a checksum; on a damaged one HDF5 may never return. So the chain of
objects in every heap is followed here first.
"""

from __future__ import annotations

import functools
import mmap
import struct
from pathlib import Path

from ptycho.errors import DataError

_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16
_LOOKED_AT = 2**26


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
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        regions = [(0, size)] if size <= 2 * _LOOKED_AT else [(0, _LOOKED_AT), (size - _LOOKED_AT, size)]
        for start, stop in regions:
            place = content.find(_SIGNATURE, start, stop)
            while place >= 0:
                if not _is_sound(content, place, size):
                    raise DataError(f"{path} cannot be read as an HDF5 file, its texts are damaged.")
                place = content.find(_SIGNATURE, place + 1, stop)


def _is_sound(content: mmap.mmap, start: int, size: int) -> bool:
    """Whether a heap ends inside the file, and its objects, one after the other, inside the heap."""
    if start + _HEADER > size:
        return False
    end = start + struct.unpack_from("<Q", content, start + 8)[0]
    if end > size:
        return False
    place = start + _HEADER
    while end - place >= _HEADER:
        index, _, _, length = struct.unpack_from("<HHIQ", content, place)
        step = length if index == 0 else _HEADER + (length + 7) // 8 * 8
        if step < _HEADER:
            return False
        place += step
    return place <= end
