"""What a command will take, told before it starts: memory, disk and time, from a short trial on this machine.

The trial does what the command does, with its settings and its backend, on a few neighbouring patterns of the scan.
What grows with the scan is then scaled: time by patterns, groups, epochs and passes, memory by the pixels of the object
and by what is kept of the patterns, disk by the pixels of the object.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.data import Scan
from ptycho.data.lazy import in_memory
from ptycho.data.prefetch import MAX_PIXELS_READ, read_at_once
from ptycho.data.readers.limits import peak_memory, readable
from ptycho.data.regions import compact_regions
from ptycho.data.scan import MAX_BYTES_IN_MEMORY
from ptycho.evaluation import compare, split_scan_frc
from ptycho.evaluation.comparison import COMPARED_SIDE
from ptycho.evaluation.drawing import thinned
from ptycho.model.bundle import Bundle
from ptycho.physics import canvas_for
from ptycho.workflows.estimate import scan_estimate
from ptycho.workflows.fine_tuning import settled
from ptycho.workflows.r_factor import scan_r_factor
from ptycho.workflows.reconstruct import stitch
from ptycho.workflows.report import duration, write_pictures
from ptycho.workflows.results import Reconstruction, provenance, write_arrays
from ptycho.workflows.run import save_training, true_object
from ptycho.workflows.train import train, training_part

__all__ = ["Forecast", "forecast_reconstruction", "forecast_training"]

_BATCHES, _READ = 3, 128
_TRIAL_SIDE = 640
"""Side of the largest object that is drawn for a trial, pixels."""
_DRAWING = 0.65
"""Part of the time for its pictures that does not depend on their size."""
_PATTERN_BYTES, _NEIGHBOUR_BYTES = 150, 250
"""What is held for every pattern of a scan: positions, order, indices; and its neighbours where there are groups."""
_ESTIMATE_BYTES = 22
_STITCHING_BYTES = {False: 55, True: 80}
_SAVING_BYTES, _DRAWING_BYTES = 45, 170
_COMPARING_BYTES, _COMPARING_WHOLE_BYTES, _COMPARING_MIDDLE_BYTES, _COMPARING_TRUTH_BYTES = 24, 380, 250, 215
"""Per pixel of the object, measured: while the estimate is made; while it is stitched, without and with an FRC; while
it is saved, and of what is drawn; while halves are compared, and of what is compared, all of a small object or the
middle of a large one; while it and the true one are compared."""


@dataclass
class Forecast:
    """What work on a scan will take.

    Attributes
    ----------
    facts : lines of name and text.
    memory : bytes, of the process at its peak, on the host.
    disk : bytes, of what stays in the folder of the result.
    seconds : by step of the work.
    """

    facts: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    disk: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The forecast as lines of text."""
        steps = ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items() if value >= 0.05)
        return [
            *(f"{name} {text}" for name, text in self.facts.items()),
            f"memory {readable(self.memory)} at the peak",
            f"disk {readable(self.disk)}",
            f"time {duration(sum(self.seconds.values()))}: {steps}",
        ]


