"""Iterative reconstruction: from scratch without a network, or from a result that is there; and how good it became."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config import EngineConfig, EngineSettings
from ptycho.data import Scan
from ptycho.engines import Callback, State, fit_affine, predictor, solve
from ptycho.errors import DataError
from ptycho.evaluation import Comparison, compare, split_scan_frc
from ptycho.workflows.output_folder import ENGINE_STATE
from ptycho.workflows.r_factor import sample_of, scan_r_factor
from ptycho.workflows.results import Reconstruction, provenance
from ptycho.workflows.run import _on_grid, true_object
from ptycho.workflows.scans import ScanOptions

__all__ = ["ENGINE_STATE", "reconstruct_iteratively", "refine_result", "scan_of_result", "state_of_result"]

logger = logging.getLogger(__name__)

_SCALE_SAMPLES = 64
_SMALLEST_HALF = 16
_KEPT = ("r_factor", "seconds", "frc_n_rings", "ssim_amplitude", "ssim_phase", "psnr_amplitude", "psnr_phase")

Counters = Callable[[str], Callback]


@dataclasses.dataclass
class _Solved:
    """A state as the evaluation takes it."""

    object: NDArray[Any]
    weight: NDArray[Any]
    origin: tuple[float, float]


def reconstruct_iteratively(
    scan: Scan,
    config: EngineConfig,
    *,
    split_frc: bool = False,
    counters: Counters | None = None,
    checkpoint: str | Path | None = None,
    command: str = "",
    reading: ScanOptions | None = None,
    source: str | Path | None = None,
) -> Reconstruction:
    """Reconstruct a scan from a flat object and its probe, without any network.

    Parameters
    ----------
    scan
        The measurement.
    config
        The engine and its settings.
    split_frc
        Where the true object is not known: reconstruct the two halves of the scan too, every other pattern each, and
        compare them by Fourier ring correlation.
    counters
        Makes a callback (epochs done, all epochs, metrics) for a step of the work from its name.
    checkpoint
        File that a killed run goes on from, see :func:`ptycho.engines.solve`; to be removed when the result is saved.
    command, reading, source
        The command line, how the scan was read, and the scan's file, for the provenance.

    Returns
    -------
    Reconstruction
        Figures hold ``r_factor``, ``seconds_engine`` and ``epochs``; where positions were corrected
        ``position_shift_rms`` and those of an affine map through the corrections; and of a simulated scan those of
        :func:`ptycho.evaluation.evaluate`, of a measured one, if wanted, those of
        :func:`ptycho.evaluation.split_scan_frc`.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> result.metrics["r_factor"] < 1
    True
    """
    return _worked(scan, config, None, split_frc, counters, checkpoint, command, reading, source)


def refine_result(
    result: Reconstruction,
    scan: Scan,
    config: EngineConfig,
    *,
    split_frc: bool = False,
    counters: Counters | None = None,
    checkpoint: str | Path | None = None,
    command: str = "",
    reading: ScanOptions | None = None,
    source: str | Path | None = None,
) -> Reconstruction:
    """Refine object, probe and (if wanted) positions of a result with an iterative engine.

    Parameters
    ----------
    result
        From a network or an engine.
    scan
        The measurement that it was made from.
    config, split_frc, counters, checkpoint, command, reading, source
        As in :func:`reconstruct_iteratively`. Both halves start from the one result, so their correlation shows the
        noise and not what both took from it.

    Returns
    -------
    Reconstruction
        Figures as in :func:`reconstruct_iteratively`, and those of ``result`` as ``*_before``.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> better = ptycho.refine_result(result, scan, ptycho.EngineConfig(epochs=2))
    >>> better.metrics["r_factor"] <= better.metrics["r_factor_before"]
    True
    """
    refined = _worked(
        scan, config, state_of_result(result, scan, config), split_frc, counters, checkpoint, command, reading, source
    )
    before = {
        f"{name}_before": value
        for name, value in result.metrics.items()
        if name in _KEPT or name.startswith(("frc_rings_", "frc_cutoff_"))
    }
    refined.metrics |= before
    refined.history = {**result.history, **refined.history}
    if "bundle" in result.provenance:
        refined.provenance["bundle"] = result.provenance["bundle"]
    refined.provenance["refined_from"] = {
        name: result.provenance[name] for name in ("created", "command", "seed", "config") if name in result.provenance
    }
    return refined


def state_of_result(result: Reconstruction, scan: Scan, config: EngineSettings) -> State:
    """Where an engine of these settings starts from a result: its probe scaled to predict this scan's counts.

    Raises
    ------
    DataError
        The result and the scan do not belong together.
    """
    if result.probe.shape[-1] != scan.N:
        raise DataError(
            f"The result is of patterns of {result.probe.shape[-1]} x {result.probe.shape[-1]} pixels and the scan's "
            f"are {scan.N} x {scan.N}: read the scan as it was read for the result (--crop, --bin)."
        )
    if len(result.positions) != len(scan):
        raise DataError(
            f"The result is of {len(result.positions)} patterns and the scan has {len(scan)}: give the scan that the "
            "result was made from."
        )
    index = np.unique(np.linspace(0, len(scan) - 1, min(_SCALE_SAMPLES, len(scan))).astype(int))
    image = result.object if result.slices is None else result.slices
    state = State(image, result.origin, result.probe, result.positions, scan.positions, spacing=result.slice_spacing)
    predicted = predictor(state, scan, config)(index)
    if scan.mask is not None:
        predicted = predicted * scan.mask
    power = float(np.sum(predicted**2, dtype=np.float64))
    if not 0 < power < np.inf:
        raise DataError("The result predicts no light or is not finite: refine another one.")
    scale = float(np.sum(predicted * scan.amplitude(index), dtype=np.float64)) / power
    state.probe = result.probe * scale
    if result.components is not None:
        state.components, state.weights = result.components * scale, result.weights
    return state


def scan_of_result(result: Reconstruction, folder: Path | None = None) -> Path:
    """The scan file that a result's provenance names, or the one of that name in the result's folder.

    Raises
    ------
    DataError
        It names none, or the file is not there any more.
    """
    config = result.provenance.get("config") or {}
    data = result.provenance.get("data") or {}
    named = [data.get("file"), config.get("test_data_file"), config.get("train_data_file")]
    files = [Path(name) for name in named if name]
    if files and folder is not None and not files[0].is_file() and (folder / files[0].name).is_file():
        return folder / files[0].name
    if not files or not files[0].is_file():
        where = f"{files[0]} is not there any more" if files else "the result does not name its scan"
        raise DataError(f"The scan is needed beside the result, and {where}: give its file after the result.")
    return files[0]


def _worked(
    scan: Scan,
    config: EngineConfig,
    start: State | None,
    split_frc: bool,
    counters: Counters | None,
    checkpoint: str | Path | None,
    command: str,
    reading: ScanOptions | None,
    source: str | Path | None,
) -> Reconstruction:
    def told(label: str) -> Sequence[Callback]:
        return () if counters is None else (counters(label),)

    began = time.perf_counter()
    state = solve(scan, config, start, callbacks=told(config.engine), checkpoint=checkpoint)
    seconds = max(time.perf_counter() - began, state.history["seconds"][-1])  # the latter where an earlier run began it
    placed = _Solved(state.projection, state.weight, state.origin)
    seen, predict = scan.replace(positions=state.positions), predictor(state, scan, config)
    metrics = {
        "r_factor": scan_r_factor(placed, state.probe, seen, predict=predict),
        "n_patterns": float(len(scan)),
        "seconds_engine": seconds,
        "epochs": float(config.epochs),
        **_shift_metrics(state),
        **_mode_metrics(state),
        **_variation_metrics(state),
    }
    truth, comparison = None, None
    if (known := true_object(scan)) is not None:
        place = scan.object_origin or (0.0, 0.0)
        comparison = compare(placed, known, place)
        truth = _on_grid(known, np.subtract(state.origin, place), placed.object.shape)
    elif split_frc:
        comparison = _compared_halves(seen, config, start, told)
    if comparison is not None:
        metrics |= comparison.metrics
    samples = sample_of(len(scan))
    metrics["seconds"] = time.perf_counter() - began
    came_from = provenance(config, scan, config.seed, command, reading)
    if source is not None:
        came_from["data"]["file"] = str(source)
    return Reconstruction(
        object=np.where(placed.weight > 0, placed.object, 1.0),
        weight=placed.weight,
        origin=state.origin,
        positions=state.positions,
        probe=state.probe,
        pixel_size=scan.object_pixel_size,
        history={"r_factor": state.history["r_factor"]},
        provenance=came_from,
        metrics=metrics,
        frc={} if comparison is None else comparison.frc,
        measured=scan.amplitude(samples),
        predicted=predict(samples),
        truth=truth,
        mask=scan.mask,
        components=state.components,
        weights=state.weights,
        **_depth(state, placed.weight > 0),
    )


def _depth(state: State, covered: NDArray[np.bool_]) -> dict[str, Any]:
    """The slices of a result and what lies between them; nothing where there is one."""
    if state.object.ndim == 2:
        return {}
    return {"slices": np.where(covered, state.object, 1.0), "slice_spacing": state.spacing}


def _compared_halves(
    scan: Scan, config: EngineConfig, start: State | None, told: Callable[[str], Sequence[Callback]]
) -> Comparison | None:
    """Fourier ring correlation of the two halves of a scan, each reconstructed with the positions as they are now."""
    if len(scan) < 2 * _SMALLEST_HALF:
        logger.warning("%d patterns are too few to compare two halves of them; no FRC.", len(scan))
        return None
    config = dataclasses.replace(config, correct_positions="none")
    placed = []
    for number, half in enumerate(scan.split("alternate"), 1):
        begin = None
        if start is not None:
            begin = dataclasses.replace(start, positions=half.positions, nominal=half.positions)
            begin.components = begin.weights = None
        state = solve(half, config, begin, callbacks=told(f"half {number}"))
        placed.append(_Solved(state.projection, state.weight, state.origin))
    try:
        return split_scan_frc(*placed)
    except DataError as error:
        logger.warning("The halves of the scan cannot be compared: %s", error)
        return None


def _shift_metrics(state: State) -> dict[str, float]:
    """What the correction of the positions came to; nothing where none moved."""
    if not np.any(state.shifts):
        return {}
    fit = fit_affine(state.nominal, state.positions)
    return {
        "position_shift_rms": float(np.sqrt((state.shifts**2).sum(axis=1).mean())),
        "position_shift_largest": float(np.linalg.norm(state.shifts, axis=1).max()),
        "position_scale_row": float(fit.scale[0]),
        "position_scale_column": float(fit.scale[1]),
        "position_rotation_degrees": fit.rotation,
        "position_shear": fit.shear,
        "position_rest_rms": fit.rest,
    }


def _mode_metrics(state: State) -> dict[str, float]:
    if state.probe.shape[0] == 1:
        return {}
    power = (np.abs(state.probe) ** 2).sum(axis=(1, 2))
    return {f"mode_{k}_power": float(part) for k, part in enumerate(power / power.sum(), 1)}


def _variation_metrics(state: State) -> dict[str, float]:
    """How much the beam varies from pattern to pattern; nothing where all are lit alike."""
    if state.components is None or state.weights is None:
        return {}
    varied, power = (float((np.abs(modes) ** 2).sum()) for modes in (state.components, state.probe))
    return {
        "probe_brightness_spread": float(state.weights[:, 0].real.std()),
        "probe_variation_power": varied / (varied + power),
    }
