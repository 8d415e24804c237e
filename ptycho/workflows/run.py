"""The whole job: train on a scan, reconstruct the full field, say how good it is."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config import InferenceConfig, TrainingConfig, publish, save_config, validate
from ptycho.data import Scan
from ptycho.errors import DataError, OutputError
from ptycho.evaluation import Comparison, compare, split_scan_frc
from ptycho.files import saved_together
from ptycho.model.bundle import BUNDLE_NAME, Bundle, save_bundle
from ptycho.model.checkpoints import Checkpoints
from ptycho.model.complete import load_complete_bundle
from ptycho.observers import EpochProgress
from ptycho.workflows.fine_tuning import settled
from ptycho.workflows.inference import Stitched
from ptycho.workflows.output_folder import adopt_earlier, require_free
from ptycho.workflows.r_factor import predict_amplitudes, sample_of, scan_r_factor
from ptycho.workflows.reconstruct import reconstruction_of, stitch
from ptycho.workflows.reconstruction import Reconstruction
from ptycho.workflows.scans import ScanOptions, subsample
from ptycho.workflows.train import train
from ptycho.workflows.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

Counter = Callable[[int, int], None]
Counters = Callable[[str], Counter]

_LOGS = ("checkpoints", "logs", "tensorboard")
_SMALLEST_HALF = 16


def train_scan(
    scan: Scan,
    config: TrainingConfig,
    epochs: EpochProgress | None = None,
    counters: Counters | None = None,
    log_dir: str | Path | None = None,
    resume: bool = False,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Train on a scan; the settings are published for callers of PtychoPINN's dictionary first.

    Parameters
    ----------
    scan
        The measurement.
    config
        Everything that may be chosen.
    epochs
        Called with (epoch, all epochs, losses) after each epoch.
    counters
        Makes a callback (done, total) for a step of the work from its name.
    log_dir
        Folder for checkpoints and logs of the training; none keeps none.
    resume
        Go on with a training in that folder that was broken off, see :func:`ptycho.workflows.train.train`.
    overwrite
        Replace an earlier training in that folder, as far as this library wrote its files.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.
    OutputError
        A checkpoint or a log cannot be written; before the first whole epoch nothing is left behind.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, nepochs=1, n_groups=4, batch_size=4, device="cpu", checkpoint=False)
    >>> bundle = ptycho.train_scan(scan, config)
    >>> ptycho.reconstruct(scan, bundle).probe.shape
    (1, 64, 64)
    """
    validate(config)
    config = settled(config)
    publish(config, measurement=scan.measurement)
    on_pass = None if counters is None or not config.model.start_iterations else counters("estimate")
    with _logs_whole(log_dir, config):
        return train(
            scan, config, () if epochs is None else (epochs,), log_dir, on_pass, resume=resume, overwrite=overwrite
        )


@contextlib.contextmanager
def _logs_whole(log_dir: str | Path | None, config: TrainingConfig) -> Iterator[None]:
    """Say what is left of a training when the disk takes no more: nothing, unless it could go on from that."""
    folder = Path(log_dir or ".")
    begun = [] if log_dir is None else [folder / name for name in _LOGS if not (folder / name).exists()]
    try:
        yield
    except OSError as error:
        left = "the epochs before are kept, and --resume goes on after them."
        if not Checkpoints(folder, config).found():
            left = "nothing was left behind."
            for path in begun:
                shutil.rmtree(path, ignore_errors=True)
        cause = error.__cause__ if isinstance(error, OutputError) else error
        reason = getattr(cause, "strerror", None) or str(error)
        raise OutputError(f"The training cannot be kept in {folder}: {reason}; {left}") from error


def open_bundle(path: str | Path) -> Bundle:
    """Load a trained bundle; its settings and scale are published for callers of PtychoPINN's dictionary.

    Parameters
    ----------
    path
        The file ``wts.h5.zip`` or the folder that holds it.

    Raises
    ------
    DataError
        The bundle cannot be read, or does not hold the network that its configuration describes.
    """
    bundle = load_complete_bundle(path)
    publish(bundle.config, intensity_scale=bundle.intensity_scale, measurement=bundle.measurement)
    return bundle


