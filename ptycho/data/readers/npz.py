"""NPZ archives read without pickle, member by member, and memory-mapped where they are large."""

from __future__ import annotations

import bz2
import contextlib
import io
import logging
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.regular_files import IrregularFileError, open_regular
from ptycho.data.readers.limits import (
    LARGEST_EXPANSION,
    MemoryBudget,
    check_directory,
    check_expansion,
    check_fits_memory,
    check_member,
    claimed_bytes,
    readable,
    shortened,
)
from ptycho.errors import DataError

logger = logging.getLogger(__name__)

MAP_FROM_BYTES = 2**28
"""Arrays that are stored uncompressed and at least so large are mapped, not read."""

_PIECE_BYTES = 2**24
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # unknown compression, encryption
    struct.error,
    OverflowError,
    SyntaxError,  # how numpy reports some damaged headers
    tokenize.TokenError,
)


@dataclass(frozen=True)
class Member:
    """One array of an archive: its shape and dtype, and where it is stored."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    header_bytes: int


class NpzArchive:
    """The arrays of a `.npz` or `.npz.bz2` file.

    Parameters
    ----------
    path
        Path of the file.
    most
        Times that its arrays may grow when they are unpacked, all together.

    Raises
    ------
    DataError
        If the file is not a complete NPZ archive, or has two arrays of one name.
    """

    def __init__(self, path: Path, most: int = LARGEST_EXPANSION) -> None:
        self.path = path
        self._members: dict[str, Member] = {}
        try:
            self._unpacked = _unpack_bz2(path)
            with self._open() as archive:
                check_directory(str(path), archive)
                self._check_total(archive, most)
                for info in archive.infolist():
                    check_member(str(path), info)
                    archive.open(info).close()  # compares both places where a name stands: a damaged one is told
                    if info.filename.endswith(".npy"):
                        if info.filename[:-4] in self._members:
                            raise DataError(
                                f"{path} has two arrays {shortened(info.filename[:-4])!r}; save it again with one."
                            )
                        self._members[info.filename[:-4]] = _read_header(archive, info)
        except DataError:
            raise
        except IrregularFileError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        except _BROKEN as error:
            raise DataError(f"{path} cannot be read as an NPZ file, it is truncated or not one: {error}.") from error

    def __contains__(self, key: str) -> bool:
        """Whether there is an array of that name."""
        return key in self._members

    def keys(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def members(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of every array, read from the headers alone."""
        return {key: (member.shape, member.dtype) for key, member in self._members.items()}

    def array(self, key: str, mapped: bool = False) -> NDArray[Any]:
        """One array; if ``mapped``, a read-only memory map where it is stored uncompressed and larger than 256 MiB.

        A map is to be read by :mod:`ptycho.data.mapped`: touching a part that the file lost ends the process.

        A compressed one is unpacked into memory once, and a large one is warned of.

        Raises
        ------
        DataError
            If it is missing, broken, or an array of Python objects (which would have to be unpickled).
        """
        if key not in self._members:
            raise DataError(f"{self.path} lacks the array {key!r}; it holds {', '.join(sorted(self._members))}.")
        member = self._members[key]
        if member.dtype.hasobject:
            raise DataError(
                f"{self.path}: {key!r} is an array of Python objects, which is refused because reading it can run "
                "code; save it as an array of numbers."
            )
        what = f"{self.path}: {key!r}"
        try:
            if mapped and self._mappable(member):
                return self._map(member)
            check_fits_memory(what, member.info.file_size)
            check_expansion(what, member.info.file_size, member.info.compress_size)
            if member.info.file_size >= MAP_FROM_BYTES and member.info.compress_type != zipfile.ZIP_STORED:
                logger.warning(
                    "%s is stored compressed, so all of its %s are unpacked into memory; 'ptycho convert' to .h5 makes "
                    "a file that is read piece by piece.",
                    what,
                    readable(member.info.file_size),
                )
            with self._open() as archive, archive.open(member.info) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except DataError:
            raise
        except _BROKEN as error:
            raise DataError(f"{what} cannot be read, the file is damaged: {error}.") from error

    def optional(self, key: str) -> NDArray[Any] | None:
        """One array, or None if it is missing or a pickled scalar (as numpy writes None), which stays unread."""
        if key not in self._members or (self._members[key].dtype.hasobject and self._members[key].shape == ()):
            return None
        return self.array(key)

    def is_pickled_scalar(self, key: str) -> bool:
        """Whether `optional` leaves the array unread because it is a single pickled object."""
        return key in self._members and self._members[key].dtype.hasobject and self._members[key].shape == ()

    @contextlib.contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        source = open_regular(self.path) if self._unpacked is None else io.BytesIO(self._unpacked)
        with source, zipfile.ZipFile(source) as archive:
            yield archive

    def _check_total(self, archive: zipfile.ZipFile, most: int) -> None:
        """Refuse an archive whose compressed members are a bomb together; what is not compressed takes its own room."""
        packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        stored = min(sum(info.compress_size for info in packed), self.path.stat().st_size)
        MemoryBudget(str(self.path), stored, most).take(sum(info.file_size for info in packed))

    def _mappable(self, member: Member) -> bool:
        stored = member.info.compress_type == zipfile.ZIP_STORED and self._unpacked is None
        return stored and member.info.file_size >= MAP_FROM_BYTES

    def _map(self, member: Member) -> NDArray[Any]:
        with self.path.open("rb") as stream:
            stream.seek(member.info.header_offset)
            local = stream.read(30)
        name_bytes, extra_bytes = struct.unpack("<HH", local[26:30])
        offset = member.info.header_offset + 30 + name_bytes + extra_bytes + member.header_bytes
        order: Any = "F" if member.fortran_order else "C"
        return np.memmap(self.path, member.dtype, "r", offset, member.shape, order)


def _unpack_bz2(path: Path) -> bytes | None:
    """The contents of a bz2 file, unpacked piece by piece so that a bomb is noticed before it fills the memory."""
    with open_regular(path) as stream:
        if stream.read(3) != b"BZh":
            return None
        stream.seek(0)
        packed, pieces, size = stream.read(), [], 0
    while packed.startswith(b"BZh"):  # anything else behind a stream is padding
        unpacker = bz2.BZ2Decompressor()
        feed = packed
        while not unpacker.eof:
            piece = unpacker.decompress(feed, _PIECE_BYTES)
            if not piece and unpacker.needs_input and not unpacker.eof:
                raise EOFError("the compressed stream ends too early")
            feed, size = b"", size + len(piece)
            check_expansion(str(path), size, path.stat().st_size)
            check_fits_memory(str(path), size)
            pieces.append(piece)
        packed = unpacker.unused_data
    return b"".join(pieces)


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"{info.filename} is of NPY version {version}")
        member = Member(info, tuple(shape), fortran_order, dtype, stream.tell())
    claimed = claimed_bytes(member.shape, dtype)
    if not dtype.hasobject and claimed != info.file_size - member.header_bytes:
        raise ValueError(
            f"{info.filename} claims {readable(claimed)} and holds {readable(info.file_size - member.header_bytes)}"
        )
    return member
