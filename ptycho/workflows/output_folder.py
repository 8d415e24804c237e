"""The folder that a command writes to: made, found writable, and free of earlier results before any work is done."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ptycho.config.processes import is_first_process
from ptycho.errors import DataError, OutputError
from ptycho.files import (
    RECORD,
    adopt,
    in_the_way,
    only_writer,
    recorded,
    remove_leftovers,
    require_record,
    require_unlocked,
    written_whole,
)
from ptycho.model.bundle import is_bundle
from ptycho.model.checkpoints import CHECKPOINT_FILES, is_label

RESULT_FILES = (
    "reconstruction.h5",
    "reconstruction.npz",
    "amplitude.tif",
    "phase.tif",
    "amplitude.png",
    "phase.png",
    "complex.png",
    "probe.png",
    "report.html",
)
"""What :func:`ptycho.workflows.results.save_reconstruction` writes."""
ENGINE_STATE = "engine-state.npz"
"""The file in the result's folder from which a killed run of an engine goes on."""
TRAINING_LOGS = (*(f"checkpoints/{name}" for name in CHECKPOINT_FILES), "logs/metrics.csv")
"""What a training writes while it goes on."""
TRAINING_FILES = ("wts.h5.zip", "config.yaml", *TRAINING_LOGS)
"""What a training writes."""


@contextlib.contextmanager
def output_folder(
    folder: str | Path, results: Iterable[str], force: bool = False, renewed: Iterable[str] = ()
) -> Iterator[Path]:
    """Make a folder for results and lock it; remove it again if the work fails before anything is in it.

    Of the processes of one run only the first checks and locks: the others share its folder.

    Parameters
    ----------
    folder
        Made with its parents if it does not exist.
    results, force, renewed
        As for :func:`require_free`.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    OutputError
        One of the results is in the way, another run is writing there, or nothing can be written there.
    """
    path, results, renewed = Path(folder), tuple(results), tuple(renewed)
    if not is_first_process():
        yield path
        return
    require_free(path, results, force, renewed)
    with made_folder(path), only_writer(path, inside=True):
        require_free(path, results, force, renewed, locked=True)  # another run may have ended meanwhile
        for place in {path / Path(name).parent for name in results}:
            remove_leftovers(place)
        if force:
            adopt_earlier(path)
        yield path


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make a folder, found writable; it is removed again if the work fails before anything is in it.

    Raises
    ------
    OutputError
        Nothing can be written there.
    """
    created = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise OutputError(f"The folder {path} cannot be written to: {error.strerror}.") from error
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if path in created and os.listdir(path) == [RECORD]:  # a record of files that were never written
                (path / RECORD).unlink()
        for parent in created:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def require_free(
    folder: str | Path,
    results: Iterable[str],
    force: bool = False,
    renewed: Iterable[str] = (),
    *,
    locked: bool = False,
) -> None:
    """Refuse a folder in which a result must not be written, before any work is done.

    Parameters
    ----------
    folder
        For the results; it need not exist.
    results
        Names of the files that will be written there, with those in folders inside it.
    force
        Let files be replaced that this library wrote: those that a record lists, and results of earlier versions.
    renewed
        Names among the results that are replaced without ``force`` where this library wrote them.
    locked
        The caller has locked the folder, or writes without a lock.

    Raises
    ------
    OutputError
        Something is in the way, or another run is writing there. The message names it.
    """
    path, renewed = Path(folder), set(renewed)
    if not is_first_process():
        return
    if path.is_symlink() and force and any(os.path.lexists(path / name) for name in results):
        raise OutputError(
            f"{path} is a symbolic link to {os.readlink(path)}, and nothing is replaced behind it: name that folder."
        )
    earlier: set[Path] | None = None
    for name in results:
        for inner in list(Path(name).parents)[:-1]:
            _require_folder(path / inner)
        target = path / name
        require_record(target.parent)
        if not os.path.lexists(target):
            continue
        allowed = force or (name in renewed and recorded(target))
        reason = in_the_way(target, overwrite=allowed, own=True)
        if reason is not None and (allowed or name in renewed) and not target.is_symlink() and target.is_file():
            earlier = earlier_results(path) if earlier is None else earlier
            reason = None if target in earlier else reason
        if reason is not None:
            raise OutputError(f"{target} {_advice(path, name, reason)}")
    if not locked and path.is_dir():
        require_unlocked(path, inside=True)


def _advice(folder: Path, name: str, reason: str) -> str:
    if reason.startswith("exists already"):
        resume = "resume its training with --resume, " if name.startswith("checkpoints/") else ""
        return f"exists already: {resume}choose another --out, or replace it with --force."
    return reason


def _require_folder(path: Path) -> None:
    """Refuse what is in the way of a folder inside an output folder."""
    if path.is_symlink():
        raise OutputError(f"{path} is a symbolic link, which is not followed; move it away, or choose another --out.")
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError(f"{path} is not a folder; move it away, or choose another --out.")


def earlier_results(folder: Path) -> set[Path]:
    """Files of versions that kept no record, by a result, a bundle or a label that opens as this library's."""
    found: set[Path] = set()
    for evidence, opens, names in _EVIDENCE:
        path = folder / evidence
        linked = path.parent.is_symlink() or path.is_symlink()
        if not linked and path.is_file() and not recorded(path) and opens(path):
            found |= {folder / name for name in names}
    return found


def adopt_earlier(folder: Path) -> None:
    """List the results of earlier versions in the records of their folders, so that they may be replaced."""
    if not is_first_process():
        return
    by_folder: dict[Path, list[str]] = {}
    for path in earlier_results(folder):
        if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
            by_folder.setdefault(path.parent, []).append(path.name)
    for place, names in by_folder.items():
        adopt(place, names)


def _is_reconstruction(path: Path) -> bool:
    from ptycho.data.readers.hdf5 import Hdf5File
    from ptycho.workflows.result_files import FORMAT

    try:
        with Hdf5File(path) as h5:
            return bool(h5.attribute("/", "format") == FORMAT)
    except (DataError, OSError):
        return False


def _is_engine_state(path: Path) -> bool:
    from ptycho.engines.state import is_state

    return is_state(path)


_EVIDENCE: tuple[tuple[str, Callable[[Path], bool], tuple[str, ...]], ...] = (
    ("reconstruction.h5", _is_reconstruction, (*RESULT_FILES, ENGINE_STATE)),
    (ENGINE_STATE, _is_engine_state, (ENGINE_STATE,)),
    ("network/reconstruction.h5", _is_reconstruction, tuple(f"network/{name}" for name in RESULT_FILES)),
    ("wts.h5.zip", is_bundle, ("wts.h5.zip", "config.yaml")),
    ("checkpoints/training.json", is_label, (*TRAINING_LOGS, "config.yaml")),
)


def write_json(values: dict[str, Any], path: str | Path, *, overwrite: bool = False) -> None:
    """Write plain values as an indented JSON file, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_bytes((json.dumps(values, indent=2, sort_keys=True) + "\n").encode(), path, overwrite=overwrite)


def write_bytes(content: bytes, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with written_whole(path, overwrite=overwrite) as stream:
        stream.write(content)
