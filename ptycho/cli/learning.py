"""What the commands that train begin with: the scan, the configuration, the simulated objects, the forecast."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from ptycho.cli import iterative
from ptycho.cli.ending import keeping
from ptycho.cli.options import Call, CommonOptions, ResumeOptions, RunOptions, needed
from ptycho.cli.printing import print_lines


def opened(call: Call) -> tuple[Any, Any, Any]:
    """The scan to learn from, another one to reconstruct (or None), and the configuration, checked before any work."""
    from ptycho.backends import backend_for_training, resolve_device
    from ptycho.config import TrainingConfig, validate
    from ptycho.workflows.fine_tuning import settled
    from ptycho.workflows.scans import ScanOptions, fit_model_to, open_scan

    config = call[TrainingConfig]
    config.train_data_file = Path(needed(call, "scan", config.train_data_file))
    validate(config)
    config.model = settled(config, call.given).model
    scan = open_scan(config.train_data_file, call[ScanOptions])
    fit_model_to(scan, config.model, adopt="N" not in call.given and config.start_model is None)
    target = None
    if config.test_data_file is not None and call.command == "run":
        target = open_scan(config.test_data_file, call[ScanOptions])
        fit_model_to(target, config.model, adopt=False)
    resolve_device(backend_for_training(config.backend), config.device)
    return scan, target, config


def simulated(call: Call) -> tuple[Any, Any]:
    """The simulated objects of a pretraining, and its configuration."""
    from ptycho.cli.progress_bars import ProgressBars
    from ptycho.workflows.pretrain import PretrainOptions, known_beam, simulated_like

    scan, _, config = opened(call)
    with ProgressBars(not call[CommonOptions].quiet) as bars:
        return simulated_like(scan, config, call[PretrainOptions], bars.counter), known_beam(config)


def keeping_training(call: Call, config: Any, state: Path | None = None) -> contextlib.AbstractContextManager[None]:
    """See :func:`ptycho.cli.ending.keeping`, of a training's checkpoints and the state of an engine after it."""
    folder = config.output_dir / "checkpoints"
    before = _changes(folder)

    def kept() -> str:
        if state is not None and state.is_file():
            return f"the state is kept in {state}"
        now = _changes(folder)
        of_this = now != before or (call.command != "demo" and call[ResumeOptions].resume)
        if not (config.checkpoint and now and of_this):
            return ""
        return f"the checkpoints up to the last whole epoch are kept in {folder}"

    return keeping(call, kept)


def _changes(folder: Path) -> dict[str, int]:
    """When each of the last checkpoints in a folder was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("last.*")}


def forecast(call: Call, scan: Any, target: Any, config: Any, **more: bool) -> None:
    """Print what memory, disk and time a training will take, and the refinement after it."""
    from ptycho.workflows.forecast import forecast_training

    opening = time.process_time()  # of the command so far, however busy the machine is
    found = forecast_training(scan, config, target, opening=opening, **more)
    if call.command == "run" and call[RunOptions].refine:
        iterative.forecast_refinement(call, found, scan if target is None else target)
    print_lines(*found.lines())
