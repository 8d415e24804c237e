"""Train a model on a scan: estimate, groups, the backend's loop, bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptycho.backends import backend_for_training, get_trainer, resolve_device
from ptycho.config import ModelConfig, TrainingConfig, validate
from ptycho.data import Container, Scan, make_container
from ptycho.data.container import GroupedAmplitudes
from ptycho.data.regions import compact_regions
from ptycho.errors import ConfigError, DataError
from ptycho.model.bundle import Bundle
from ptycho.model.checkpoints import Checkpoints
from ptycho.model.generators import Generator, find_generator
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.observers import EpochProgress
from ptycho.physics.patches import extract_patches
from ptycho.physics.photons import intensity_scale
from ptycho.physics.probe_from_data import probe_from_patterns
from ptycho.physics.reassembly import group_canvas_size
from ptycho.workflows.estimate import Estimate, scan_estimate
from ptycho.workflows.fine_tuning import origin_of, settled, start_of, with_network_of
from ptycho.workflows.live_reconstruction import attach_network, with_live_reconstruction
from ptycho.workflows.output_folder import TRAINING_LOGS, adopt_earlier, require_free

__all__ = ["Beam", "beam_of", "is_of_this_training", "train", "training_part"]

logger = logging.getLogger(__name__)

_BRIGHT_QUANTILE = 0.99


def train(
    scan: Scan,
    config: TrainingConfig,
    progress: Sequence[EpochProgress] = (),
    log_dir: str | Path | None = None,
    on_pass: Callable[[int, int], None] | None = None,
    generator: Generator | None = None,
    resume: bool = False,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Train a network on a scan, without labels unless ``model_type`` is supervised.

    Parameters
    ----------
    scan : the measurement; where it has no probe one is estimated from its patterns. Of a scan of more patterns than
        ``training_patterns`` (or ``n_groups``, if these are more) compact regions are looked at, and nothing else.
    config : everything that may be chosen; validated here.
    progress : told of every finished epoch; observers receive the object that the network makes of the scan then.
    log_dir : folder for checkpoints and CSV (and TensorBoard) logs; None keeps none.
    on_pass : told of every pass of the physics estimate.
    generator : a network of your own; default the one that ``config.model.architecture`` names.
    resume : go on after the last whole epoch of a training in ``log_dir`` that was broken off, to the weights that it
        would have had; from the beginning where there is none. Scan and settings must be its own, except where they
        have no part in the numbers (``output_dir``, ``num_workers``, ``tensorboard``), where it computes (``device``,
        ``devices``), and a larger ``nepochs`` where the schedule of the learning rate does not depend on it (constant,
        plateau).
    overwrite : replace an earlier training in ``log_dir``, as far as this library wrote its files.

    Returns
    -------
    Bundle
        The trained parameters with everything a reconstruction needs, and the losses per epoch.

    Raises
    ------
    ConfigError, DataError, BackendError
        Before any work is done, each naming the field.
    OutputError
        A file of ``log_dir`` is in the way, which is found before any work is done, or cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (96, 96)))
    >>> scan = ptycho.simulate(truth, np.ones((64, 64)), rng.uniform(32, 63, (6, 2)), 1e4)
    >>> model = ptycho.ModelConfig(N=64, n_filters_scale=1, start_iterations=1)
    >>> config = ptycho.TrainingConfig(model=model, nepochs=1, n_groups=4, batch_size=4, device="cpu", checkpoint=False)
    >>> bundle = ptycho.train(scan, config)
    >>> len(bundle.history["loss"])
    1
    """
    validate(config)
    _require_logs_free(log_dir, config, resume, overwrite)
    config, start = settled(config), start_of(config)
    backend = backend_for_training(config.backend)
    resolve_device(backend, config.device)
    _check(scan, config.model)
    generator = generator or find_generator(config.model.architecture)
    told = with_live_reconstruction(progress)
    trainer = get_trainer(config.backend)(config, told, log_dir)
    scan = training_part(scan, config).in_memory()
    checkpoints = None if log_dir is None or not config.checkpoint else Checkpoints(log_dir, config)
    going_on = resume and _goes_on(checkpoints, scan)
    beam = beam_of(scan, config, on_pass)
    scale = intensity_scale(beam.nphotons, scan.N)
    container = make_container(
        scan,
        config.model.gridsize,
        config.n_groups if config.model.gridsize > 1 else min(config.n_groups, len(scan)),
        config.neighbor_count,
        config.seed,
        config.enable_oversampling,
        sequential=config.sequential_sampling,
    )
    container.estimate = beam.estimate
    container.patches = _true_patches(scan, container.positions, config)
    params = initial_parameters(config.model, beam.probe, beam.nphotons, config.seed, beam.brightness, generator)
    if beam.estimate is not None:
        params["log_scale"] = _known_scale(params, beam.probe)
    if start is not None:
        params = with_network_of(params, start)
    side = group_canvas_size(container.relative, scan.N, config.model.gridsize)
    model = PtychoPINN(config.model, backend, scale, side, scan.mask, merge_window(beam.probe), generator)
    attach_network(told, model, container, config.device)
    if checkpoints is not None:
        checkpoints.begin(scan, going_on)
    if isinstance(container.X, GroupedAmplitudes) and log_dir is not None:
        container.X = container.X.unpacked(log_dir)
    training, validation = _split(container, config)
    result = trainer.fit(model, params, training, validation, going_on)
    return Bundle(
        result.params,
        config,
        scale,
        beam.nphotons,
        side,
        result.history,
        result.native,
        _origins(scan, config, start),
        scan.measurement,
    )


