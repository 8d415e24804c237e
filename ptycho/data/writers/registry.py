"""Which writer writes which format, and the one function that saves a scan in any of them."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Protocol

from ptycho.data.scan import Scan
from ptycho.errors import DataError
from ptycho.files import appears_whole, require_target


class Writer(Protocol):
    """What a writer of one format provides.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> from ptycho.data import available_writers
    >>> "cxi" in available_writers()
    True
    """

    name: str
    """Name of the format, the same as its reader's."""

    description: str
    """One line that says what is written."""

    extensions: tuple[str, ...]
    """Endings of file names for which this format is chosen; none where it has to be named."""

    def lost(self, scan: Scan) -> list[str]:
        """What of this scan a program that knows the format, but not this library, will not see; one sentence each."""

    def write(self, scan: Scan, path: Path) -> None:
        """Write the scan to a path that does not exist yet, as a file or a folder.

        Raises
        ------
        DataError
            If the scan lacks what the format cannot do without.
        OSError
            If it cannot be written; the caller takes away what there is.
        """


def available_writers() -> dict[str, Writer]:
    """All installed writers by the name of their format."""
    writers = (entry.load()() for entry in sorted(entry_points(group="ptycho.writers"), key=lambda e: e.name))
    return {writer.name: writer for writer in writers}


def writer_for(path: str | PathLike[str], format: str | None = None) -> Writer:
    """The writer of a format, or of the format that a file's name ends like.

    Parameters
    ----------
    path
        Path of the file to be written.
    format
        Name of the format; None decides by the ending.

    Raises
    ------
    DataError
        If there is no such format, or none for this ending.
    """
    writers = available_writers()
    if format is not None:
        if format not in writers:
            raise DataError(f"format: {format!r} given, one of {', '.join(sorted(writers))} expected.")
        return writers[format]
    name = Path(path).name.lower()
    fitting = {ending: writer for writer in writers.values() for ending in writer.extensions if name.endswith(ending)}
    if fitting:
        return fitting[max(fitting, key=len)]
    endings = ", ".join(f"{ending} ({writer.name})" for writer in writers.values() for ending in writer.extensions)
    raise DataError(f"{path} does not say by its ending in which format to write; known are {endings}, or name one.")


def save_scan(
    scan: Scan, path: str | PathLike[str], *, format: str | None = None, overwrite: bool = False
) -> list[str]:
    """Write a scan in any format for which a writer is installed; it appears whole or not at all.

    Parameters
    ----------
    scan
        The scan to be written.
    path
        Path of the file (of the folder, for Zarr).
    format
        Name of the format; None decides by the ending of the name. See `available_writers`.
    overwrite
        Replace a regular file that is there, or a folder if this library wrote it.

    Returns
    -------
    What other programs will not see of the scan, one sentence each; see `Writer.lost`.

    Raises
    ------
    DataError
        If the format is unknown, or the scan lacks what it cannot do without.
    OutputError
        If the file exists and may not be replaced, or cannot be written; nothing half-written is left.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> lost = ptycho.save_scan(scan.replace(pixel_size=1e-8, wavelength=1e-10, distance=1.0), "scan.cxi")
    >>> len(ptycho.load_scan("scan.cxi"))
    40
    """
    writer = writer_for(path, format)
    with appears_whole(path, overwrite=overwrite, replaces=getattr(writer, "replaces", None)) as partial:
        writer.write(scan, partial)
    return writer.lost(scan)


def require_writable(path: str | PathLike[str], writer: Writer, *, overwrite: bool = False) -> None:
    """Refuse a path at which a scan must not be written, before anything is read.

    Raises
    ------
    OutputError
        If something is in the way.
    """
    require_target(Path(path), overwrite=overwrite, replaces=getattr(writer, "replaces", None))
