"""Which reader takes which file, and the one function that loads a scan from any of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from ptycho.data.readers.npz import NpzArchive
from ptycho.data.scan import Scan, scan_fields
from ptycho.errors import DataError


class ScanFile:
    """A file that may hold a scan; what is found out about it is found out once, for all readers.

    Parameters
    ----------
    path
        Path of the file.

    Raises
    ------
    DataError
        If there is no such file, or it may not be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise DataError(f"{self.path} is a directory, a scan file was expected.")
        try:
            with self.path.open("rb") as stream:
                self.head = stream.read(16)
        except FileNotFoundError as error:
            raise DataError(f"{self.path} does not exist; give the path of a scan file.") from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    @cached_property
    def npz(self) -> NpzArchive | None:
        """The file as an NPZ archive (possibly bz2-compressed); None if it is not one.

        Raises
        ------
        DataError
            If it is named or begins like one, but is broken.
        """
        if self.path.name.endswith((".npz", ".npz.bz2")) or self.head.startswith(b"PK\x03\x04"):
            return NpzArchive(self.path)
        return None


class Reader(Protocol):
    """What a reader of one format provides."""

    name: str
    """Name of the format, for `load_scan(format=...)` and messages."""

    description: str
    """One line that says by what the format is recognised."""

    options: frozenset[str]
    """Names that `read` understands in `given`, beside the fields of a `Scan`."""

    def accepts(self, file: ScanFile) -> bool:
        """Whether the file is of this format, judged by its beginning or its keys."""

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Scan` that the file holds.

        Parameters
        ----------
        file
            The file to be read.
        given
            Fields and options that the caller states; fields win over the file's afterwards, and are passed so
            that a question which they answer is not asked.
        """


def available_readers() -> dict[str, Reader]:
    """All installed readers by the name of their format."""
    readers = (entry.load()() for entry in sorted(entry_points(group="ptycho.readers"), key=lambda e: e.name))
    return {reader.name: reader for reader in readers}


def load_scan(path: str | PathLike[str], *, format: str | None = None, **given: Any) -> Scan:
    """Load a scan from a file of any format for which a reader is installed.

    Parameters
    ----------
    path
        Path of the file.
    format
        Name of the format, where the file alone does not decide; see `available_readers`.
    **given
        Fields of the `Scan` that replace what the file says or fill in what it leaves out (`measurement`,
        `wavelength`, `mask`, ...), and options of the reader.

    Returns
    -------
    The validated scan, named after the file unless the file names it.

    Raises
    ------
    DataError
        If the file cannot be read, no reader knows it, or what it holds is not a valid scan.
    """
    file = ScanFile(path)
    reader = _choose(file, format)
    unknown = sorted(set(given) - {*scan_fields(), *reader.options})
    if unknown:
        known = ", ".join((*scan_fields(), *sorted(reader.options)))
        raise DataError(f"load_scan: unknown option {', '.join(unknown)}; for {reader.name} there are {known}.")
    found = reader.read(file, given)
    found.setdefault("name", file.path.name.split(".")[0])
    fields = {**found, **{name: value for name, value in given.items() if name not in reader.options}}
    try:
        return Scan(**fields)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from error


def _choose(file: ScanFile, format: str | None) -> Reader:
    readers = available_readers()
    if format is not None:
        if format not in readers:
            raise DataError(f"format: {format!r} given, one of {', '.join(sorted(readers))} expected.")
        return readers[format]
    for reader in readers.values():
        if reader.accepts(file):
            return reader
    keys = f" with the arrays {', '.join(sorted(file.npz.keys())) or '(none)'}" if file.npz else ""
    known = (
        "; ".join(f"{reader.name}: {reader.description}" for reader in readers.values()) or "none: reinstall ptychopinn"
    )
    raise DataError(f"{file.path}{keys} is of no format that can be read; known are {known}.")
