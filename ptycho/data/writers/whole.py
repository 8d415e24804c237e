"""Files and folders that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ptycho.errors import OutputError, PtychoError

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


@contextlib.contextmanager
def appears_whole(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A hidden path beside `path` to write a file or a folder to, renamed to it when the block ends without an error.

    Parameters
    ----------
    path
        Path in the end; its folder must exist.
    overwrite
        Replace what is there already.

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
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target} exists already; choose another name or allow it to be overwritten.")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: there is no folder {target.parent}; make it first.")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        _to_disk(partial)
        _replace(partial, target)
    except PtychoError:
        raise
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise OutputError(f"{target} cannot be written: {reason}; nothing was left behind.") from error
    finally:
        _remove(partial)


def _to_disk(path: Path) -> None:
    """Make the system write out what it holds back, so that a power cut after the rename finds the contents."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())


def _replace(partial: Path, target: Path) -> None:
    """Put the new in the place of the old, in one step where the system can swap a folder with what is there."""
    if (not target.is_dir() or target.is_symlink()) and (not partial.is_dir() or not os.path.lexists(target)):
        partial.replace(target)
        return
    if _swapped(partial, target):  # the old is the partial one now, which the caller takes away
        return
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    target.rename(aside)
    try:
        partial.rename(target)
    except OSError:
        aside.rename(target)
        raise
    _remove(aside)


def _swapped(one: Path, other: Path) -> bool:
    """Swap two names at once, as Linux can; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
