"""Train a network before there is a scan: on simulated objects, lit and scanned as a measured scan was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.config import TrainingConfig, validate
from ptycho.config.settings import setting
from ptycho.data import Scan
from ptycho.model.bundle import Bundle
from ptycho.observers import EpochProgress
from ptycho.physics import dead_leaves_object, lines_object, picture_object, random_field_object, simulate
from ptycho.workflows.fine_tuning import settled
from ptycho.workflows.run import Counters, train_scan
from ptycho.workflows.simulate import SimulationConfig
from ptycho.workflows.train import beam_of

__all__ = ["PretrainOptions", "known_beam", "pretrain_scan", "simulated_like"]

_PICTURES = ("astronaut", "brick", "camera", "coffee", "coins", "grass", "gravel", "moon", "page", "text")
"""Pictures that scikit-image brings along."""
_FAINTEST = 0.25
"""Part of the contrast that an object has at least."""
_MARGIN = 2
"""Pixels that interpolation and a shift by a part of a pixel take beside the patches."""
_STREAM = 2
"""Keeps these random numbers apart from those of groups and batches, which have the same seed."""


@dataclass
class PretrainOptions:
    """The objects of a pretraining; how many patterns there are in all says ``n_groups``."""

    objects: str = setting(
        "mixed",
        "what the simulated objects look like; mixed takes lines, random fields and dead leaves in turn",
        choices=("mixed", "lines", "random_field", "dead_leaves", "pictures"),
    )
    n_objects: int = setting(
        16, "simulated objects, each scanned at neighbouring positions of SCAN; more if SCAN has too few", at_least=1
    )
    amplitude_min: float = setting(
        SimulationConfig.amplitude_min,
        "smallest amplitude of an object; each has a contrast of its own up to this",
        at_least=0,
        at_most=1,
    )
    phase: float = setting(
        SimulationConfig.phase, "largest phase of an object on either side of 0, as for the amplitude", unit="radians",
        at_least=0,
    )  # fmt: skip


def pretrain_scan(
    scan: Scan,
    config: TrainingConfig,
    options: PretrainOptions | None = None,
    epochs: EpochProgress | None = None,
    counters: Counters | None = None,
    log_dir: str | Path | None = None,
    resume: bool = False,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Train a network for scans of one beamline, without any of them but its beam.

    Parameters
    ----------
    scan : a measured scan, see :func:`simulated_like`.
    config : the training, as for :func:`ptycho.workflows.run.train_scan`.
    options : the objects.
    epochs, counters, log_dir, resume, overwrite : as in :func:`ptycho.workflows.run.train_scan`.

    Raises
    ------
    ConfigError, DataError, BackendError, OutputError
        As :func:`ptycho.workflows.run.train_scan`.
    """
    simulated = simulated_like(scan, config, options, counters)
    return train_scan(simulated, known_beam(config), epochs, counters, log_dir, resume, overwrite=overwrite)


def known_beam(config: TrainingConfig) -> TrainingConfig:
    """The settings with which simulated patterns are learned from: their probe is known and needs no refinement."""
    return dataclasses.replace(config, refine_probe=False)


