"""PtychoPINN's name for groups of patterns as PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho.backends import get_backend
from ptycho.compat.loader import load

__all__ = ["PtychoDataContainerTorch"]


class PtychoDataContainerTorch:
    """A :class:`ptycho.compat.loader.PtychoDataContainer` whose arrays are tensors; they share memory where they can.

    Parameters
    ----------
    grouped_data
        What :meth:`ptycho.compat.raw_data.RawData.generate_grouped_data` returns.
    probe
        (N, N) or (P, N, N) complex, or None.

    Raises
    ------
    DataError
        Something is missing in the grouped data.
    BackendError
        PyTorch is not installed.
    """

    def __init__(self, grouped_data: Mapping[str, Any], probe: Any) -> None:
        tensor = get_backend("pytorch").asarray
        box = load(lambda: grouped_data, probe)
        self.X, self.Y_I, self.Y_phi = (tensor(part, "float32") for part in (box.X, box.Y_I, box.Y_phi))
        self.Y = tensor(box.Y, "complex64")
        self.coords_nominal = tensor(box.coords_nominal, "float32")
        self.coords = self.coords_true = self.coords_relative = self.coords_nominal
        self.global_offsets, self.local_offsets = (
            tensor(x, "float64") for x in (box.global_offsets, box.local_offsets)
        )
        self.nn_indices = tensor(box.nn_indices, "int32")
        self.probe = None if box.probe is None else tensor(box.probe, "complex64")
        self.norm_Y_I, self.YY_full = box.norm_Y_I, grouped_data.get("objectGuess")
        self.scan = box.scan

    def __len__(self) -> int:
        """The number of groups."""
        return int(self.X.shape[0])

    def __repr__(self) -> str:
        """One line: the shapes."""
        return f"PtychoDataContainerTorch(X {tuple(self.X.shape)}, {self.scan!r})"