class Beam(NamedTuple):
    """How a scan was lit, and what plain physics makes of it."""

    nphotons: float
    """Mean photons per pattern."""
    brightness: float
    """Power of the beam over the mean power of a pattern."""
    probe: np.ndarray
    """(P, N, N) complex: refined with the estimate where there is one, else the scan's, in any unit."""
    estimate: Estimate | None
    """None where ``start_iterations`` is 0 or none."""


def beam_of(scan: Scan, config: TrainingConfig, on_pass: Callable[[int, int], None] | None = None) -> Beam:
    """How a scan was lit, found out as a training does.

    Parameters
    ----------
    scan : the measurement; where it has no probe one is estimated from its patterns.
    config : photons, passes of the estimate, whether they refine the probe, seed.
    on_pass : told of every pass.
    """
    nphotons = scan.mean_total_counts() if scan.measurement == "counts" else config.nphotons
    if scan.measurement == "counts":
        logger.info("the scan is in counts: %.4g photons per pattern, measured, take the place of nphotons", nphotons)
    brightness, probe, passes = _brightness(scan), _starting_probe(scan), config.model.start_iterations
    if not passes:
        return Beam(nphotons, brightness, probe, None)
    estimate = scan_estimate(scan, probe, nphotons, passes, brightness, config.refine_probe, config.seed, on_pass)
    return Beam(nphotons, brightness, estimate.probe, estimate)


def _origins(scan: Scan, config: TrainingConfig, start: Bundle | None) -> dict[str, Any]:
    """What the bundle will say of where it comes from."""
    found = {"simulated": scan.metadata["simulation"]} if isinstance(scan.metadata.get("simulation"), dict) else {}
    return found if start is None else {**found, "started_from": origin_of(start, config)}


def is_of_this_training(scan: Scan, config: TrainingConfig, log_dir: str | Path) -> bool:
    """Whether a folder has checkpoints from which the training of this scan with these settings could go on."""
    checkpoints = Checkpoints(log_dir, config)
    if not checkpoints.found():
        return False
    try:
        checkpoints.check(training_part(scan, config))
    except (ConfigError, DataError):
        return False
    return True


def _check(scan: Scan, model: ModelConfig) -> None:
    if scan.N != model.N:
        raise ConfigError(
            f"N: the scan's patterns are {scan.N} x {scan.N} and N is {model.N}; set --N {scan.N}, or crop or bin the "
            f"detector to {model.N} (--crop {model.N})."
        )
    if model.start_iterations is not None and model.gridsize > 1 and not model.object_big:
        raise ConfigError("object_big: false needs start_iterations none: one patch for a group has no estimate.")


