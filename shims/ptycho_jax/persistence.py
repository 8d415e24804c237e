"""What a training in JAX leaves: the bundle's native member, checkpoints and logs; no pickle in any of them."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ptycho.errors import BackendError
from ptycho.files import written_whole
from ptycho.model.training import TrainingPlan, damaged

__all__ = ["Logs", "load_checkpoint", "native_members", "save_checkpoint"]

Arrays = dict[str, np.ndarray]


def native_members(params: Arrays) -> dict[str, bytes]:
    """``model.jax.safetensors``: the parameters by path, which ``flax`` and ``optax`` take as they are."""
    return {"model.jax.safetensors": save(_contiguous(params), metadata={"framework": f"jax {jax.__version__}"})}


def save_checkpoint(path: Path, params: Arrays, state: Any, plan: str) -> None:
    """Write all that a training needs to go on, whole or not at all.

    Parameters
    ----------
    path : the file.
    params : host arrays by name.
    state : the optimiser's; its arrays are written as ``optimiser/<path in the state>``.
    plan : the rest, see :class:`ptycho.model.training.TrainingPlan`.
    """
    arrays = _contiguous({**params, **_named(state)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, overwrite=True, own=True) as stream:
        stream.write(save(arrays, metadata={"course": plan, "sha256": _digest(arrays, plan)}))


def load_checkpoint(path: Path, params: Arrays, state: Any) -> tuple[Arrays, Any, str]:
    """Read what :func:`save_checkpoint` wrote: parameters, state of the optimiser, plan.

    Parameters
    ----------
    path : the file.
    params, state : of this training as it starts, whose names, shapes and types are expected.

    Raises
    ------
    DataError
        The file is not there, damaged, or of another network.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise damaged(path, error) from error
    wanted = {**params, **_named(state)}
    if {k: (v.shape, v.dtype) for k, v in arrays.items()} != {k: (v.shape, v.dtype) for k, v in wanted.items()}:
        raise damaged(path, "its arrays are not those of this network")
    plan = told.get("course", "")
    if told.get("sha256") != _digest(arrays, plan):
        raise damaged(path, "it does not match its checksum")
    leaves = [arrays[name] for name in _named(state)]
    return {name: arrays[name] for name in params}, jax.tree.unflatten(jax.tree.structure(state), leaves), plan


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

    def write(self, plan: TrainingPlan) -> None:
        """Add the last epoch."""
        if self.folder is not None:
            plan.write_table(self.folder / "logs" / "metrics.csv")
        if self._events is not None:
            self._write_events(self._events, plan.step, plan.last())

    def _write_events(self, path: Path, step: int, metrics: dict[str, float]) -> None:
        record_writer, event, summary = _tensorboard()
        path.parent.mkdir(parents=True, exist_ok=True)
        first = not path.exists()
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


def _named(state: Any) -> Arrays:
    """The arrays of the optimiser's state by ``optimiser/`` and their path in it."""
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        "optimiser/" + jax.tree_util.keystr(where, simple=True, separator="/"): np.asarray(values)
        for where, values in found
    }


def _digest(arrays: Arrays, plan: str) -> str:
    digest = hashlib.sha256(plan.encode())
    for name, values in sorted(arrays.items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def _contiguous(arrays: Arrays) -> Arrays:
    return {name: np.asarray(values, order="C") for name, values in arrays.items()}
