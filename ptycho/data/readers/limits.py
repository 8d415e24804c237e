"""What a file may claim: how much is read at once, and how far a compressed array may expand.

A few bytes can claim an array of any size, by its header or by compression. Whatever is read whole is measured against
the machine's memory first, and whatever expands far more than detector data do is refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import posixpath
import stat
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError

LARGEST_CHUNK = 2**30
"""Bytes of one compressed piece of an array; it is unpacked whole, however little of it is wanted."""

_SUSPICIOUS_FROM = 2**30
_LARGEST_EXPANSION = 500
_MEMORY_IF_UNKNOWN = 2**36
_COUNTED_ELSEWHERE = 2**16 - 1
"""What the end of a zip archive of more than 65534 members says."""


def claimed_bytes(shape: Sequence[int], dtype: Any) -> int:
    """Bytes that an array of this shape and dtype takes, in whole numbers, so that nothing overflows."""
    return math.prod(int(length) for length in shape) * np.dtype(dtype).itemsize


def check_fits_memory(what: str, size: int) -> None:
    """Refuse to read more at once than the machine has memory.

    Parameters
    ----------
    what
        File and array, for the message.
    size
        Bytes that are about to be read.

    Raises
    ------
    DataError
        If they are more than the memory.
    """
    memory = physical_memory()
    if size > memory:
        raise DataError(
            f"{what} claims {readable(size)}, but this machine has {readable(memory)} of memory; "
            "the file is damaged, or needs a larger machine."
        )


def check_expansion(what: str, size: int, stored: int) -> None:
    """Refuse what looks like a decompression bomb.

    Parameters
    ----------
    what
        File and array, for the message.
    size, stored
        Bytes after and before unpacking.

    Raises
    ------
    DataError
        If it is more than 1 GiB and more than 500 times what is stored; diffraction data expand far less.
    """
    if size > _SUSPICIOUS_FROM and size > _LARGEST_EXPANSION * stored:
        raise DataError(
            f"{what} claims to hold {readable(size)} in {readable(stored)} of the file, which is refused: diffraction "
            f"data are never compressed more than {_LARGEST_EXPANSION} times."
        )


def check_chunk(what: str, size: int) -> None:
    """Refuse an array that is stored in pieces too large to unpack.

    Raises
    ------
    DataError
        If a piece is larger than 1 GiB.
    """
    if size > LARGEST_CHUNK:
        raise DataError(
            f"{what} is stored in pieces of {readable(size)}, at most {readable(LARGEST_CHUNK)} are read; "
            "store it with one pattern per piece."
        )


def check_member(what: str, info: zipfile.ZipInfo) -> None:
    """Refuse a member of a zip archive that is no plain file inside it.

    Parameters
    ----------
    what
        The archive, for the message.
    info
        What its directory says of the member.

    Raises
    ------
    DataError
        If the name is absolute, leaves the archive or is no plain name, or the member is a link or encrypted.
    """
    name, plain = info.filename, posixpath.normpath(info.filename.rstrip("/"))
    member = f"{what}: the member {name!r}"
    leaves = not name or name.startswith("/") or plain.split("/")[0] in (".", "..")
    if leaves or plain != name.rstrip("/") or info.orig_filename != name or set(name) & set("\\:"):
        raise DataError(f"{member} has a name that leaves the archive or is no plain one; the file is refused.")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{member} is a link or a device, which is refused; plain files are expected.")
    if info.flag_bits & 0x1:
        raise DataError(f"{member} is encrypted, which is not read; save the archive without a password.")


def check_directory(what: str, archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose end counts other members than its directory shows.

    A damaged length in the directory makes one member's entry swallow the next ones, which would be left out silently.

    Raises
    ------
    DataError
        If the numbers differ.
    """
    if archive.fp is None:
        return
    archive.fp.seek(-22 - len(archive.comment), os.SEEK_END)
    (count,) = struct.unpack_from("<H", archive.fp.read(22), 10)
    found = len(archive.infolist())
    if count not in (found, _COUNTED_ELSEWHERE):
        raise DataError(f"{what} says it has {count} members and shows {found}; the file is damaged.")


def physical_memory() -> int:
    """Bytes of memory that the machine has; 64 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _MEMORY_IF_UNKNOWN


def peak_memory() -> int:
    """Bytes of memory that this process has held at most; 0 where the system does not say."""
    with contextlib.suppress(OSError, LookupError, ValueError):  # Linux; its getrusage counts what the parent held
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def readable(size: int) -> str:
    """Bytes as a person writes them, e.g. ``3.2 GB``."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
