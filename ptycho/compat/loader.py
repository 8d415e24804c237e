"""PtychoPINN's names for groups of patterns that a model takes; arrays are numpy's, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.backends import to_numpy
from ptycho.compat import params
from ptycho.compat.raw_data import RawData
from ptycho.data import LocalOffsets, Scan, scan_from_groups
from ptycho.errors import DataError
from ptycho.files import written_whole
from ptycho.physics.photons import intensity_scale

__all__ = ["PtychoDataContainer", "PtychoDataset", "RawData", "load"]

_NEEDED = ("X_full", "coords_offsets", "coords_relative", "nn_indices")


class PtychoDataContainer:
    """Groups of patterns with their places.

    Parameters
    ----------
    X
        (G, N, N, C) normalised amplitudes.
    Y_I, Y_phi
        (G, N, N, C) amplitude and phase of the true patches.
    norm_Y_I
        sqrt(photons) per normalised amplitude.
    YY_full
        The whole true object, or None.
    coords_nominal, coords_true
        (G, 1, 2, C), [x, y], -(position - centre): PtychoPINN's names for the local offsets.
    nn_indices
        (G, C) number of each pattern in its scan.
    global_offsets
        (G, 1, 2, 1), [x, y], the centres.
    local_offsets
        (G, 1, 2, C), [x, y], -(position - centre).
    probeGuess
        (N, N) or (P, N, N) complex.
    scan
        What the groups were drawn from; None puts together what they show of it.
    """

    def __init__(
        self,
        X: Any,
        Y_I: Any,
        Y_phi: Any,
        norm_Y_I: Any,
        YY_full: Any,
        coords_nominal: Any,
        coords_true: Any,
        nn_indices: Any,
        global_offsets: Any,
        local_offsets: Any,
        probeGuess: Any,
        scan: Scan | None = None,
    ) -> None:
        self.X, self.Y_I, self.Y_phi = (np.asarray(to_numpy(part), np.float32) for part in (X, Y_I, Y_phi))
        self.norm_Y_I, self.YY_full = norm_Y_I, YY_full
        self.coords_nominal = self.coords = np.asarray(to_numpy(coords_nominal), np.float32)
        self.coords_true = np.asarray(to_numpy(coords_true), np.float32)
        self.nn_indices, self.global_offsets = np.asarray(to_numpy(nn_indices)), np.asarray(to_numpy(global_offsets))
        self.probe = None if probeGuess is None else np.asarray(to_numpy(probeGuess), np.complex64)
        positions = (self.global_offsets - np.asarray(to_numpy(local_offsets)))[:, 0, ::-1, :].swapaxes(1, 2)
        self.scan = scan or scan_from_groups(self.X, positions, self.nn_indices, self.probe)
        self.local_offsets = LocalOffsets.of(to_numpy(local_offsets), np.ascontiguousarray(positions), self.scan)

    @property
    def Y(self) -> NDArray[np.complex64]:
        """(G, N, N, C) the true patches."""
        return (self.Y_I * np.exp(1j * self.Y_phi)).astype(np.complex64)

    def __len__(self) -> int:
        """The number G of groups."""
        return int(self.X.shape[0])

    def __repr__(self) -> str:
        """One line: the shapes."""
        return f"PtychoDataContainer(X {self.X.shape}, local_offsets {self.local_offsets.shape}, {self.scan!r})"

    @staticmethod
    def from_raw_data_without_pc(
        xcoords: Any,
        ycoords: Any,
        diff3d: Any,
        probeGuess: Any,
        scan_index: Any,
        objectGuess: Any = None,
        N: int | None = None,
        K: int = 7,
        nsamples: int = 1,
    ) -> PtychoDataContainer:
        """Groups of a scan given as arrays; see :class:`RawData` and its ``generate_grouped_data``."""
        raw = RawData.from_coords_without_pc(xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)
        size = raw.scan.N if N is None else N
        return load(lambda: raw.generate_grouped_data(size, K=K, nsamples=nsamples), probeGuess)

    def to_npz(self, file_path: str | Path) -> None:
        """Write the arrays under their names; ``.npz`` is added to a name without it.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        path = Path(file_path)
        names = ("X", "Y_I", "Y_phi", "norm_Y_I", "YY_full", "coords_nominal", "coords_true", "nn_indices")
        values = {name: getattr(self, name) for name in (*names, "global_offsets", "local_offsets", "probe")}
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items() if value is not None}
        with written_whole(
            path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz"), overwrite=True
        ) as stream:
            np.savez(stream, **arrays)


class PtychoDataset:
    """Two containers, to train on and to test with."""

    def __init__(self, train_data: Any, test_data: Any) -> None:
        self.train_data, self.test_data = train_data, test_data


def load(
    cb: Callable[[], Any], probeGuess: Any, which: str | None = None, create_split: bool = False
) -> PtychoDataContainer:
    """The groups that a callback makes, as a container.

    Parameters
    ----------
    cb
        Called once; returns what :meth:`RawData.generate_grouped_data` does, or with ``create_split`` that and the
        part of the groups that is for training.
    probeGuess
        (N, N) or (P, N, N) complex, any framework.
    which
        "train" or "test", for ``create_split``.
    create_split
        Take the first groups for training and the others for testing.

    Returns
    -------
    PtychoDataContainer
        Without true patches in the data ``Y`` is 1, as in PtychoPINN; whoever learns from it must have given them.

    Raises
    ------
    DataError
        Something is missing, or ``which`` is neither of the two.
    """
    grouped, fraction = cb() if create_split else (cb(), 1.0)
    missing = [name for name in _NEEDED if grouped.get(name) is None]
    if missing:
        raise DataError(f"{missing[0]}: not in the grouped data; expected what RawData.generate_grouped_data returns.")
    part = slice(None)
    if create_split:
        if which not in ("train", "test"):
            raise DataError(f"which: {which!r} given, 'train' or 'test' expected with create_split.")
        first = int(len(grouped["X_full"]) * float(fraction))
        part = slice(None, first) if which == "train" else slice(first, None)
    X = to_numpy(grouped["X_full"])[part]
    truth = None if grouped.get("Y") is None else to_numpy(grouped["Y"])[part]
    if truth is not None and (truth.dtype.kind != "c" or truth.shape != X.shape):
        raise DataError(f"Y: {truth.dtype} of shape {truth.shape} given, complex {X.shape} expected beside X_full.")
    relative = to_numpy(grouped["coords_relative"])[part]
    return PtychoDataContainer(
        X,
        np.ones(X.shape, np.float32) if truth is None else np.abs(truth),
        np.zeros(X.shape, np.float32) if truth is None else np.angle(truth),
        intensity_scale(float(params.get("nphotons")), X.shape[1]),
        None,
        relative,
        relative,
        to_numpy(grouped["nn_indices"])[part],
        to_numpy(grouped["coords_offsets"])[part],
        relative,
        probeGuess,
        grouped.get("scan"),
    )
