"""Names in an HDF5 file and in the files it links to, followed link by link and only into folders that are trusted.

HDF5 would open whatever file an external link, a virtual dataset or raw external storage names, by rules that depend on
the working directory and the environment. So it is never left to: links are resolved to real paths here, and only files
that lie in a trusted folder are opened.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ptycho.config.regular_files import is_regular, open_regular
from ptycho.data.readers.hdf5_heap import check_heaps
from ptycho.data.readers.limits import shortened
from ptycho.errors import DataError

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, SystemError)
"""What h5py raises on a file that is damaged, truncated, or needs a filter that is not there."""

DATA_DIRS_VARIABLE = "PTYCHO_DATA_DIRS"
_LONGEST_CHAIN = 16
_OPEN_SOURCE_LIMIT = 64
"""Source files of virtual datasets that are open at once; there may be more of them than a process may open."""


class MissingError(DataError):
    """A linked file or dataset is not there."""


@dataclass(frozen=True)
class Trust:
    """Folders in which linked files are read.

    Parameters
    ----------
    home
        Real path of the folder of the file that the user named.
    data_dirs
        Real paths of the folders that the user trusts beside it; raw data are read from these alone.
    """

    home: Path
    data_dirs: tuple[Path, ...] = ()

    @classmethod
    def of(cls, path: Path, data_dirs: Sequence[str | os.PathLike[str]] = ()) -> Trust:
        """The trust in the folder of a file and in folders that are given or named by ``PTYCHO_DATA_DIRS``.

        Raises
        ------
        DataError
            A given folder does not exist.
        """
        for folder in data_dirs:
            if not os.path.isdir(folder):
                raise DataError(f"data_dirs: {folder} is not a folder; --data-dir takes the folder of linked files.")
        named = [name for name in os.environ.get(DATA_DIRS_VARIABLE, "").split(os.pathsep) if name]
        folders = (real_path(Path(folder)) for folder in (*data_dirs, *named))
        return cls(real_path(path).parent, tuple(dict.fromkeys(folders)))

    def covers(self, real: Path, *, raw: bool = False) -> bool:
        """Whether a file of this real path may be read."""
        folders = self.data_dirs if raw else (self.home, *self.data_dirs)
        return any(real.is_relative_to(folder) for folder in folders)

    def resolve(self, name: str, folder: Path, what: str, *, raw: bool = False) -> Path:
        """The real path of the file that a link names.

        A relative name counts from the folder of the file with the link. Where there is no such file, one of the same
        name in a folder of `data_dirs` is taken, but never one that merely lies beside the scan.

        Parameters
        ----------
        name
            As the link has it.
        folder
            Real path of the folder of the file with the link.
        what
            File and link, for messages.
        raw
            Whether it is a file of raw data.

        Raises
        ------
        DataError
            The file is not there, no regular file, or lies in no trusted folder.
        """
        real = real_path(folder / name)
        shown = shortened(name)
        if self.covers(real, raw=raw) and is_regular(real):
            return real
        if not os.path.lexists(real):
            for data_dir in self.data_dirs:
                moved = real_path(data_dir / Path(name).name)
                if self.covers(moved, raw=raw) and is_regular(moved):
                    logger.warning("%s links to %s, which does not exist; %s is read instead.", what, shown, moved)
                    return moved
        if not self.covers(real, raw=raw):
            kind = "to raw data in " if raw else "to "
            outside = "a folder that is not named as trusted" if raw else "outside the file's folder"
            raise DataError(
                f"{what} links {kind}{shown}, which is {outside} and is not followed; give --data-dir "
                f"{shortened(str(real.parent))} if you trust that folder, or the one where "
                f"{shortened(Path(name).name)} lies now."
            )
        if os.path.lexists(real):
            raise DataError(f"{what} links to {shown}, which is not a regular file.")
        raise MissingError(
            f"{what} links to {shown}, which is not there; put the file there, or name its folder with --data-dir."
        )


class Place(NamedTuple):
    """A dataset or group in a file: the file's real path and the full name, without links."""

    path: Path
    name: str


