"""Untrusted zip archives, read in memory: nothing is unpacked to disk, and every header is checked first."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Self

from ptycho.config.regular_files import IrregularFileError, open_regular
from ptycho.data.readers.limits import MemoryBudget, check_directory, check_member, readable
from ptycho.errors import DataError

__all__ = ["SafeArchive", "check_growth", "parse_json"]

MEMBER_LIMIT = 10_000
"""Far more than the few files of a model; each costs memory before anything is read."""
LARGEST_MEMBER = 4 << 30
LARGEST_EXPANSION = 200
"""Times that a member may grow when it is unpacked; trained weights hardly grow at all."""
UNPACKED_BYTES = 64 << 20
"""Bytes that all members together may grow to in any case: masks and zero biases of small models compress well."""
GROWTH_TOGETHER = 4
"""Times their size in the file that larger ones may grow to; neither bound depends on the machine."""
_SUSPICIOUS_FROM = 64 << 20
_DEEPEST_JSON = 30
# zipfile raises NotImplementedError and RuntimeError (unknown compression, encryption) on damaged headers
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    OverflowError,
)


class SafeArchive:
    """The members of a zip archive, within a ``with`` block; each is read whole and against its CRC.

    Parameters
    ----------
    source
        Path of the file, or the bytes of an archive that lay inside another.
    what
        Name for messages; default the path.

    Raises
    ------
    DataError
        It is no complete zip archive; two members have one name; a name is absolute, leaves the archive or is no plain
        name; a member is a link, is encrypted, or grows suspiciously when it is unpacked.
    """

    def __init__(self, source: str | Path | bytes, what: str = "") -> None:
        self.what = what or str(source)
        with contextlib.ExitStack() as files:  # closed where the archive is refused
            self._files = files
            self._read_directory(source)
            self._files = files.pop_all()

    def _read_directory(self, source: str | Path | bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else self._opened(source))
            self._members: dict[str, zipfile.ZipInfo] = {}
            self._unpacked = self._packed = 0
            check_directory(self.what, self._zip)
            for info in self._zip.infolist():
                self._admit(info)
            self._check_total(len(source) if isinstance(source, bytes) else Path(source).stat().st_size)
        except DataError:
            raise
        except _UNREADABLE as error:
            raise DataError(
                f"{self.what}: not a readable bundle or archive ({_reason(error)}); was the file cut short?"
            ) from error

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._zip.close()
        self._files.close()

    def _opened(self, path: str | Path) -> BinaryIO:
        try:
            return self._files.enter_context(open_regular(path))
        except IrregularFileError as error:
            raise DataError(f"{self.what} cannot be read: {error.strerror}.") from error

    def __contains__(self, name: str) -> bool:
        """Whether there is a member of that name."""
        return name in self._members

    def names(self) -> list[str]:
        """Names of the members, folders left out, in the archive's order."""
        return list(self._members)

    def sizes(self) -> dict[str, int]:
        """Unpacked bytes of every member."""
        return {name: info.file_size for name, info in self._members.items()}

    def read(self, name: str) -> bytes:
        """A member's bytes.

        Raises
        ------
        DataError
            It is missing or damaged.
        """
        if name not in self._members:
            raise DataError(f"{self.what}: there is no {name} in the archive; it is incomplete or something else.")
        try:
            return self._zip.read(self._members[name])
        except _UNREADABLE as error:
            raise DataError(
                f"{self.what}: {name} cannot be read, the file is damaged or cut short ({_reason(error)})."
            ) from error

    def _admit(self, info: zipfile.ZipInfo) -> None:
        check_member(self.what, info)
        name, what = info.filename, f"{self.what}: the member {info.filename!r}"
        if name in self._members or len(self._members) >= MEMBER_LIMIT:
            raise DataError(f"{what} is there twice or one of too many; the file is damaged or no model archive.")
        self._check_size(info, what)
        if not info.is_dir():
            self._members[name] = info

    def _check_total(self, stored: int) -> None:
        """Refuse members that are harmless alone and a bomb together."""
        MemoryBudget(self.what, stored).take(sum(self.sizes().values()))

    def _check_size(self, info: zipfile.ZipInfo, what: str) -> None:
        size = info.file_size
        bomb = size > _SUSPICIOUS_FROM and size > LARGEST_EXPANSION * info.compress_size
        if size > LARGEST_MEMBER or bomb:
            raise DataError(
                f"{what} claims to hold {readable(size)} in {readable(info.compress_size)} of the file, which is "
                f"refused: a model's files are below {readable(LARGEST_MEMBER)} and hardly compressed."
            )
        self._unpacked += size
        self._packed += info.compress_size
        check_growth(self.what, self._unpacked, self._packed)


def check_growth(what: str, unpacked: int, packed: int) -> None:
    """Refuse a file whose parts together take far more memory than a model's weights of its size.

    Parameters
    ----------
    what
        The file, for the message.
    unpacked, packed
        Bytes of all parts in memory and in the file.

    Raises
    ------
    DataError
        If they are more than 64 MiB and four times what the file holds, whatever memory the machine has.
    """
    if unpacked > UNPACKED_BYTES + GROWTH_TOGETHER * packed:
        raise DataError(
            f"{what} claims to hold {readable(unpacked)} in {readable(packed)} of the file, which is refused: the "
            "weights of a model hardly shrink when they are compressed."
        )


def parse_json(data: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object from bytes of a file.

    Raises
    ------
    DataError
        It is no JSON, or no object, or nested deeper than anything that this library writes.
    """
    try:
        value = json.loads(data)
        if _deeper_than(_DEEPEST_JSON, value):
            raise ValueError(f"it is nested more than {_DEEPEST_JSON} deep")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is no JSON ({_reason(error)}); the file is damaged.") from error
    if not isinstance(value, dict):
        raise DataError(f"{what} holds {type(value).__name__}, a JSON object expected; the file is damaged.")
    return value


def _deeper_than(levels: int, value: Any) -> bool:
    """Whether objects and lists lie deeper in one another; what reads the value later may then recurse into it."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, item) for item in inner)


def _reason(error: BaseException) -> str:
    return str(error).strip("'\"").split("\n")[0] or type(error).__name__
