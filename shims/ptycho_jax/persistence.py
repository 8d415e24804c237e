"""What a training in JAX leaves: the bundle's native member, checkpoints and logs; no pickle in any of them."""

from __future__ import annotations

import csv
import os
import socket
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from ptycho.errors import BackendError

__all__ = ["Logs", "native_members", "save_checkpoint"]


def native_members(params: dict[str, np.ndarray]) -> dict[str, bytes]:
    """``model.jax.safetensors``: the parameters by path, which ``flax`` and ``optax`` take as they are."""
    return {"model.jax.safetensors": save(_contiguous(params), metadata={"framework": f"jax {jax.__version__}"})}


def save_checkpoint(path: Path, params: dict[str, np.ndarray], state: Any, epoch: int) -> None:
    """Write all that a training needs to go on, beside its place, and rename it there.

    Parameters
    ----------
    path : the file.
    params : host arrays by name.
    state : the optimiser's; its arrays are written as ``optimiser/<path in the state>``.
    epoch : finished epochs.
    """
    arrays = dict(params)
    for where, values in jax.tree_util.tree_flatten_with_path(state)[0]:
        arrays["optimiser/" + jax.tree_util.keystr(where, simple=True, separator="/")] = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(save(_contiguous(arrays), metadata={"epoch": str(epoch)}))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Logs:
    """``logs/metrics.csv`` and, if asked, ``tensorboard/events...``, one entry an epoch.

    Parameters
    ----------
    folder : for both; None keeps none.
    tensorboard : write its events too.

    Raises
    ------
    BackendError
        TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path | None, tensorboard: bool) -> None:
        self.folder = folder
        self._events: Path | None = None
        if folder is not None and tensorboard:
            _tensorboard()
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
            self._events = folder / "tensorboard" / name

    def write(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Add an epoch, counted from 1, that ended with optimiser step ``step``."""
        if self.folder is None:
            return
        table = self.folder / "logs" / "metrics.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        row = {"epoch": epoch, "step": step, **metrics}
        with table.open("w" if epoch == 1 else "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if epoch == 1:
                writer.writeheader()
            writer.writerow(row)
        if self._events is not None:
            self._write_events(self._events, step, metrics, first=epoch == 1)

    def _write_events(self, path: Path, step: int, metrics: dict[str, float], first: bool) -> None:
        record_writer, event, summary = _tensorboard()
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        with path.open("ab") as file:
            writer = record_writer(file)
            if first:
                writer.write(event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            entry = event(wall_time=time.time(), step=step, summary=summary(value=values))
            writer.write(entry.SerializeToString())


def _tensorboard() -> tuple[Any, Any, Any]:
    """TensorBoard's record writer and its messages, which need no TensorFlow."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise BackendError(
            f"tensorboard: its log was asked for and the package could not be imported ({error}); install it with: "
            "pip install ptychopinn[jax]"
        ) from error
    return RecordWriter, Event, Summary


def _contiguous(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values, order="C") for name, values in arrays.items()}