def reconstruct_scan(
    scan: Scan,
    bundle: Bundle,
    config: InferenceConfig | None = None,
    *,
    backend: str | None = None,
    split_frc: bool = False,
    counters: Counters | None = None,
    command: str = "",
    reading: ScanOptions | None = None,
    workers: WorkerPool | None = None,
) -> Reconstruction:
    """Reconstruct a scan with a trained bundle and say how well the object explains the patterns.

    Parameters
    ----------
    scan
        The measurement.
    bundle
        A trained model, from any backend.
    config
        Batch size, device, groups and choice of patterns; its backend is not used, since a bundle knows its own.
    backend
        Which computes; none takes the one that trained.
    split_frc
        Where the true object is not known: reconstruct the two halves of the scan too, every other pattern each, and
        put their Fourier ring correlation into the metrics. The network is shared, so this shows the noise and not
        what the network got wrong twice.
    counters
        Makes a callback (done, total) for a step of the work from its name.
    command, reading
        The command line, and how the scan was read, for the provenance.
    workers
        A Dask cluster's, from :func:`ptycho.workflows.worker_pool.connect_workers`.

    Returns
    -------
    Reconstruction
        Figures hold ``r_factor``, where the network corrected an estimate ``r_factor_estimate`` of that alone, and,
        of a simulated scan, those of :func:`ptycho.evaluation.evaluate` against the
        true object; of a measured one, if wanted, those of :func:`ptycho.evaluation.split_scan_frc`.

    Raises
    ------
    ConfigError, DataError, BackendError
        The scan does not fit the model, or the backend is not there.
    """
    config = dataclasses.replace(config or InferenceConfig(), model=bundle.config.model)
    validate(config)
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    chosen = subsample(scan, config.n_subsample, seed)
    scan = chosen.in_memory()
    seen = scan if workers is None else chosen  # the workers read the patterns themselves

    def stitched_part(part: Scan, label: str) -> Stitched:
        return stitch(
            part,
            bundle,
            backend,
            config.batch_size,
            config.device,
            n_groups=None if config.n_groups is None else min(config.n_groups, len(part)),
            neighbor_count=config.neighbor_count,
            seed=config.seed,
            progress=None if counters is None else counters(label),
            workers=workers,
        )

    started = time.perf_counter()
    stitched = stitched_part(seen, "reconstruct")
    metrics = _r_factors(stitched, seen, scan_r_factor if workers is None else workers.r_factor)
    metrics["n_patterns"] = float(len(scan))
    comparison, truth = _against_truth(stitched, scan)
    if truth is None and split_frc:
        comparison = _split_frc(seen, stitched_part)
    if comparison is not None:
        metrics |= comparison.metrics
    samples = sample_of(len(scan))
    metrics["seconds"] = time.perf_counter() - started
    predicted = predict_amplitudes(stitched, stitched.probe, scan.positions[samples])
    return dataclasses.replace(
        reconstruction_of(stitched, scan, bundle, command, reading),
        metrics=metrics,
        frc={} if comparison is None else comparison.frc,
        measured=scan.amplitude(samples),
        predicted=_scaled_to_counts(predicted, scan, bundle),
        truth=truth,
    )


def run_scan(
    scan: Scan,
    config: TrainingConfig,
    target: Scan | None = None,
    *,
    split_frc: bool = True,
    epochs: EpochProgress | None = None,
    counters: Counters | None = None,
    on_trained: Callable[[Bundle], None] | None = None,
    log_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    reading: ScanOptions | None = None,
) -> tuple[Reconstruction, Bundle]:
    """Train on a scan and reconstruct it, or another one.

    Parameters
    ----------
    scan, config, epochs, counters, log_dir, resume, overwrite
        As in :func:`train_scan`.
    target
        What is reconstructed; none reconstructs the scan that was learned from.
    on_trained
        Called with the bundle before the reconstruction begins, so that it can be saved whatever happens then.
    split_frc, command, reading
        As in :func:`reconstruct_scan`.

    Returns
    -------
    Reconstruction, Bundle

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, nepochs=1, n_groups=4, batch_size=4, device="cpu", checkpoint=False)
    >>> result, bundle = ptycho.run_scan(scan, config, split_frc=False)
    >>> files = ptycho.save_reconstruction(result, "out")
    >>> len(result.history["loss"])
    1
    """
    started = time.perf_counter()
    bundle = train_scan(scan, config, epochs, counters, log_dir, resume, overwrite=overwrite)
    if on_trained is not None:
        on_trained(bundle)
    inference = InferenceConfig(
        neighbor_count=config.neighbor_count, seed=config.seed, device=config.device, output_dir=config.output_dir
    )
    result = reconstruct_scan(
        scan if target is None else target,
        bundle,
        inference,
        split_frc=split_frc,
        counters=counters,
        command=command,
        reading=reading,
    )
    result.metrics["seconds"] = time.perf_counter() - started
    return result, bundle


