"""PtychoPINN's named workflow steps, on any backend: same signatures, same results, the scan in any form.

Arrays here follow PtychoPINN's order, [x, y] = [column, row]; inside the library positions are (row, column).
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config import InferenceConfig, TrainingConfig, published
from ptycho.data import Container, Scan, make_container
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import BUNDLE_NAME, Bundle, save_bundle
from ptycho.workflows.output_folder import write_bytes, write_json
from ptycho.workflows.reconstruct import stitch
from ptycho.workflows.run import open_bundle, train_scan
from ptycho.workflows.scans import as_scan
from ptycho.workflows.trained_model import TrainedModel, legacy_settings, trained_models

__all__ = [
    "as_scan",
    "load_inference_bundle",
    "reassemble_cdi_image",
    "run_cdi_example",
    "save_outputs",
    "train_cdi_model",
]

logger = logging.getLogger(__name__)

Image = NDArray[np.floating]


def run_cdi_example(
    train_data: Any,
    test_data: Any,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    do_stitching: bool = False,
) -> tuple[Image | None, Image | None, dict[str, Any]]:
    """Train on one scan and, if asked, reconstruct another one.

    Parameters
    ----------
    train_data, test_data
        Anything that :func:`as_scan` takes; ``test_data`` may be None.
    config
        The training; its ``backend`` computes.
    flip_x, flip_y, transpose
        Orientation of the positions, as in :func:`reassemble_cdi_image`. Training sees the oriented positions too,
        since it uses them.
    M
        Side of the centre crop of each patch that is stitched, pixels.
    do_stitching
        Reconstruct ``test_data``.

    Returns
    -------
    amplitude, phase, results
        As :func:`reassemble_cdi_image`, or None twice; results hold ``history``, ``train_container``,
        ``test_container``, ``bundle``, ``models``, ``intensity_scale``, and with stitching its results.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.
    """
    orientation = (flip_x, flip_y, transpose)
    return run_steps(train_cdi_model, reassemble_cdi_image, train_data, test_data, config, orientation, M, do_stitching)


def run_steps(
    train: Callable[..., dict[str, Any]],
    reassemble: Callable[..., tuple[Image, Image, dict[str, Any]]],
    train_data: Any,
    test_data: Any,
    config: TrainingConfig,
    orientation: tuple[bool, bool, bool],
    M: int,
    do_stitching: bool,
) -> tuple[Image | None, Image | None, dict[str, Any]]:
    """What :func:`run_cdi_example` does, by given functions for its two steps.

    Parameters
    ----------
    train, reassemble
        Called as :func:`train_cdi_model` and :func:`reassemble_cdi_image`.
    orientation
        ``flip_x``, ``flip_y``, ``transpose``.
    train_data, test_data, config, M, do_stitching
        As there.
    """
    scan, test_scan = as_scan(train_data), None if test_data is None else as_scan(test_data)
    if any(orientation) and config.model.model_type == "supervised":
        raise ConfigError(
            "flip_x, flip_y and transpose turn the positions but not the object that a supervised model learns from: "
            "orient the positions in the file."
        )
    results = train(_oriented(scan, *orientation), test_scan, config)
    if not do_stitching or test_scan is None:
        return None, None, results
    amplitude, phase, stitched = reassemble(test_scan, config, *orientation, M, model=results["bundle"])
    return amplitude, phase, results | stitched


def train_cdi_model(train_data: Any, test_data: Any, config: TrainingConfig) -> dict[str, Any]:
    """Train on a scan.

    Parameters
    ----------
    train_data, test_data
        Anything that :func:`as_scan` takes; ``test_data`` may be None and is only grouped.
    config
        The training; its ``backend`` computes.

    Returns
    -------
    dict
        As :func:`training_results`; ``test_container`` is None without test data.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.
    """
    scan = as_scan(train_data)
    test_container = None if test_data is None else _container(as_scan(test_data), config, None)
    bundle = train_scan(scan, config)
    return training_results(bundle, _container(scan, config, config.n_groups), test_container)


def training_results(bundle: Bundle, train_container: Any, test_container: Any) -> dict[str, Any]:
    """What PtychoPINN's callers get of a training; its model and scale are put into their settings dictionary too.

    Returns
    -------
    dict
        ``history`` (losses per epoch; ``train_loss`` repeats ``loss``), ``train_container``, ``test_container``,
        ``bundle`` (the trained model), ``models`` (``diffraction_to_obj`` and ``autoencoder``, which predict), and
        ``intensity_scale`` (sqrt(photons) per normalised amplitude).
    """
    history = {name: list(values) for name, values in bundle.history.items()}
    if "loss" in history:
        history.setdefault("train_loss", list(history["loss"]))
    published.publish(bundle.config, intensity_scale=bundle.intensity_scale, trained_model=bundle)
    return {
        "history": history,
        "train_container": train_container,
        "test_container": test_container,
        "bundle": bundle,
        "models": trained_models(bundle),
        "intensity_scale": bundle.intensity_scale,
    }


def reassemble_cdi_image(
    test_data: Any,
    config: TrainingConfig | InferenceConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int = 20,
    coord_scale: float = 1.0,
    *,
    model: Bundle | None = None,
) -> tuple[Image, Image, dict[str, Any]]:
    """Reconstruct every pattern of a scan and stitch the centre crops of the patches.

    Parameters
    ----------
    test_data
        Anything that :func:`as_scan` takes.
    config
        Seed, neighbours, backend and device; where no model is given, the bundle is the one in its ``output_dir``
        (``model_path`` of an inference).
    flip_x, flip_y
        Change the sign of the positions' columns, rows.
    transpose
        Transpose every patch, leaving its position.
    M
        Side of the centre crop of each patch that is stitched, pixels.
    coord_scale
        Factor on the positions.
    model
        A trained bundle.

    Returns
    -------
    amplitude, phase : (S, S) real
        ``S = M + 2 p`` with p the largest distance of a position from the mean one along an axis, rounded up to even;
        the mean position is the centre pixel ``[S//2, S//2]``. Phase in radians. Where no patch lies the object is 1.
    results : dict
        ``recon_amp``, ``recon_phase``, ``weight`` (S, S), and ``global_offsets`` (G, 1, 2, C), the oriented
        positions as [x, y].

    Raises
    ------
    ConfigError, DataError, BackendError
        The scan does not fit the model, or there is no model.
    """
    if model is None:
        place = getattr(config, "model_path", None) or config.output_dir
        model = open_bundle(place)
    scan = _oriented(as_scan(test_data), flip_x, flip_y, transpose, coord_scale)
    centred = scan.replace(positions=scan.positions - scan.positions.mean(axis=0))
    stitched = stitch(
        centred,
        model,
        backend=config.backend,
        device=config.device,
        window="crop",
        crop=M,
        neighbor_count=config.neighbor_count,
        seed=config.seed,
    )
    reach = math.ceil(float(np.abs(centred.positions).max()))
    half = M // 2 + reach + reach % 2
    image = _cut(stitched.object, stitched.origin, half, 1.0)
    weight = _cut(stitched.weight, stitched.origin, half, 0.0)
    if transpose:
        image, weight = image.T, weight.T
    offsets = scan.positions if transpose else scan.positions[:, ::-1]
    amplitude, phase = np.abs(image), np.angle(image)
    return (
        amplitude,
        phase,
        {
            "recon_amp": amplitude,
            "recon_phase": phase,
            "weight": weight,
            "global_offsets": offsets[:, None, :, None].copy(),
        },
    )


def load_inference_bundle(model_dir: str | Path) -> tuple[TrainedModel, dict[str, Any]]:
    """Load a trained model from the folder of a training.

    Parameters
    ----------
    model_dir
        Folder that holds ``wts.h5.zip``, or what that was unpacked to.

    Returns
    -------
    model, config
        The bundle, which predicts, and its settings under PtychoPINN's names with ``intensity_scale``.

    Raises
    ------
    DataError
        There is no such folder, or no bundle in it, or it cannot be read.
    """
    with _packed(bundle_folder(model_dir)) as place:
        bundle = open_bundle(place)
    return trained_models(bundle)["diffraction_to_obj"], legacy_settings(bundle)


def bundle_folder(model_dir: str | Path) -> Path:
    """The folder of a training as a path; DataError where it is none."""
    folder = Path(model_dir)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the folder of a training, which holds {BUNDLE_NAME}.")
    return folder


@contextlib.contextmanager
def _packed(folder: Path) -> Iterator[Path]:
    """Where the bundle of a folder is; one that was unpacked there, as ptychodus does with its copy, packed again."""
    if (folder / BUNDLE_NAME).exists() or not (folder / "manifest.json").is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / BUNDLE_NAME
        with zipfile.ZipFile(packed, "w") as archive:
            for member in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(member, member.relative_to(folder).as_posix())
        yield packed


def save_outputs(
    amplitude: Image | None, phase: Image | None, results: Mapping[str, Any], output_prefix: str | Path
) -> None:
    """Write what a run returned: pictures, losses, and the bundle.

    Parameters
    ----------
    amplitude, phase
        (S, S) or (S, S, 1) real, or None where nothing was stitched.
    results
        Of :func:`run_cdi_example`.
    output_prefix
        Folder, created if missing, for ``reconstructed_amplitude.png``, ``reconstructed_phase.png``, ``history.json``
        and ``wts.h5.zip``, as far as there is something to write.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    folder = Path(output_prefix)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    for name, image, colours in (("amplitude", amplitude, "gray"), ("phase", phase, "viridis")):
        if image is not None:
            _draw(np.squeeze(image), colours, folder / f"reconstructed_{name}.png")
    if results.get("history"):
        write_json({"history": dict(results["history"])}, folder / "history.json", overwrite=True)
    if results.get("bundle") is not None:
        save_bundle(results["bundle"], folder, overwrite=True)


def _oriented(
    scan: Scan, flip_x: bool = False, flip_y: bool = False, transpose: bool = False, coord_scale: float = 1.0
) -> Scan:
    """The scan at PtychoPINN's turned positions, without its object, which does not turn along.

    A transposed patch at (row, col) is the patch at (col, row) in the transposed image: ``transpose`` swaps the
    positions here, and whoever stitches them transposes the image.
    """
    if coord_scale == 1.0 and not any((flip_x, flip_y, transpose)):
        return scan
    if not (math.isfinite(coord_scale) and coord_scale != 0):
        raise ConfigError(f"coord_scale = {coord_scale} is not possible: expected a number other than 0.")
    signs = np.array([-1.0 if flip_y else 1.0, -1.0 if flip_x else 1.0])
    positions = scan.positions * signs * coord_scale
    if transpose:
        positions = positions[:, ::-1]
    return scan.replace(positions=np.ascontiguousarray(positions), object=None, object_origin=None)


def _container(scan: Scan, config: TrainingConfig, n_groups: int | None) -> Container:
    """The groups that training draws from a scan, or one group for every pattern."""
    if n_groups is not None and config.model.gridsize == 1:
        n_groups = min(n_groups, len(scan))
    return make_container(
        scan,
        config.model.gridsize,
        n_groups,
        config.neighbor_count,
        config.seed,
        config.enable_oversampling and n_groups is not None,
        sequential=config.sequential_sampling,
        at_most=sys.maxsize,  # PtychoPINN's callers take X for an array
    )


def _cut(image: NDArray[Any], origin: tuple[float, float], half: int, fill: float) -> NDArray[Any]:
    """The square of 2 half pixels around position (0, 0)."""
    square = np.full((2 * half, 2 * half), fill, dtype=image.dtype)
    first = [round(float(value)) + half for value in origin]
    low = [max(0, start) for start in first]
    high = [min(2 * half, start + size) for start, size in zip(first, image.shape, strict=True)]
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    square[inside] = image[tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))]
    return square


def _draw(image: Image, colours: str, path: Path) -> None:
    from ptycho.evaluation.drawing import new_figure, png_bytes, style

    figure = new_figure(8, 8)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(image, cmap=colours), ax=axes, shrink=0.8)
    axes.set(xlabel="column (pixels)", ylabel="row (pixels)")
    style(axes)
    write_bytes(png_bytes(figure), path, overwrite=True)
