"""What earlier work in a folder means for work that is to write its results there, and when it is no longer needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptycho.config import TrainingConfig
from ptycho.data import Scan
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import BUNDLE_NAME, load_bundle
from ptycho.model.checkpoints import Checkpoints, same_training
from ptycho.workflows.results import Reconstruction, load_reconstruction
from ptycho.workflows.train import is_of_this_training

__all__ = ["check_saved", "is_finished", "may_replace"]

_CHECKED = ("object", "weight", "positions", "probe")


def is_finished(scan: Scan, config: TrainingConfig, results: Sequence[str]) -> bool:
    """Whether a folder holds all results of this very training, so that nothing is left to resume.

    Parameters
    ----------
    scan : what is learned from.
    config : the training; its ``output_dir`` is the folder.
    results : names of the files that come of it.
    """
    files = [Path(config.output_dir) / name for name in results]
    bundle = Path(config.output_dir) / BUNDLE_NAME
    # what was reconstructed with an earlier bundle is older than the bundle
    if not bundle.is_file() or any(not f.is_file() or f.stat().st_mtime < bundle.stat().st_mtime for f in files):
        return False
    try:
        same = same_training(load_bundle(bundle).config, config)
    except DataError:
        return False
    return same and is_of_this_training(scan, config, config.output_dir)


def may_replace(scan: Scan, config: TrainingConfig, results: Sequence[str], resume: bool, force: bool) -> bool:
    """Whether a training may replace the results in its folder, which it may if told so or if it goes on there.

    Parameters
    ----------
    scan, config, results : as in :func:`is_finished`.
    resume : go on with a training that was broken off.
    force : start anew.

    Raises
    ------
    ConfigError
        Both are asked for.
    OutputError
        Neither is, and this very training was broken off in the folder.
    """
    if resume and force:
        raise ConfigError("resume: --resume goes on with a training and --force starts it anew; give one of the two.")
    if force or not Checkpoints(config.output_dir, config).found():
        return force
    folder = Path(config.output_dir)
    unfinished = not all((folder / name).exists() for name in results)  # the bundle is saved before the reconstruction
    if not resume and unfinished and is_of_this_training(scan, config, folder):
        raise OutputError(f"{folder} holds this training, broken off: go on with --resume, or start anew with --force.")
    return resume


def check_saved(result: Reconstruction, folder: str | Path) -> None:
    """Read a saved reconstruction back, before what it was made from is removed.

    Parameters
    ----------
    result : what was saved.
    folder : where.

    Raises
    ------
    OutputError
        The file does not hold the object, the probe and the positions of the result.
    """
    try:
        found = load_reconstruction(folder)
        same = all(np.array_equal(getattr(found, name), getattr(result, name), True) for name in _CHECKED)
    except DataError as error:
        raise OutputError(f"The result in {folder} cannot be read back: {error}") from error
    if not same:
        raise OutputError(f"The result in {folder} does not read back as it was written: check the disk.")
