"""Which reader takes which file, and the one function that loads a scan from any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from ptycho.config.regular_files import is_regular, open_regular
from ptycho.data.readers.assemble import GENERAL_OPTIONS, assemble
from ptycho.data.readers.hdf5 import Hdf5File, is_hdf5
from ptycho.data.readers.hdf5_tree import Trust, real_path
from ptycho.data.readers.npz import NpzArchive
from ptycho.data.readers.plausible import check_field
from ptycho.data.scan import Scan, scan_fields
from ptycho.errors import DataError, PtychoError


class ScanFile:
    """A file that may hold a scan; what is found out about it is found out once, for all readers.

    Parameters
    ----------
    path
        Path of the file.
    data_dirs
        Folders, beside the file's own, whose files may be linked to by an HDF5 file.

    Raises
    ------
    DataError
        If there is no such file, it is a pipe or a device, or it may not be read.
    """

    def __init__(self, path: str | PathLike[str], data_dirs: Sequence[str | PathLike[str]] = ()) -> None:
        self.path, self.data_dirs = Path(path), tuple(data_dirs)
        self.head = b""
        if self.path.is_dir():
            if not self.is_zarr:
                raise DataError(f"{self.path} is a directory, a scan file was expected.")
            return
        try:
            with open_regular(self.path) as stream:
                self.head = stream.read(16)
        except FileNotFoundError as error:
            raise DataError(f"{self.path} does not exist; give the path of a scan file.") from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    def hdf5(self, path: str | PathLike[str] | None = None) -> Hdf5File:
        """The file as HDF5, for a ``with`` block; what it links to is read from the folders that are trusted.

        Parameters
        ----------
        path
            Another file that the user named, whose own folder is then trusted.
        """
        return Hdf5File(self.path if path is None else Path(path), self.data_dirs)

    def companion(self, path: Path) -> Hdf5File:
        """An HDF5 file that belongs to this one by its name alone.

        Raises
        ------
        DataError
            It is a link out of this file's folder and of `data_dirs`.
        """
        real = real_path(path)
        if not real.is_relative_to(real_path(self.path.parent)) and not Trust.of(self.path, self.data_dirs).covers(
            real
        ):
            raise DataError(
                f"{path} belongs to {self.path.name}, but is a link out of its folder and is not followed; "
                f"--data-dir {real.parent} trusts the files in that folder."
            )
        return Hdf5File(path, self.data_dirs)

    @property
    def stem(self) -> str:
        """The name of the file up to its first dot."""
        return self.path.name.split(".")[0]

    @cached_property
    def is_zarr(self) -> bool:
        """Whether it is a folder that says it holds a Zarr group."""
        return self.path.is_dir() and any(is_regular(self.path / name) for name in ("zarr.json", ".zgroup"))

    @cached_property
    def is_hdf5(self) -> bool:
        """Whether it begins like an HDF5 file, MATLAB's version 7.3 included."""
        return is_hdf5(self.path)

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
    """What a reader of one format provides.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> from ptycho.data import available_readers
    >>> "ptychopinn-npz" in available_readers()
    True
    """

    name: str
    """Name of the format, for `load_scan(format=...)` and messages."""

    description: str
    """One line that says by what the format is recognised."""

    options: frozenset[str]
    """Names that `read` understands in `given`, beside the fields of a `Scan`."""

    def accepts(self, file: ScanFile) -> bool:
        """Whether the file is of this format, judged by its beginning or its keys."""

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Scan` that the file holds, or what `ptycho.data.readers.assemble` makes them from.

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
        `wavelength`, `mask`, ...), options of the reader, and of every reader: `fftshift` (the zero frequency is
        stored at [0, 0]), `beam_centre` (row, col) around which the frames are cut to a square, and `orientation`, one
        of `ptycho.data.orientation.ORIENTATIONS`, in which the positions are turned; and `data_dirs`, folders whose
        files an HDF5 file may link to, beside its own folder and those in the environment variable
        ``PTYCHO_DATA_DIRS``.

    Returns
    -------
    The validated scan, named after the file unless the file names it.

    Raises
    ------
    DataError
        If the file cannot be read, no reader knows it, or what it holds is not a valid scan.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.save_npz(scan, "scan.npz")
    >>> ptycho.load_scan("scan.npz").fingerprint() == scan.fingerprint()
    True
    """
    return check_field(read_scan(path, format=format, **given))


def read_scan(path: str | PathLike[str], *, format: str | None = None, **given: Any) -> Scan:
    """The scan of a file as :func:`load_scan` takes it, before :func:`ptycho.data.readers.plausible.check_field`.

    For callers that keep a part of the field; arguments and errors are those of :func:`load_scan`.
    """
    file = ScanFile(path, _folders(given.get("data_dirs")))
    reader = _choose(file, format)
    unknown = sorted(set(given) - {*scan_fields(), *reader.options, *GENERAL_OPTIONS})
    if unknown:
        known = ", ".join((*scan_fields(), *sorted({*reader.options, *GENERAL_OPTIONS})))
        raise DataError(f"load_scan: unknown option {', '.join(unknown)}; for {reader.name} there are {known}.")
    found = _read(reader, file, given)
    if found.get("name") is None:
        found["name"] = file.stem
    fields = {**found, **{name: value for name, value in given.items() if name in scan_fields()}}
    try:
        return Scan(**fields)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from error


def _read(reader: Reader, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a reader finds; a file that confuses it is told as such, whoever wrote the reader."""
    try:
        return assemble(reader.read(file, given), given, str(file.path))
    except PtychoError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{file.path} does not hold what a file of the format {reader.name} does ({reason}); it is damaged, or of "
            "another format."
        ) from error


def _folders(given: Any) -> tuple[str | PathLike[str], ...]:
    """The folders given as `data_dirs`, a single one too."""
    if given is None:
        return ()
    folders = (given,) if isinstance(given, str | PathLike) else tuple(given)
    for folder in folders:
        if not isinstance(folder, str | PathLike):
            raise DataError(f"data_dirs: {folder!r} given, paths of folders expected.")
        if not Path(folder).is_dir():
            raise DataError(f"data_dirs: {folder} is not a folder; --data-dir takes the folder of linked files.")
    return folders


def _choose(file: ScanFile, format: str | None) -> Reader:
    readers = available_readers()
    if format is not None:
        if format not in readers:
            raise DataError(f"format: {format!r} given, one of {', '.join(sorted(readers))} expected.")
        return readers[format]
    for reader in readers.values():
        if reader.accepts(file):
            return reader
    if file.head.startswith(b"MATLAB 5.0"):
        raise DataError(f"{file.path} is a MATLAB file of an older version; save it with -v7.3, which is HDF5.")
    keys = f" with the arrays {', '.join(sorted(file.npz.keys())) or '(none)'}" if file.npz else ""
    if file.is_hdf5:
        with file.hdf5() as h5:
            keys = f" with {', '.join(h5.names()) or 'nothing'} in it"
    known = ", ".join(readers) or "none: reinstall ptychopinn"
    raise DataError(f"{file.path}{keys} is of no format that can be read; known are {known}.")