def _require_logs_free(log_dir: str | Path | None, config: TrainingConfig, resume: bool, overwrite: bool) -> None:
    """Refuse a folder in which checkpoints and logs must not be written."""
    if log_dir is None:
        return
    folder = Path(log_dir)
    replace = overwrite or (resume and Checkpoints(folder, config).found())
    require_free(folder, TRAINING_LOGS if config.checkpoint else TRAINING_LOGS[-1:], replace, locked=True)
    if replace:
        adopt_earlier(folder)


def _goes_on(checkpoints: Checkpoints | None, scan: Scan) -> bool:
    """Whether there is a training to go on with, which must be this one."""
    if checkpoints is None:
        raise ConfigError("resume: only a training with checkpoints goes on: give log_dir, and leave checkpoint true.")
    if not checkpoints.found():
        logger.warning("no training to resume in %s: it starts from the beginning", checkpoints.folder)
        return False
    checkpoints.check(scan)
    return True


def _known_scale(params: dict[str, np.ndarray], probe: np.ndarray) -> np.ndarray:
    """The scale between the model's probe and the one that the estimate was made with."""
    power = float(np.sum(params["probe/real"] ** 2 + params["probe/imag"] ** 2))
    return np.asarray(0.5 * np.log(np.sum(np.abs(probe) ** 2) / power), dtype=np.float32)


def training_part(scan: Scan, config: TrainingConfig) -> Scan:
    """What the training looks at: a choice of the patterns if one is asked for, and no more than are useful."""
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    if config.n_subsample is not None and config.n_subsample < len(scan):
        chosen = np.random.default_rng(seed).choice(len(scan), config.n_subsample, replace=False)
        scan = scan.subset(np.sort(chosen))
    if config.training_patterns is None or len(scan) <= max(config.training_patterns, config.n_groups):
        return scan
    part = scan.subset(compact_regions(scan.positions, max(config.training_patterns, config.n_groups), seed))
    logger.warning(
        "The training looks at %d of the %d patterns, in compact regions; training_patterns says how many.",
        len(part),
        len(scan),
    )
    return part


def _brightness(scan: Scan, at_most: int = 2000) -> float:
    """Power of the brightest patterns over the mean: what an object that absorbs nothing would show."""
    index = np.unique(np.linspace(0, len(scan) - 1, min(len(scan), at_most)).astype(int))
    totals = np.concatenate(
        [scan.counts(index[i : i + 256]).sum(axis=(1, 2), dtype=np.float64) for i in range(0, index.size, 256)]
    )
    return float(max(1.0, np.quantile(totals, _BRIGHT_QUANTILE) / totals.mean()))


def _starting_probe(scan: Scan) -> np.ndarray:
    if scan.probe is not None:
        return scan.probe
    logger.warning("the scan has no probe: one is estimated from its mean pattern")
    return probe_from_patterns(scan.patterns, measurement=scan.measurement, mask=scan.mask)[None]


def _true_patches(scan: Scan, positions: np.ndarray, config: TrainingConfig) -> np.ndarray | None:
    """(G, N, N, C) true patches at the groups' positions (G, C, 2), where they are learned from."""
    wanted = config.model.model_type == "supervised" or (config.realspace_weight and config.realspace_mae_weight)
    if not wanted:
        return None
    if scan.object is None:
        raise DataError("objectGuess: the scan has no object to learn from; give one, or set model_type pinn.")
    patches = extract_patches(scan.object, positions - np.asarray(scan.object_origin), scan.N)
    return np.ascontiguousarray(np.moveaxis(patches, 1, -1))


def _split(container: Container, config: TrainingConfig) -> tuple[Container, Container | None]:
    count = round(config.validation_fraction * len(container))
    if count == 0 or count >= len(container):
        return container, None
    order = np.random.default_rng([config.seed, 1]).permutation(len(container))
    return container.subset(np.sort(order[count:])), container.subset(np.sort(order[:count]))
