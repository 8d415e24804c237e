"""Files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ptycho.errors import OutputError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing, and rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path
        Path of the file in the end; its directory must exist.
    overwrite
        Replace a file that is there already.

    Yields
    ------
    The stream to write to.

    Raises
    ------
    OutputError
        If the file exists and may not be replaced, or cannot be written (no such directory, no permission,
        disk full); what `path` held before is untouched and nothing is left beside it.
    """
    target = Path(path)
    if not overwrite and target.exists():
        raise OutputError(f"{target} exists already; choose another name or allow it to be overwritten.")
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}; nothing was left behind.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
