"""The folder that a command writes to: made, found writable, and free of earlier results before any work is done."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ptycho.data.atomic import written_whole
from ptycho.errors import OutputError


@contextlib.contextmanager
def output_folder(folder: str | Path, results: Iterable[str], force: bool = False) -> Iterator[Path]:
    """Make a folder for results; take it away again if the work fails before anything is in it.

    Parameters
    ----------
    folder
        Made with its parents if it does not exist.
    results
        Names of the files that will be written there.
    force
        Let earlier results be replaced.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    OutputError
        One of the results is there already, or nothing can be written there.
    """
    path = Path(folder)
    if not force:
        require_free(path, results)
    created = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise OutputError(f"The folder {path} cannot be written to: {error.strerror}.") from error
        yield path
    except BaseException:
        for parent in created:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def require_free(folder: str | Path, results: Iterable[str]) -> None:
    """Refuse a folder that holds earlier results, where much is done before it is made.

    Raises
    ------
    OutputError
        One of the results is there already.
    """
    for path in (Path(folder) / name for name in results):
        if os.path.lexists(path):
            raise OutputError(f"{path} exists already: choose another --out, or replace it with --force.")


def write_json(values: dict[str, Any], path: str | Path) -> None:
    """Write plain values as an indented JSON file, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_bytes((json.dumps(values, indent=2, sort_keys=True) + "\n").encode(), path)


def write_bytes(content: bytes, path: str | Path) -> None:
    """Write a file whole or not at all, replacing an earlier one.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with written_whole(path) as stream:
        stream.write(content)