def forecast_training(
    scan: Scan,
    config: TrainingConfig,
    target: Scan | None = None,
    *,
    reconstructed: bool = True,
    frc: bool = True,
    opening: float = 0.0,
) -> Forecast:
    """What a training takes, and the reconstruction after it.

    Parameters
    ----------
    scan, config, target, frc : as for :func:`ptycho.workflows.run.run_scan`.
    reconstructed : false for a training alone.
    opening : seconds that the command took to load the framework and to open the scan.

    Raises
    ------
    ConfigError, DataError, BackendError
        The work is not possible; found out before it starts.
    """
    config = settled(config)
    part = training_part(scan, config)
    groups = config.n_groups if config.model.gridsize > 1 else min(config.n_groups, len(part))
    clock = Clock()
    size = max(64, (_BATCHES + 1) * config.batch_size)
    sample = _sample(part, size)
    trial = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, start_iterations=_few(config.model)),
        start_model=None,
        nepochs=2,
        n_groups=min(groups, _BATCHES * config.batch_size + groups % config.batch_size, len(sample)),
        n_subsample=None,
        training_patterns=None,
        validation_fraction=0.0,
        devices=1,
        strategy="auto",
    )
    with tempfile.TemporaryDirectory() as folder, clock("trial"):
        bundle = train(sample, trial, [clock.epoch], folder, clock.each_pass)
        save_training(bundle, folder)
        kept = _bytes_in(Path(folder))
    bundle.config = config
    found = Forecast(_facts(scan, part, groups, bundle), disk=kept)
    epoch = clock.gap("epoch")
    steps = -(-groups // config.batch_size)
    per_pattern = clock.gap("pass") / len(sample)
    reading = reading_seconds(part)
    if config.model.start_iterations:
        again = 0.0 if is_kept(part) else reading
        found.seconds["estimate"] = config.model.start_iterations * (per_pattern + again) * len(part)
    found.seconds["start"] = opening + max(0.0, clock.total("trial") - 2 * epoch - 2 * per_pattern * len(sample))
    found.seconds["training"] = config.nepochs * steps * epoch / -(-trial.n_groups // config.batch_size)
    found.seconds["reading"] = 2 * reading * len(part)
    found.memory = peak_memory() + _training_bytes(part, config, groups)
    if reconstructed:
        inference = InferenceConfig(neighbor_count=config.neighbor_count, seed=config.seed, device=config.device)
        after = forecast_reconstruction(scan if target is None else target, bundle, inference, frc=frc)
        found.memory = max(found.memory, after.memory)
        found.disk += after.disk
        for name, value in after.seconds.items():
            found.seconds[name] = found.seconds.get(name, 0.0) + value
        if target is not None:
            found.facts["target"] = after.facts["patterns"]
    return found


def forecast_reconstruction(
    scan: Scan,
    bundle: Bundle,
    config: InferenceConfig,
    *,
    backend: str | None = None,
    frc: bool = False,
    opening: float = 0.0,
) -> Forecast:
    """What a reconstruction with a trained bundle takes, until its result is saved.

    Parameters
    ----------
    scan, bundle, config, backend : as for :func:`ptycho.workflows.run.reconstruct_scan`.
    frc : with the two halves of the scan, unless its true object is known.
    opening : as for :func:`forecast_training`.

    Raises
    ------
    ConfigError, DataError, BackendError
        The work is not possible; found out before it starts.
    """
    model, clock, frc = bundle.config.model, Clock(), frc and true_object(scan) is None
    groups = len(scan) if config.n_groups is None else min(config.n_groups, len(scan))
    sample, reading = _sample(scan, _BATCHES * config.batch_size).in_memory(), reading_seconds(scan)
    few = dataclasses.replace(bundle.config.model, start_iterations=_few(model))
    trial = dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, model=few))
    with clock("trial"):
        stitched = stitch(
            sample,
            trial,
            backend,
            config.batch_size,
            config.device,
            neighbor_count=config.neighbor_count,
            seed=config.seed,
            progress=lambda done, total: clock.mark("batch"),
        )
    batches = -(-len(sample) // config.batch_size)
    batch = clock.gap("batch")
    with clock("passes"):
        if model.start_iterations:
            scan_estimate(sample, bundle.probe, bundle.nphotons, 2)
    with clock("r-factor"):
        scan_r_factor(stitched, stitched.probe, sample)
    with clock("hash"):
        sample.fingerprint()
    rate, again = len(scan) / len(sample), 0.0 if is_kept(scan) else reading * len(scan)
    times, judgements = 2 if frc else 1, 1 if stitched.estimate is None else 2
    found = Forecast(_facts(scan, scan, groups, bundle))
    if model.start_iterations:
        found.seconds["estimate"] = times * model.start_iterations * (clock.total("passes") / 2 * rate + again)
    start = clock.total("trial") - batch * batches - clock.total("passes")
    found.seconds["start"] = opening + max(0.0, (3 if frc else 1) * start)
    found.seconds["network"] = times * (batch * groups / min(config.batch_size, len(sample)) + again)
    judged = judgements * (clock.total("r-factor") * rate + 2 * again)
    found.seconds["figures"] = judged + clock.total("hash") * rate + again + reading * len(scan)
    add_saving(found, scan, stitched.probe, bundle.config, frc)
    return found


def add_saving(found: Forecast, scan: Scan, probe: np.ndarray, config: Any, frc: bool) -> None:
    """Add what the result takes, from one with an object of the true size, or of a smaller one where that is large."""
    (height, width), _ = canvas_for(scan.positions, scan.N)
    side = min(math.ceil(math.sqrt(height * width)), _TRIAL_SIDE)
    larger = height * width / side**2
    rng, clock = np.random.default_rng(0), Clock()
    image = np.exp(1j * rng.normal(0, 0.3, (side, side))).astype(np.complex64)
    chosen = np.unique(np.linspace(0, len(scan) - 1, min(4, len(scan))).round().astype(int))
    shown, known = scan.amplitude(chosen), true_object(scan) is not None
    result = Reconstruction(
        object=image,
        weight=rng.uniform(1, 2, (side, side)),
        origin=(0.0, 0.0),
        positions=np.zeros((1, 2)),
        probe=probe,
        history={"loss": [0.0, 1.0]},
        provenance=provenance(config, None, 0, ""),
        measured=shown,
        predicted=shown,
        truth=image if known else None,
    )
    if frc or known:
        with clock("comparing"):
            result.frc = (compare(result, image) if known else split_scan_frc(result, result)).frc
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with clock("arrays"):
            write_arrays(result, folder)
        arrays = _bytes_in(folder)
        with clock("pictures"):
            write_pictures(result, folder)
        found.disk = round(_bytes_in(folder) + (larger - 1) * arrays + 32 * len(scan))
    compared = larger if known else min(larger, COMPARED_SIDE**2 / side**2)
    found.seconds["figures"] = found.seconds.get("figures", 0.0) + clock.total("comparing") * compared
    pictures = _DRAWING + (1 - _DRAWING) * _shown(height, width) / side**2
    found.seconds["saving"] = clock.total("pictures") * pictures + clock.total("arrays") * larger
    grouped = isinstance(config, TrainingConfig) and config.model.gridsize > 1
    neighbours = _NEIGHBOUR_BYTES if grouped else 0
    found.memory = round(
        peak_memory()
        - _object_bytes(side, side, frc, known)
        + _object_bytes(height, width, frc, known)
        + (_PATTERN_BYTES + neighbours) * len(scan)
        + _kept_bytes(scan)
        + (_halves_bytes(scan) if frc else 0)
    )


def _object_bytes(height: int, width: int, frc: bool, known: bool) -> float:
    """What an object takes until it is saved, in the step that takes the most."""
    pixels = height * width
    comparing = 0.0
    if known:
        comparing = _COMPARING_TRUTH_BYTES * pixels
    elif frc:
        middle = min(_COMPARING_WHOLE_BYTES * pixels, _COMPARING_MIDDLE_BYTES * COMPARED_SIDE**2)
        comparing = _COMPARING_BYTES * pixels + middle
    return max(
        _STITCHING_BYTES[frc] * pixels, _SAVING_BYTES * pixels + _DRAWING_BYTES * _shown(height, width), comparing
    )


def _shown(height: int, width: int) -> int:
    """Pixels of an object from which its pictures are drawn."""
    rows, cols = thinned((slice(0, height), slice(0, width)))
    return len(range(height)[rows]) * len(range(width)[cols])


def _training_bytes(part: Scan, config: TrainingConfig, groups: int) -> int:
    """What a training on all of its patterns holds more than the trial did."""
    (height, width), _ = canvas_for(part.positions, part.N)
    gathered = 4 * groups * config.model.gridsize**2 * part.N**2
    estimate = _ESTIMATE_BYTES * height * width if config.model.start_iterations else 0
    return (
        estimate + _kept_bytes(part) + (gathered if gathered <= MAX_BYTES_IN_MEMORY else 0) + _PATTERN_BYTES * len(part)
    )


def _kept_bytes(scan: Scan) -> int:
    """Bytes of the patterns that are read into memory and kept there."""
    size = scan.patterns.dtype.itemsize * len(scan) * scan.N**2
    return size if size <= MAX_BYTES_IN_MEMORY and not isinstance(scan.patterns, np.ndarray) else 0


def _halves_bytes(scan: Scan) -> int:
    """Bytes of the two halves of a scan whose patterns are in memory; others are views of the file."""
    size = scan.patterns.dtype.itemsize * len(scan) * scan.N**2
    return size if isinstance(scan.patterns, np.ndarray) or size <= MAX_BYTES_IN_MEMORY else 0


def _facts(scan: Scan, part: Scan, groups: int, bundle: Bundle) -> dict[str, str]:
    patterns = f"{len(scan)} of {scan.N} x {scan.N}, {scan.measurement}"
    if len(part) < len(scan):
        patterns += f"; the training looks at {len(part)} of them"
    (height, width), _ = canvas_for(scan.positions, scan.N)
    network = sum(int(values.size) for name, values in bundle.params.items() if not name.startswith("probe/"))
    return {
        "patterns": patterns,
        "object": f"{height} x {width} pixels",
        "groups": f"{groups}, of {counted_patterns(bundle.config.model.gridsize**2)} each",
        "parameters": str(network),
    }


def counted_patterns(count: int) -> str:
    return "1 pattern" if count == 1 else f"{count} patterns"


def _sample(scan: Scan, size: int) -> Scan:
    return scan.subset(compact_regions(scan.positions, min(size, len(scan))))


def _few(model: ModelConfig) -> int | None:
    """Passes of the trial: two, of which the second is like the most of many."""
    return 2 if model.start_iterations else model.start_iterations


def is_kept(scan: Scan) -> bool:
    """Whether the patterns are in memory, or are read into it once for all."""
    return in_memory(scan.patterns) or _kept_bytes(scan) > 0


def reading_seconds(scan: Scan) -> float:
    """Seconds to read a pattern and to sum its counts, of whole pieces that a store unpacks at once."""
    size = min(len(scan), scan.frames_per_chunk * -(-_READ // scan.frames_per_chunk))
    step = read_at_once(_READ, scan.frames_per_chunk, MAX_PIXELS_READ // scan.N**2)
    started = time.perf_counter()
    for start in range(0, size, step):
        scan.counts(slice(start, min(start + step, size))).sum(dtype=np.float64)
    return (time.perf_counter() - started) / size


def _bytes_in(path: Path) -> int:
    return sum(each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file())


class Clock:
    """Seconds of pieces of work, and the times at which something came about."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._marks: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._totals[name] = time.perf_counter() - started

    def mark(self, name: str) -> None:
        """Note that something came about now."""
        self._marks.setdefault(name, []).append(time.perf_counter())

    def epoch(self, epoch: int, n_epochs: int, metrics: dict[str, float]) -> None:
        """Note the end of an epoch."""
        self.mark("epoch")

    def each_pass(self, done: int, total: int) -> None:
        """Note the end of a pass."""
        self.mark("pass")

    def total(self, name: str) -> float:
        """Seconds of a piece of work; 0 if there was none."""
        return self._totals.get(name, 0.0)

    def gap(self, name: str) -> float:
        """Median seconds between one and the next; 0 if it came about less than twice."""
        marks = self._marks.get(name, [])
        return float(np.median(np.diff(marks))) if len(marks) > 1 else 0.0
