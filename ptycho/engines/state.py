"""What an iterative reconstruction knows at one moment, and how it is kept between two sessions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config.deprecated import former_names
from ptycho.data.readers.limits import LARGEST_RESULT_EXPANSION
from ptycho.data.readers.npz import NpzArchive
from ptycho.engines.opr import probes_of
from ptycho.errors import DataError
from ptycho.files import written_whole
from ptycho.physics.propagation import intensity
from ptycho.physics.reassembly import summed_window

__all__ = ["State", "is_state", "load_state", "save_state"]

_FORMAT = "ptychopinn-engine-state"
_OPTIONAL = ("components", "weights")
_NOTED = ("epoch", "history", "spacing", "propagation", "interpolation")
_AUXILIARY = ("auxiliary/", "memory/")
"""What the names of the auxiliary arrays begin with in a file; version 0.1 wrote the second."""


@former_names({"memory": "auxiliary", "shift": "interpolation"})
@dataclass(eq=False)
class State:
    """Object, probe and positions after some epochs; arrays of the host.

    Attributes
    ----------
    object : (H, W) complex, dimensionless; (S, H, W) of more than one slice, in the order in which the beam meets them.
    origin : (row, col), position of ``object[0, 0]``, pixels.
    probe : (P, N, N) complex modes, sqrt(photons) of the scan.
    positions : (M, 2) float64, (row, col) of the patch centres, pixels.
    nominal : (M, 2) float64, the positions before any correction.
    epoch : epochs done.
    history : one value per epoch by name: ``r_factor``, ``seconds``, ...
    components : (V, N, N) complex, sqrt(photons), by which the first mode varies from pattern to pattern, or None.
    weights : (M, 1 + V) complex, brightness and components of every pattern, or None where all are lit alike.
    spacing : metres from one slice to the next, or None where there is one.
    propagation, interpolation : how the engine came to the detector and read the object; see ``EngineSettings``.
    auxiliary : what the engine carries from epoch to epoch beside this (moments, waves), by name.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> state = ptycho.solve(scan, ptycho.EngineConfig(epochs=1))
    >>> state = ptycho.solve(scan, ptycho.EngineConfig(epochs=2), state)
    >>> state.epoch
    2
    """

    object: np.ndarray
    origin: tuple[float, float]
    probe: np.ndarray
    positions: np.ndarray
    nominal: np.ndarray
    epoch: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    auxiliary: dict[str, np.ndarray] = field(default_factory=dict)
    components: np.ndarray | None = None
    weights: np.ndarray | None = None
    spacing: float | None = None
    propagation: str = "far"
    interpolation: str = "bilinear"

    def __repr__(self) -> str:
        """One line: sizes, epochs and R-factor, without the arrays."""
        size = "x".join(str(n) for n in self.object.shape)
        last = self.history.get("r_factor", [])
        error = f", R-factor {last[-1]:.4g}" if last else ""
        return (
            f"State(object of {size}, {len(self.positions)} positions, {self.probe.shape[0]} probe mode(s), "
            f"{self.epoch} epochs{error})"
        )

    @property
    def projection(self) -> np.ndarray:
        """(H, W) complex, the product of all slices: the object as it were if it was thin."""
        return self.object if self.object.ndim == 2 else np.prod(self.object, axis=0)

    @property
    def weight(self) -> np.ndarray:
        """(H, W) float32, the probe's intensity summed over all positions: how well each pixel is lit."""
        power = np.sum(intensity(self.probe), axis=0)
        dose = summed_window(power, self.positions - np.asarray(self.origin), self.object.shape[-2:])
        return dose.astype(np.float32)

    @property
    def shifts(self) -> np.ndarray:
        """(M, 2) pixels, what the correction moved the positions by."""
        return self.positions - self.nominal

    def probes(self, index: np.ndarray | slice) -> np.ndarray:
        """The probes of some patterns: (P, N, N) where all are lit alike, else (k, P, N, N)."""
        if self.components is None or self.weights is None:
            return self.probe
        return probes_of(self.probe, self.components, self.weights[index])

    def copy(self) -> State:
        """A state of its own, which further epochs do not change."""
        fresh = {name: getattr(self, name).copy() for name in ("object", "probe", "positions", "nominal")}
        history = {name: list(values) for name, values in self.history.items()}
        return dataclasses.replace(self, **fresh, history=history, auxiliary=dict(self.auxiliary))


def save_state(state: State, path: str | Path, label: str = "") -> None:
    """Write a state as NPZ, whole or not at all, without a pickle.

    Parameters
    ----------
    state : what to keep.
    path : of the file; an earlier one is replaced.
    label : of the run it belongs to; :func:`load_state` refuses another.

    Raises
    ------
    OutputError
        The file cannot be written; an earlier one is left as it was.
    """
    note = {"format": _FORMAT, "label": label} | {name: getattr(state, name) for name in _NOTED}
    arrays = {name: getattr(state, name) for name in ("object", "probe", "positions", "nominal")}
    arrays |= {name: getattr(state, name) for name in _OPTIONAL if getattr(state, name) is not None}
    arrays["origin"] = np.asarray(state.origin, dtype=np.float64)
    arrays |= {f"auxiliary/{name}": values for name, values in state.auxiliary.items()}
    with written_whole(path, overwrite=True) as stream:
        np.savez(stream, note=np.asarray(json.dumps(note)), **arrays)


def load_state(path: str | Path, label: str = "") -> State:
    """Read a state back.

    Raises
    ------
    DataError
        The file is not a whole state, or belongs to another run.
    """
    try:
        archive = NpzArchive(Path(path), LARGEST_RESULT_EXPANSION)
        arrays: dict[str, Any] = {name: archive.array(name) for name in archive.members()}
        note = json.loads(str(arrays.pop("note")))
        if note["format"] != _FORMAT:
            raise ValueError(note["format"])
        note.setdefault("interpolation", note.pop("shift", None))
        auxiliary = {name.partition("/")[2]: arrays.pop(name) for name in list(arrays) if name.startswith(_AUXILIARY)}
        row, col = (float(value) for value in arrays.pop("origin"))
        arrays |= {name: note[name] for name in _NOTED} | {"epoch": int(note["epoch"])}
        state = State(origin=(row, col), auxiliary=auxiliary, **arrays)
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path} is not a state that can be resumed ({error}): take that file away, or use --force, to start anew."
        ) from error
    if note["label"] != label:
        raise DataError(
            f"{path} belongs to a run with another scan or other settings: take that file away, or use --force, "
            "to start anew."
        )
    return state


def is_state(path: Path) -> bool:
    """Whether a file is a state of this library, of whatever run."""
    try:
        note = json.loads(str(NpzArchive(path, LARGEST_RESULT_EXPANSION).array("note")))
    except (DataError, OSError, KeyError, ValueError, RecursionError):
        return False
    return isinstance(note, dict) and note.get("format") == _FORMAT and "label" in note