def save_training(bundle: Bundle, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a trained bundle and, beside it, its configuration as ``config.yaml``.

    Parameters
    ----------
    bundle
        The model.
    folder
        Made with its parents if it does not exist.
    overwrite
        Replace those of an earlier training, as far as this library wrote them.

    Raises
    ------
    OutputError
        A file is in the way or cannot be written.
    """
    files = (BUNDLE_NAME, "config.yaml")
    require_free(folder, files, overwrite, locked=True)
    if overwrite:
        adopt_earlier(Path(folder))
    with saved_together(folder, overwrite=overwrite) as stage:
        save_bundle(bundle, stage / BUNDLE_NAME)
        save_config(bundle.config, stage / "config.yaml")


def _r_factors(stitched: Stitched, scan: Scan, r_factor: Callable[..., float]) -> dict[str, float]:
    """The result's, and that of the estimate which the network corrected."""
    found = {"r_factor": r_factor(stitched, stitched.probe, scan)}
    if stitched.estimate is not None:
        found["r_factor_estimate"] = r_factor(stitched.estimate, stitched.probe, scan)
        stitched.estimate = None  # as large as the object, and seen for the last time
    return found


def true_object(scan: Scan) -> NDArray[np.complexfloating] | None:
    """The object of a simulated scan, which is the true one; of others None."""
    return scan.object if "simulation" in scan.metadata else None


def _against_truth(stitched: Stitched, scan: Scan) -> tuple[Comparison | None, NDArray[np.complexfloating] | None]:
    """How far the object of a simulated scan is the true one, and that on the same pixels; nothing of other scans."""
    known = true_object(scan)
    if known is None:
        return None, None
    place = scan.object_origin or (0.0, 0.0)
    truth = _on_grid(known, np.subtract(stitched.origin, place), stitched.object.shape)
    return compare(stitched, known, place), truth


def _split_frc(scan: Scan, stitch: Callable[[Scan, str], Stitched]) -> Comparison | None:
    if len(scan) < 2 * _SMALLEST_HALF:
        logger.warning("%d patterns are too few to compare two halves of them; no FRC.", len(scan))
        return None
    halves = scan.split("alternate")
    first, second = (
        dataclasses.replace(stitch(half, f"half {number}"), estimate=None) for number, half in enumerate(halves, 1)
    )
    try:
        return split_scan_frc(first, second)
    except DataError as error:
        logger.warning("The halves of the scan cannot be compared: %s", error)
        return None


def _scaled_to_counts(predicted: NDArray[np.floating], scan: Scan, bundle: Bundle) -> NDArray[np.floating]:
    """Predicted amplitudes, which are in the model's photons per pattern, in those of the scan."""
    return predicted * np.sqrt(scan.mean_total_counts() / bundle.nphotons)


def _on_grid(image: NDArray[np.complexfloating], offset: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[Any]:
    """An image at the pixels ``offset + (i, j)``, bilinearly; 1 outside it."""
    from scipy.ndimage import map_coordinates

    axes = [start + np.arange(size) for start, size in zip(offset, shape, strict=True)]
    pixels = np.meshgrid(*axes, indexing="ij")
    real, imaginary = (
        map_coordinates(part, pixels, order=1, mode="constant", cval=fill)
        for part, fill in ((image.real, 1.0), (image.imag, 0.0))
    )
    return real + 1j * imaginary
