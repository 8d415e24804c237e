"""A trained model as PtychoPINN's callers call it: ``model.predict([patterns, offsets])``, on any backend.

What is predicted of patterns depends on what is known beside them. A model with ``start_iterations`` above 0 corrects
the object that plain physics makes of the whole scan. The scan is known where the offsets come from a container of
this library (:class:`~ptycho.data.LocalOffsets` brings it along), where the container itself is given, or where the
global offsets are given as a third array. Otherwise the model starts from a flat object at each pattern, as it defines
for a batch without a start; it was not trained for that, the result is poor, and a warning says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.backends import Array, get_backend, resolve_device, to_numpy
from ptycho.config import dataclass_to_legacy_dict
from ptycho.data import Container, LocalOffsets, Scan, scan_from_groups
from ptycho.errors import ConfigError, DataError
from ptycho.model.batches import make_batch
from ptycho.model.bundle import Bundle
from ptycho.model.pinn import PtychoPINN, merge_window
from ptycho.physics.reassembly import extract_groups, group_canvas_size, merge_groups
from ptycho.workflows.estimate import scan_estimate
from ptycho.workflows.scans import as_scan

__all__ = ["TrainedModel", "legacy_settings", "trained_models"]

logger = logging.getLogger(__name__)


@dataclass(repr=False)
class TrainedModel(Bundle):
    """A bundle that answers like PtychoPINN's ``diffraction_to_obj``.

    Parameters
    ----------
    backend : which computes; None takes the one that trained.
    """

    backend: str | None = None

    def predict(
        self, inputs: Any, batch_size: int = 32, verbose: Any = 0, *, device: str | None = None
    ) -> NDArray[np.complex64]:
        """One object patch for each group.

        Parameters
        ----------
        inputs
            ``[X * intensity_scale, local_offsets]``, or ``[X * intensity_scale, local_offsets, global_offsets]``, or a
            container. X (B, N, N, C) normalised amplitudes; local offsets (B, 1, 2, C), [x, y], -(position - centre);
            global offsets (B, 1, 2, 1), [x, y], the centres. Any framework's arrays.
        batch_size
            Groups at once; the result does not depend on it beyond rounding.
        verbose
            As Keras has it; nothing is printed.
        device
            Of the backend; None takes its best.

        Returns
        -------
        (B, N, N, 1) complex64 on the host: the object around each group's centre; 1 where nothing lies.

        Raises
        ------
        DataError, ConfigError, BackendError
            The arrays do not belong together or do not fit the model; the backend is not there.
        """
        groups, scan = self._groups(inputs)
        patches = np.empty((len(groups), groups.N, groups.N, 1), np.complex64)
        for index, found in self._computed(groups, scan, batch_size, device):
            patches[index, ..., 0] = found
        return patches

    __call__ = predict

    def _groups(self, inputs: Any) -> tuple[Container, Scan | None]:
        """The inputs as a container, X in the model's normalised amplitudes, and the scan they are from if known."""
        size, channels = self.config.model.N, self.config.model.gridsize**2
        scan: Scan | None = None
        given: tuple[Any, ...]
        if hasattr(inputs, "local_offsets"):
            scan, given = as_scan(inputs), (inputs.local_offsets, inputs.global_offsets)
            X = np.asarray(inputs.X) if isinstance(inputs, Container) else to_numpy(inputs.X)
            scaled = X * self.intensity_scale
        elif isinstance(inputs, Sequence) and len(inputs) in (2, 3):
            scaled, given = to_numpy(inputs[0]), tuple(inputs[1:])
        else:
            raise DataError(
                f"inputs: {type(inputs).__name__} given; expected [X * intensity_scale, local_offsets], these and "
                "global_offsets, or a container."
            )
        if scaled.ndim != 4 or scaled.shape[1:] != (size, size, channels):
            raise ConfigError(
                f"X has shape {tuple(scaled.shape)}; this model takes (B, {size}, {size}, {channels}): N and gridsize "
                "are the training's."
            )
        count = scaled.shape[0]
        local = _positions(given[0], count, channels, "local_offsets")
        centres = _positions(given[1], count, 1, "global_offsets") if len(given) == 2 else np.zeros((count, 1, 2))
        X = (scaled / self.intensity_scale).astype(np.float32)
        positions = centres - local
        memory = given[0]
        if isinstance(memory, LocalOffsets) and memory.positions is not None:
            scan, positions = as_scan(memory.source), memory.positions
        elif len(given) == 2 and scan is None:
            scan = scan_from_groups(X, positions)
        indices = np.arange(count * channels).reshape(count, channels)
        return Container(X, positions, indices, 1.0, None if scan is None else scan.mask), scan

    def _computed(
        self, groups: Container, scan: Scan | None, batch_size: int, device: str | None
    ) -> Iterator[tuple[slice, NDArray[np.complex64]]]:
        """The groups' objects (b, N, N), batch by batch."""
        config = self.config.model
        lender = get_backend(self.backend or self.config.backend)
        where = resolve_device(lender, device)
        if config.start_iterations and scan is not None:
            groups.estimate = scan_estimate(scan, self.probe, self.nphotons, config.start_iterations)
        elif config.start_iterations:
            logger.warning(
                "predict knows the patterns but not where they lie, so it starts from a flat object at each; give the "
                "local offsets of a container as they are, or the global offsets as a third array."
            )
        window = merge_window(self.probe)
        side = max(self.group_canvas_side, group_canvas_size(groups.relative, groups.N, config.gridsize))
        model = PtychoPINN(config, lender, self.intensity_scale, side, groups.mask, window)
        params = {name: lender.asarray(values, device=where) for name, values in self.params.items()}
        weights = lender.asarray(window, dtype="float32", device=where)
        for first in range(0, len(groups), batch_size):
            chosen = np.arange(first, min(first + batch_size, len(groups)))
            batch = {k: lender.asarray(v, device=where) for k, v in make_batch(groups, chosen).items()}
            patches = _around_centre(model.patches(params, batch), batch["relative"], side, weights)
            yield slice(first, first + chosen.size), lender.to_numpy(patches)


