"""Open a file only if it is a regular one: reading a pipe or a device may block, or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class IrregularFileError(OSError):
    """A path leads to something else than a regular file; ``strerror`` says to what."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes, without waiting for a writer at the other end of a pipe.

    Parameters
    ----------
    path
        Of the file; links are followed.

    Raises
    ------
    IrregularFileError
        The path leads to a folder, a named pipe, a socket or a device.
    OSError
        There is no such file, or it may not be read.
    """
    try:
        _refuse_irregular(path, os.stat(path).st_mode)  # before opening: to open a device may act on it
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a null byte, or text that no file system can hold
        raise OSError(0, "no file can have this name", str(path)) from error
    try:
        _refuse_irregular(path, os.fstat(descriptor).st_mode)  # what stood there may have been replaced
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], at_most: int) -> bytes:
    """The bytes of a regular file.

    Parameters
    ----------
    path
        Of the file.
    at_most
        Bytes; a larger file is not read.

    Raises
    ------
    OSError
        As for :func:`open_regular`, or the file is larger.
    """
    with open_regular(path) as stream:
        content = stream.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(0, f"it is larger than {at_most} bytes", str(path))
    return content


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _refuse_irregular(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "no regular file")
        raise IrregularFileError(0, f"it is {kind}, a regular file was expected", str(Path(path)))