@dataclass
class Hdf5Tree:
    """Open HDF5 files that are linked with one another.

    Parameters
    ----------
    root
        Real path of the file where names begin.
    trust
        In which folders linked files are read.
    shown
        Name of the root for messages.
    """

    root: Path
    trust: Trust
    shown: str
    _linked: dict[Path, Any] = field(default_factory=dict)
    _sources: OrderedDict[Path, Any] = field(default_factory=OrderedDict)

    def close(self) -> None:
        """Close every file."""
        for file in (*self._linked.values(), *self._sources.values()):
            with contextlib.suppress(*UNREADABLE):
                file.close()
        self._linked.clear()
        self._sources.clear()

    def find(self, name: str) -> Any:
        """The h5py group or dataset of a name counted from the root; None if there is none.

        Raises
        ------
        DataError
            A link leads to a file that is not trusted or not there, or links go in circles.
        """
        return self._walk(self.file(self.root)["/"], name, 0)

    def source(self, place: Place) -> Any:
        """The h5py node of a name in a source file of a virtual dataset; None if there is none."""
        if place.path in self._linked:
            file = self._linked[place.path]
        else:
            if place.path not in self._sources:
                while len(self._sources) >= _OPEN_SOURCE_LIMIT:
                    self._sources.popitem(last=False)[1].close()
                self._sources[place.path] = _open(place.path, self.trust, self.root)
            self._sources.move_to_end(place.path)
            file = self._sources[place.path]
        return self._walk(file["/"], place.name, 0)

    def file(self, path: Path) -> Any:
        """The open file of a real path, kept open."""
        if path not in self._linked:
            self._linked[path] = _open(path, self.trust, self.root)
        return self._linked[path]

    def _walk(self, node: Any, name: str, hops: int) -> Any:
        """Follow a name from a group, link by link; HDF5 itself never follows one."""
        import h5py

        if hops > _LONGEST_CHAIN:
            raise DataError(f"{self.shown}: the links behind {shortened(name)} go in circles.")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for number, part in enumerate(parts):
            key = part.encode("utf-8", "surrogateescape")
            if not isinstance(node, h5py.Group) or not node.id.links.exists(key):
                return None
            kind = node.id.links.get_info(key).type
            rest = parts[number + 1 :]
            if kind == h5py.h5l.TYPE_SOFT:
                target = node.id.links.get_val(key).decode("utf-8", "surrogateescape")
                start = node.file["/"] if target.startswith("/") else node
                return self._walk(start, "/".join([target, *rest]), hops + 1)
            if kind == h5py.h5l.TYPE_EXTERNAL:
                named, inside = (os.fsdecode(value) for value in node.id.links.get_val(key))
                full = f"{node.name.rstrip('/')}/{part}"
                what = f"{self.shown}: {shortened(full)}"
                path = self.trust.resolve(named, folder_of(node), what)
                return self._walk(self.file(path)["/"], "/".join([inside, *rest]), hops + 1)
            if kind != h5py.h5l.TYPE_HARD:
                raise DataError(f"{self.shown}: {shortened(part)} is a link of a kind that is not read.")
            node = node[key]
        return node


def file_of(node: Any) -> Path:
    """The real path of the file of an open node."""
    return Path(os.fsdecode(node.file.filename))


def folder_of(node: Any) -> Path:
    """The folder of the file of an open node, as a real path."""
    return file_of(node).parent


def real_path(path: Path) -> Path:
    """A path without links.

    Raises
    ------
    DataError
        No file can have such a name.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{shortened(str(path))!r} is no name that a file can have.") from error


def _open(path: Path, trust: Trust, root: Path) -> Any:
    """Open the very file that was checked, not another one that has taken its name since."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the filters of compressed detector files

    if path != root and not trust.covers(real_path(path)):
        raise DataError(f"{path} has become a link out of the trusted folders and is not read.")
    with open_regular(path) as stream:
        checked = os.fstat(stream.fileno())
    check_heaps(path)
    file = h5py.File(path, "r", locking="best-effort")
    opened = os.fstat(file.id.get_vfd_handle())
    if (opened.st_dev, opened.st_ino) != (checked.st_dev, checked.st_ino):
        file.close()
        raise DataError(f"{path} was replaced while it was opened; read it again.")
    return file
