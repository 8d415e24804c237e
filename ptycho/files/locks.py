"""Locks that keep two runs apart, and the hidden folders in which files are written before they get their name.

Everything here is named ``.ptychopinn...``. A hidden folder holds a file ``lock``, which its process has locked as long
as it lives: a folder whose lock is free was left by a process that was killed, and the next one removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho.errors import OutputError

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["hidden_folder", "only_writer", "remove_leftovers", "require_unlocked"]

logger = logging.getLogger(__name__)

_MARK = b"ptychopinn "
"""What a lock file begins with; a file of that name without it belongs to another program."""
_OF_A_FOLDER = ".ptychopinn.lock"
_HIDDEN = re.compile(r"\.ptychopinn-[0-9a-f]{8}(\.lock)?")
SET_ASIDE = "earlier-target"
"""Folder in a hidden one that holds what is about to be replaced, where a system cannot swap two names at once."""
_TRIES = 5
_SETTLE_SECONDS = 0.05
"""Between two removals of what a failed write left: Zarr's threads end within some milliseconds."""
"""A new hidden folder may be taken for a leftover until its lock is held; another one is made then."""


@contextlib.contextmanager
def only_writer(path: Path, *, inside: bool) -> Iterator[None]:
    """Keep a file, or the contents of a folder, for this run while the block lasts.

    Where the file system does not support locks a warning says so, and the work goes on.

    Parameters
    ----------
    path : a folder that exists, or a target whose folder exists.
    inside : files are written in the folder; else the target is written as a whole.

    Raises
    ------
    OutputError
        Another run is writing there, or the lock's name is used by another program.
    """
    name = _lock_of(path, inside)
    lock = _acquired(name, path)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                name.unlink()  # while it is held: who waits for it notices, and makes a new one
            lock.release()


def require_unlocked(path: Path, *, inside: bool) -> None:
    """Refuse a file or a folder that a run is writing at this moment; arguments as for :func:`only_writer`.

    Raises
    ------
    OutputError
        Another run is writing there.
    """
    name = _lock_of(path, inside)
    if os.path.lexists(name):
        lock = _acquired(name, path)
        if lock is not None:
            lock.release()


def _lock_of(path: Path, inside: bool) -> Path:
    if inside:
        return path / _OF_A_FOLDER
    return path.with_name(f".ptychopinn-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}.lock")


def _acquired(name: Path, path: Path) -> FileLock | None:
    """The lock of that name, held; None where the file system has no locks."""
    from filelock import Timeout

    if not _is_lock(name):
        raise OutputError(f"{name} is not a lock of ptychopinn: move it away, or choose another --out.")
    try:
        lock = _held(name)
    except Timeout as error:
        raise OutputError(
            f"{path} is being written by another run ({_holder(name)}): wait for its end, or choose another --out."
        ) from error
    except PermissionError as error:
        raise OutputError(f"{path} cannot be written to: {error.strerror}.") from error
    except OSError as error:
        logger.warning("%s cannot be locked (%s): do not start a second run with this --out.", path, error.strerror)
        return None
    return lock


def _held(name: Path) -> FileLock:
    """A lock that is held and marked.

    Raises
    ------
    Timeout, OSError
        It is another process's, or there are no locks.
    """
    from filelock import FileLock

    # A lock that only consists of a file's existence would outlive a killed run
    lock = FileLock(name, timeout=0, fallback_to_soft=False, thread_local=False)
    lock.acquire()
    with contextlib.suppress(OSError):
        name.write_bytes(_MARK + f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _is_lock(name: Path) -> bool:
    """Whether a file may be taken for a lock: there is none, or it is empty or marked."""
    if not os.path.lexists(name):
        return True
    if name.is_symlink() or not name.is_file():
        return False
    with contextlib.suppress(OSError), name.open("rb") as stream:
        return stream.read(len(_MARK)) in (b"", _MARK)
    return False


def _holder(name: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        words = name.read_bytes()[len(_MARK) : len(_MARK) + 200].decode().strip()
        if words.isprintable() and words:
            return words
    return "its lock is held"


@contextlib.contextmanager
def hidden_folder(folder: Path) -> Iterator[Path]:
    """Make a hidden folder in a folder, removed when the block ends; those of killed processes are removed first.

    Raises
    ------
    OSError
        Nothing can be written there.
    """
    remove_leftovers(folder)
    hidden, lock = _new_hidden(folder)
    try:
        yield hidden
    except BaseException:
        # threads of Zarr that still write when one of them has failed make the folders of their chunks again
        for _ in range(_TRIES):
            shutil.rmtree(hidden, ignore_errors=True)
            time.sleep(_SETTLE_SECONDS)
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if lock is not None:
            lock.release()


def _new_hidden(folder: Path) -> tuple[Path, FileLock | None]:
    from filelock import Timeout

    for _ in range(_TRIES):
        hidden = folder / f".ptychopinn-{secrets.token_hex(4)}"
        hidden.mkdir()
        try:
            lock = _held(hidden / "lock")
        except (FileNotFoundError, Timeout):  # removed as a leftover before its lock was held
            continue
        except OSError:
            (hidden / "lock").unlink(missing_ok=True)
            return hidden, None  # there are no locks here, so that nobody removes it either
        if (hidden / "lock").is_file():
            return hidden, lock
        lock.release()
    raise OutputError(f"{folder} cannot be written to: hidden folders disappear from it.")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this library left in a folder: what is marked and whose lock is free."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _HIDDEN.fullmatch(entry.name) and not entry.is_symlink()]
        for path in found:
            _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    from filelock import Timeout

    if path.suffix == ".lock":
        name = path
    elif path.is_dir():
        name = path / "lock"
        if not name.exists():
            with contextlib.suppress(OSError):
                path.rmdir()  # empty, or not ours
            return
        if name.stat().st_size == 0 and len(os.listdir(path)) > 1:
            return
    else:
        return
    if not name.is_file() or not _is_lock(name):
        return
    with contextlib.suppress(OSError, Timeout):
        lock = _held(name)
        try:
            if path != name:
                _restore(path)
                shutil.rmtree(path, ignore_errors=True)
            name.unlink(missing_ok=True)
        finally:
            lock.release()


def _restore(hidden: Path) -> None:
    """Give back what a killed process had moved away to replace it."""
    for earlier in (hidden / SET_ASIDE).glob("*"):
        target = hidden.with_name(earlier.name)
        if not os.path.lexists(target):
            earlier.rename(target)
