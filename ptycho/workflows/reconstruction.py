"""What a network or an engine makes of a scan, as one object: arrays, history, metrics and provenance."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho.config.deprecated import former_names
from ptycho.errors import DataError
from ptycho.evaluation import FRC, coverage, remove_ramp
from ptycho.notebook import summary_html

__all__ = ["LENGTHS", "OPTIONAL_ARRAYS", "Reconstruction", "pair_of"]

OPTIONAL_ARRAYS: dict[str, tuple[Any, int]] = {
    "truth": (np.complex64, 2),
    "measured": (np.float32, 3),
    "predicted": (np.float32, 3),
    "mask": (np.bool_, 2),
    "components": (np.complex64, 3),
    "weights": (np.complex64, 2),
    "slices": (np.complex64, 3),
}
"""Dtype and number of axes of the arrays that a reconstruction may lack."""
LENGTHS = ("pixel_size", "slice_spacing")
"""Fields in metres that it may lack."""


@former_names({"figures": "metrics"})
@dataclass(eq=False)
class Reconstruction:
    """An object with its place, what it was made from, and how good it is.

    Attributes
    ----------
    object : (H, W) complex64, transmission; 1 where nothing is known. Of several slices their product.
    weight : (H, W) float32, summed stitching window; 0 where nothing is known.
    origin : (row, col), position of ``object[0, 0]``, pixels.
    positions : (M, 2) float64, (row, col) of the patch centres, pixels.
    probe : (P, N, N) complex64, modes in sqrt(photons).
    pixel_size : metres, or None.
    components : (V, N, N) complex64, sqrt(photons), by which the first mode varies from pattern to pattern, or None.
    weights : (M, 1 + V) complex64, brightness and components of every pattern, or None.
    slices : (S, H, W) complex64, the object's slices in the order in which the beam meets them, or None if it is thin.
    slice_spacing : metres from one slice to the next, or None.
    history : one value per epoch, by name: ``loss``, ``val_loss``, ...
    provenance : see :func:`ptycho.workflows.results.provenance`.
    metrics : numbers by name: ``r_factor``, ``seconds``, ``n_patterns``, what
        :func:`~ptycho.evaluation.evaluate` returns, ...
    frc : Fourier ring correlation curves by name: ``complex``, ``amplitude``, ``phase``.
    measured, predicted : (K, N, N) float32, amplitudes of a few patterns, sqrt(photons).
    truth : (H, W) complex64 on the grid of ``object``, or None.
    mask : (N, N) bool, True where the detector is good, or None.

    Raises
    ------
    DataError
        An array is not of the shape above; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> metrics = ptycho.evaluate(result, scan)
    >>> result.probe.shape
    (1, 16, 16)
    """

    object: np.ndarray
    weight: np.ndarray
    origin: tuple[float, float]
    positions: np.ndarray
    probe: np.ndarray
    pixel_size: float | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    frc: dict[str, FRC] = field(default_factory=dict)
    measured: np.ndarray | None = None
    predicted: np.ndarray | None = None
    truth: np.ndarray | None = None
    mask: np.ndarray | None = None
    components: np.ndarray | None = None
    weights: np.ndarray | None = None
    slices: np.ndarray | None = None
    slice_spacing: float | None = None

    def __repr__(self) -> str:
        """One line: sizes and the R-factor, without the arrays."""
        rows, columns = self.object.shape
        modes, side = self.probe.shape[:2]
        error = f", R-factor {self.metrics['r_factor']:.4g}" if "r_factor" in self.metrics else ""
        return (
            f"Reconstruction(object of {rows}x{columns}, {len(self.positions)} patterns, "
            f"{modes} probe mode(s) of {side}x{side}{error})"
        )

    def _repr_html_(self) -> str:
        """Pictures and numbers for a notebook; numbers alone where there is no Pillow."""
        covered = coverage(self.weight)
        inside = np.where(covered, 1.0, np.nan)
        pictures = {
            "amplitude": np.abs(self.object) * inside,
            "phase without its ramp": np.angle(remove_ramp(self.object, covered)) * inside,
            "probe amplitude": np.abs(self.probe[0]),
        }
        numbers: dict[str, Any] = {"object": f"{self.object.shape[0]} x {self.object.shape[1]} pixels"}
        numbers |= {"pixel size (m)": self.pixel_size, "patterns": len(self.positions), **self.metrics}
        return summary_html("Reconstruction", numbers, pictures)

    def __post_init__(self) -> None:
        """Bring every field to its type and check the shapes."""
        self.object = _array("object", self.object, np.complex64, 2)
        self.weight = _array("weight", self.weight, np.float32, 2)
        self.positions = _array("positions", self.positions, np.float64, 2)
        self.probe = _array("probe", self.probe, np.complex64, 3)
        self.origin = pair_of(self.origin)
        for name in LENGTHS:
            setattr(self, name, None if getattr(self, name) is None else float(getattr(self, name)))
        for name, (dtype, dimensions) in OPTIONAL_ARRAYS.items():
            values = getattr(self, name)
            setattr(self, name, None if values is None else _array(name, values, dtype, dimensions))
        self.history = {name: [float(value) for value in values] for name, values in self.history.items()}
        self.metrics = {name: float(value) for name, value in self.metrics.items()}
        self.frc = {name: dataclasses.replace(curve, pixel_size=self.pixel_size) for name, curve in self.frc.items()}
        for name, image in (("weight", self.weight), ("truth", self.truth), ("slices", self.slices)):
            if image is not None and image.shape[-2:] != self.object.shape:
                raise DataError(f"{name}: got shape {image.shape}; expected the object's, {self.object.shape}.")
        side = self.probe.shape[1:]
        for name, stack in (("mask", self.mask), ("measured", self.measured), ("predicted", self.predicted)):
            if stack is not None and stack.shape[-2:] != side:
                raise DataError(f"{name}: got shape {stack.shape}; expected patterns of the probe's size, {side}.")
        measured, predicted = self.measured, self.predicted
        if measured is not None and predicted is not None and len(measured) != len(predicted):
            raise DataError(f"predicted: got {len(predicted)} patterns; expected {len(measured)}, as measured.")
        self._check_numbers()
        if self.positions.shape[1] != 2:
            raise DataError(f"positions: got shape {self.positions.shape}; expected (M, 2), (row, col) in pixels.")

    def _check_numbers(self) -> None:
        """Check what the pictures and their scales are computed from."""
        if not np.isfinite(self.positions).all() or not np.isfinite(self.origin).all():
            raise DataError("positions: got values that are not finite; expected pixels, as of origin.")
        for name in LENGTHS:
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise DataError(f"{name}: got {value}; expected a finite length above 0, in metres.")
        if self.object.size == 0 or self.probe.size == 0:
            raise DataError(f"object, probe: got {self.object.shape}, {self.probe.shape}; expected at least one pixel.")
        if self.weights is not None and len(self.weights) != len(self.positions):
            raise DataError(f"weights: got {len(self.weights)} rows; expected {len(self.positions)}, one per position.")
        side = self.probe.shape[1:]
        if self.components is not None and self.components.shape[1:] != side:
            raise DataError(f"components: got {self.components.shape}; expected the probe's size, {side}.")


def pair_of(values: Any) -> tuple[float, float]:
    """Two numbers as (row, column)."""
    row, column = (float(value) for value in np.asarray(values, dtype=np.float64))
    return row, column


def _array(name: str, values: Any, dtype: Any, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    if (
        array.ndim != ndim
        or array.dtype.kind not in "biufc"
        or (array.dtype.kind == "c" and np.dtype(dtype).kind != "c")
    ):
        raise DataError(f"{name}: got {array.dtype} of shape {array.shape}; expected {ndim} axes of {np.dtype(dtype)}.")
    return array.astype(dtype, copy=False)
