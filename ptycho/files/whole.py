"""Files, folders and sets of files that appear under their names only when they are complete."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ptycho.errors import OutputError, PtychoError
from ptycho.files.locks import SET_ASIDE, hidden_folder
from ptycho.files.record import adopt, digest, read_record, require_replaceable, write_record

__all__ = ["appears_whole", "require_target", "saved_together", "written_whole"]

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool = False, own: bool = False) -> Iterator[IO[bytes]]:
    """Open a hidden file for writing, and rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path
        Path of the file in the end; its directory must exist.
    overwrite
        Replace a regular file that is there already.
    own
        The file belongs to an output folder: it is listed in the folder's record, and replaced only if it was.

    Yields
    ------
    The stream to write to.

    Raises
    ------
    OutputError
        If there is something that may not be replaced, or it cannot be written (no such directory, no permission,
        disk full); what `path` held before is untouched and nothing is left beside it.
    """
    target = Path(path)
    require_replaceable(target, overwrite=overwrite, own=own)
    try:
        with hidden_folder(target.parent) as hidden:
            with (hidden / "new").open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            require_replaceable(target, overwrite=overwrite, own=own)
            if own:
                adopt(target.parent, [target.name])
            (hidden / "new").replace(target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}; nothing was left behind.") from error


@contextlib.contextmanager
def appears_whole(
    path: str | os.PathLike[str], *, overwrite: bool = False, replaces: Callable[[Path], str | None] | None = None
) -> Iterator[Path]:
    """A hidden path to write a file or a folder to, renamed to `path` when the block ends without an error.

    Parameters
    ----------
    path
        Path in the end; its folder must exist.
    overwrite
        Replace a regular file that is there already.
    replaces
        For what is written as a folder: says of a folder that is there why it must not be replaced, or None if it may.

    Yields
    ------
    The path to write to; nothing is there.

    Raises
    ------
    OutputError
        If there is something that may not be replaced, or it cannot be written (no such folder, no permission, disk
        full); what was at `path` before is untouched and nothing is left beside it.
    """
    target = Path(path)
    require_target(target, overwrite=overwrite, replaces=replaces)
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}; make it first.")
    try:
        with hidden_folder(target.parent) as hidden:
            partial = hidden / "new"
            yield partial
            _to_disk(partial)
            require_target(target, overwrite=overwrite, replaces=replaces)
            _replace(partial, target, hidden)
    except PtychoError:
        raise
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OutputError(f"{target} cannot be written: {reason}; nothing was left behind.") from error


def require_target(target: Path, *, overwrite: bool, replaces: Callable[[Path], str | None] | None = None) -> None:
    """Refuse a target that must not be replaced; arguments as for :func:`appears_whole`.

    Raises
    ------
    OutputError
        Something is in the way.
    """
    if replaces is None or not target.is_dir() or target.is_symlink():
        require_replaceable(target, overwrite=overwrite, own=False)
    elif not overwrite:
        raise OutputError(
            f"{target} exists already; choose another name, or replace it with --force (in Python overwrite=True)."
        )
    elif (reason := replaces(target)) is not None:
        raise OutputError(f"{target} {reason}")


@contextlib.contextmanager
def saved_together(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A hidden folder to write a set of files to, which are moved into `folder` at the end, all or none.

    Each file is listed in the folder's record before it appears. Where a process is killed between two moves,
    :func:`ptycho.files.mixture` tells the files of the new set from those of the old one.

    Parameters
    ----------
    folder
        Made with its parents if it does not exist.
    overwrite
        Replace files of this set that the record lists.

    Yields
    ------
    The folder to write to.

    Raises
    ------
    OutputError
        A file must not be replaced, or cannot be written; the earlier files are untouched.
    """
    out = Path(folder)
    made = [parent for parent in (out, *out.parents) if not parent.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with hidden_folder(out) as hidden:
            stage, earlier = hidden / "set", hidden / "earlier"
            stage.mkdir()
            earlier.mkdir()
            yield stage
            _move_in(stage, earlier, out, overwrite)
    except BaseException as error:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            reason = error.strerror or str(error)
            raise OutputError(f"The result cannot be saved in {out}: {reason}; nothing was left behind.") from error
        raise


def _move_in(stage: Path, earlier: Path, out: Path, overwrite: bool) -> None:
    """Put the staged files in the place of earlier ones; if one of them fails, put everything back as it was.

    Under every name there is a whole file at any moment, the old one or the new one.
    """
    names = sorted(path.name for path in stage.iterdir())
    for name in names:
        require_replaceable(out / name, overwrite=overwrite, own=True)
    before, moved = read_record(out), list[str]()
    saving = {name: sha256 for name, sha256 in before["saving"].items() if name not in names}
    try:
        for name in names:
            _to_disk(stage / name)
            if os.path.lexists(out / name):
                _second_name(out / name, earlier / name)
        new = {name: digest(stage / name) for name in names}
        write_record(out, [*before["files"], *names], saving | new)
        for name in names:
            os.replace(stage / name, out / name)
            moved.append(name)
    except OSError:
        for name in moved:
            if os.path.lexists(earlier / name):
                os.replace(earlier / name, out / name)
            else:
                (out / name).unlink()
        with contextlib.suppress(OSError):
            write_record(out, before["files"], before["saving"])
        raise
    write_record(out, [*before["files"], *names], saving)


def _second_name(path: Path, name: Path) -> None:
    """Give a file another name beside its own, or a copy where the file system has no such names."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, name, follow_symlinks=False)


def _to_disk(path: Path) -> None:
    """Make the system write out what it holds back, so that a power cut after the rename finds the contents."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _replace(partial: Path, target: Path, hidden: Path) -> None:
    """Put the new in the place of the old, in one step where the system can swap a folder with what is there."""
    if not partial.is_dir() or not os.path.lexists(target):
        partial.replace(target)
        return
    if _swapped(partial, target):  # the old one is in the hidden folder now, and removed with it
        return
    (hidden / SET_ASIDE).mkdir()
    aside = hidden / SET_ASIDE / target.name  # from where the next run restores it if this one is killed here
    target.rename(aside)
    try:
        partial.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _swapped(one: Path, other: Path) -> bool:
    """Swap two names at once, as Linux can; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0