def trained_models(bundle: Bundle, backend: str | None = None) -> dict[str, TrainedModel]:
    """The two models of a PtychoPINN archive by name; here both are one network.

    Parameters
    ----------
    bundle
        A trained model.
    backend
        Which computes; None takes the one that trained.
    """
    fields = {name: value for name, value in vars(bundle).items() if name != "backend"}
    model = TrainedModel(**fields, backend=backend or getattr(bundle, "backend", None))
    return {"autoencoder": model, "diffraction_to_obj": model}


def legacy_settings(bundle: Bundle) -> dict[str, Any]:
    """A bundle's settings under PtychoPINN's names, those that are not None, with ``intensity_scale``."""
    known = {key: value for key, value in dataclass_to_legacy_dict(bundle.config).items() if value is not None}
    return known | {"intensity_scale": bundle.intensity_scale}


def _positions(offsets: Any, count: int, channels: int, name: str) -> NDArray[np.float64]:
    """(B, 1, 2, C) of [x, y] as (B, C, 2) of (row, col)."""
    values = np.asarray(to_numpy(offsets), dtype=np.float64)
    if values.shape != (count, 1, 2, channels):
        raise DataError(f"{name} has shape {values.shape}; expected {(count, 1, 2, channels)} beside X.")
    return np.ascontiguousarray(values[:, 0, ::-1, :].swapaxes(1, 2))


def _around_centre(patches: Array, relative: Array, side: int, window: Array) -> Array:
    """(b, N, N): the merged patches (b, C, N, N) of each group, cut around its centre."""
    if patches.shape[1] == 1:
        return patches[:, 0, :, :]
    merged = merge_groups(patches, relative, side, window)
    return extract_groups(merged, relative[:, :1, :] * 0.0, patches.shape[-1])[:, 0, :, :]