def simulated_like(
    scan: Scan, config: TrainingConfig, options: PretrainOptions | None = None, counters: Counters | None = None
) -> Scan:
    """Simulated objects, side by side, lit and scanned as a measured scan was.

    Each object is scanned at a random one of the scan's positions and its nearest neighbours, so that step and order
    are the measured ones; probe (as a training of the scan would refine it), photons, mask and lengths are the scan's.

    Parameters
    ----------
    scan : the measured scan.
    config : the training: ``n_groups`` patterns are simulated, with ``seed``.
    options : the objects.
    counters : makes a callback (done, total) for a step of the work from its name.

    Returns
    -------
    Scan
        With the true objects as one and, in its metadata under ``simulation``, what was simulated.

    Raises
    ------
    ConfigError, DataError
        Naming the field.
    """
    config, options = settled(config), options or PretrainOptions()
    validate(config)
    validate(options)
    beam = beam_of(scan, config, None if counters is None or not config.model.start_iterations else counters("probe"))
    count = max(options.n_objects, math.ceil(config.n_groups / len(scan)))
    rng = np.random.default_rng([config.seed, _STREAM])
    regions = list(_regions(scan.positions, count, config.n_groups, rng))
    image, positions = _side_by_side(regions, scan.N, _objects(options, rng))
    told = {**dataclasses.asdict(options), "n_objects": count, "seed": config.seed, "scan": scan.name}
    return simulate(
        image,
        beam.probe,
        positions,
        beam.nphotons,
        rng,
        measurement=scan.measurement,
        mask=scan.mask,
        progress=None if counters is None else counters("simulate"),
        name=f"{count} objects like {scan.name}",
        wavelength=scan.wavelength,
        distance=scan.distance,
        detector_pixel_size=scan.detector_pixel_size,
        pixel_size=scan.pixel_size,
        metadata={"simulation": {**told, "scan_sha256": scan.fingerprint()}},
    )


def _regions(
    positions: NDArray[np.float64], count: int, patterns: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Neighbouring positions, (k, 2) pixels from their least row and column, ``patterns`` in all."""
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    for share in np.array_split(np.arange(patterns), count):
        if share.size:
            centre = positions[rng.integers(len(positions))]
            nearest = np.sort(tree.query(centre, k=np.arange(1, share.size + 1))[1])
            yield positions[nearest] - positions[nearest].min(axis=0)


def _side_by_side(
    regions: list[NDArray[np.float64]], size: int, draw: Callable[[int, tuple[int, int]], NDArray[np.complexfloating]]
) -> tuple[NDArray[np.complexfloating], NDArray[np.float64]]:
    """One image of all objects on a flat ground, each as large as its patches, and the positions on it."""
    rows, cols = (
        math.ceil(max(float(region[:, axis].max()) for region in regions)) + size + _MARGIN for axis in (0, 1)
    )
    wide = math.ceil(math.sqrt(len(regions)))
    image = np.ones((math.ceil(len(regions) / wide) * rows, wide * cols), np.complex64)
    placed = []
    for number, region in enumerate(regions):
        top, left = number // wide * rows, number % wide * cols
        image[top : top + rows, left : left + cols] = draw(number, (rows, cols))
        placed.append(region + np.asarray([top + size // 2, left + size // 2]))
    return image, np.concatenate(placed)


def _objects(
    options: PretrainOptions, rng: np.random.Generator
) -> Callable[[int, tuple[int, int]], NDArray[np.complexfloating]]:
    """A function that draws the object of a number and a shape."""
    kinds = ("lines", "random_field", "dead_leaves") if options.objects == "mixed" else (options.objects,)
    make: dict[str, Callable[..., NDArray[np.complexfloating]]] = {
        "lines": lines_object,
        "random_field": random_field_object,
        "dead_leaves": dead_leaves_object,
    }

    def draw(number: int, shape: tuple[int, int]) -> NDArray[np.complexfloating]:
        contrast = rng.uniform(_FAINTEST, 1.0, 2)
        amplitude = (1.0 - float(contrast[0]) * (1.0 - options.amplitude_min), 1.0)
        phase = (-float(contrast[1]) * options.phase, float(contrast[1]) * options.phase)
        kind = kinds[number % len(kinds)]
        if kind != "pictures":
            return make[kind](shape, rng, amplitude, phase, correlated=bool(rng.integers(2)))
        names = rng.choice(_PICTURES, 2)
        turns = int(rng.integers(4))
        turned = shape if turns % 2 == 0 else (shape[1], shape[0])
        picture = picture_object(str(names[0]), turned, amplitude, phase, phase_image=str(names[1]))
        return np.rot90(picture, turns)

    return draw
