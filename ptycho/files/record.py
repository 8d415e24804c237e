"""The rule of what may be replaced: which files of a folder this library wrote, and what stands in the way of a file.

Without permission nothing that exists is changed. With it, a regular file that the user named is replaced, whoever
wrote it; in an output folder a file is replaced only if the folder's record lists it. A symbolic link is not followed
and not replaced, a folder is never replaced by a file. The record is ``.ptychopinn.json``::

    {"format": "ptychopinn folder", "version": 1,
     "files": ["reconstruction.h5", ...],          names in this folder that this library wrote
     "saving": {"reconstruction.h5": SHA-256}}     of the new files while a set of them is being moved here
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptycho.errors import OutputError

__all__ = [
    "RECORD",
    "adopt",
    "digest",
    "in_the_way",
    "mixture",
    "read_record",
    "recorded",
    "require_record",
    "require_replaceable",
    "write_record",
]

RECORD = ".ptychopinn.json"
_FORMAT = "ptychopinn folder"
_LARGEST = 2**20
"""Bytes; a record lists some tens of names."""


def recorded(path: Path) -> bool:
    """Whether the record of its folder lists a file, so that this library may replace or remove it."""
    return _is_regular(path) and path.name in read_record(path.parent)["files"]


def in_the_way(path: Path, *, overwrite: bool, own: bool) -> str | None:
    """What keeps a file from being written, as the end of a sentence that begins with its name; None if nothing does.

    Parameters
    ----------
    path : the file.
    overwrite : permission to replace it.
    own : it is a file of an output folder, which is replaced only if the record lists it; else the user named it.
    """
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return f"is a symbolic link to {os.readlink(path)}, which is not followed and not replaced; name the file."
    if path.is_dir():
        return "is a folder, and no file replaces a folder; choose another name."
    if not _is_regular(path):
        return "is not a regular file, and no other one is replaced; choose another name."
    if not overwrite:
        return "exists already; choose another name, or replace it with --force (in Python overwrite=True)."
    if own and not recorded(path):
        return "was not written by ptychopinn here, so it is not replaced; move it away, or choose another folder."
    return None


def require_replaceable(path: Path, *, overwrite: bool, own: bool) -> None:
    """Refuse to write a file that must not be replaced; arguments as for :func:`in_the_way`.

    Raises
    ------
    OutputError
        Something is in the way.
    """
    reason = in_the_way(path, overwrite=overwrite, own=own)
    if reason is not None:
        raise OutputError(f"{path} {reason}")
    if own:
        require_record(path.parent)


def require_record(folder: Path) -> None:
    """Refuse a folder in which another program's file has the name of the record.

    Raises
    ------
    OutputError
        It has.
    """
    if os.path.lexists(folder / RECORD) and not read_record(folder).get("format"):
        raise OutputError(f"{folder / RECORD} is not a record of ptychopinn; move it away, or choose another folder.")


def adopt(folder: Path, names: Iterable[str]) -> None:
    """List files in the record of their folder, which is where they are about to appear or are known to be ours.

    Raises
    ------
    OSError, OutputError
        The record cannot be written.
    """
    record = read_record(folder)
    if any(name not in record["files"] or name in record["saving"] for name in names):
        for name in names:
            record["saving"].pop(name, None)
        write_record(folder, [*record["files"], *names], record["saving"])


def write_record(folder: Path, files: Iterable[str], saving: dict[str, str]) -> None:
    """Write the record of a folder, whole or not at all.

    Raises
    ------
    OSError, OutputError
        It cannot be written, or another program's file has its name.
    """
    from ptycho.files.locks import hidden_folder

    require_replaceable(folder / "record", overwrite=True, own=True)
    content = {"format": _FORMAT, "version": 1, "files": sorted(set(files)), **({"saving": saving} if saving else {})}
    with hidden_folder(folder) as hidden:
        (hidden / "new").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(hidden / "new", folder / RECORD)


def mixture(folder: Path) -> str | None:
    """A sentence that names the files of a folder that do not belong together, since saving them was interrupted.

    None where all belong together, as far as the record says.
    """
    new, old = list[str](), list[str]()
    for name, sha256 in read_record(folder)["saving"].items():
        with contextlib.suppress(OSError):
            if _is_regular(folder / name):
                (new if digest(folder / name) == sha256 else old).append(name)
    if not (new and old):
        return None
    return (
        f"{folder}: the files do not belong together, since saving them was interrupted: {', '.join(new)} of the last "
        f"run, {', '.join(old)} of the one before; repeat the run with --force."
    )


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a folder, with names in this very folder alone; an empty one where there is none."""
    empty: dict[str, Any] = {"files": [], "saving": {}}
    path = folder / RECORD
    if not _is_regular(path):
        return empty
    try:
        if path.stat().st_size > _LARGEST:
            return empty
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return empty
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT or not isinstance(kept.get("files"), list):
        return empty
    saving = kept.get("saving")
    pairs = saving.items() if isinstance(saving, dict) else ()
    return {
        "format": _FORMAT,
        "files": [name for name in kept["files"] if _is_name(name)],
        "saving": {name: value for name, value in pairs if _is_name(name) and isinstance(value, str)},
    }


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..", RECORD) and not set(name) & {"/", os.sep, "\0"}
