"""What a file may claim: how much is read at once, and how far a compressed array may expand.

A few bytes can claim an array of any size, by its header or by compression. Whatever is read whole is measured against
the machine's memory first, and whatever expands far more than detector data do is refused.
"""

from __future__ import annotations

import contextlib
import json
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

_SUSPICIOUS_FROM = 2**28
"""Bytes that any file may unpack to: with the copies that are made of them they stay below 1 GB."""
LARGEST_EXPANSION = 500
"""Times that patterns may grow; of 100 photons each they grow 250 times, and zeros 1000 times."""
LARGEST_RESULT_EXPANSION = 50
"""Times that the results and models of this library may grow; noisy arrays hardly do."""
_LARGEST_EMPTY_CHUNK = 2**28
_DEEPEST_JSON = 64
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


def check_expansion(what: str, size: int, stored: int, most: int = LARGEST_EXPANSION) -> None:
    """Refuse what looks like a decompression bomb, by a bound that is the same on every machine.

    Parameters
    ----------
    what
        File and array, for the message.
    size, stored
        Bytes after and before unpacking.
    most
        Times that it may grow.

    Raises
    ------
    DataError
        If it is more than 256 MiB and more than `most` times what is stored; diffraction data expand far less.
    """
    if size > _SUSPICIOUS_FROM and size > most * stored:
        raise DataError(
            f"{what} claims to hold {readable(size)} in {readable(stored)} of the file, which is refused: such data "
            f"are never compressed more than {most} times."
        )


class MemoryBudget:
    """Bytes that are built from one file together, against what the file holds.

    All members of an archive, what is unpacked from archives inside it, and text that is built from them take from the
    same budget, so that many parts that are harmless alone are not harmless together.

    Parameters
    ----------
    what
        The file, for messages.
    stored
        Its bytes.
    most
        Times that it may grow, beyond 256 MiB.
    """

    def __init__(self, what: str, stored: int, most: int = LARGEST_RESULT_EXPANSION) -> None:
        self.what, self.stored, self.most = what, stored, most
        self.taken = 0

    def take(self, size: int) -> None:
        """Count bytes that are about to be built.

        Raises
        ------
        DataError
            All together are more than 256 MiB and more than `most` times the file, or more than the memory.
        """
        self.taken += size
        check_expansion(f"{self.what}: all of it together", self.taken, self.stored, self.most)
        check_fits_memory(self.what, self.taken)


def check_chunk(what: str, size: int, stored: int | None = None) -> None:
    """Refuse an array that is stored in pieces too large to unpack.

    Parameters
    ----------
    what
        File and array, for the message.
    size
        Bytes of a piece, unpacked.
    stored
        Bytes of all pieces as they are stored, if that is known.

    Raises
    ------
    DataError
        If a piece is larger than 1 GiB, or larger than 256 MiB and made of next to nothing.
    """
    empty = stored is not None and size > _LARGEST_EMPTY_CHUNK and size > LARGEST_EXPANSION * stored
    if size > LARGEST_CHUNK or empty:
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


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object in a file of data.

    Raises
    ------
    DataError
        It is no JSON, no object, or nested more than 64 deep.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else shortened(str(error))
        raise DataError(f"{what} is not JSON ({reason}); remove it or repair it.") from error
    if not isinstance(content, dict):
        raise DataError(f"{what} holds {type(content).__name__}, a JSON object expected; the file is damaged.")
    check_nesting(content, what)
    return content


def check_nesting(value: Any, what: str) -> None:
    """Refuse JSON that is nested more deeply than any description of a scan; code that walks it would run out of stack.

    Raises
    ------
    DataError
        It is nested more than 64 deep.
    """
    level = [value]
    for _ in range(_DEEPEST_JSON):
        level = [part for node in level for part in _parts(node)]
        if not level:
            return
    raise DataError(f"{what} is nested more than {_DEEPEST_JSON} deep; the file is damaged.")


def _parts(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


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


def shortened(name: str) -> str:
    """A name for a message: a hostile file has names of any length."""
    return name if len(name) <= 200 else f"{name[:100]}...{name[-60:]}"


def readable(size: int) -> str:
    """Bytes as a person writes them, e.g. ``3.2 GB``."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
