"""The iterative engines behind the `ptycho` command: from scratch, from a result, and after a network."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho.cli.ending import keeping
from ptycho.cli.options import (
    Call,
    ClusterOptions,
    CommonOptions,
    DryRunOptions,
    IterativeOptions,
    RefinedOutput,
    ResumeOptions,
    RunOptions,
    needed,
    reading,
)
from ptycho.cli.outputs import reserved
from ptycho.cli.printing import print_lines
from ptycho.errors import ConfigError

logger = logging.getLogger(__name__)


def is_iterative(call: Call) -> bool:
    """Whether `reconstruct` was asked for an engine instead of a network."""
    return bool(call.given & {"engine", "epochs"})


def reconstruct(call: Call) -> tuple[dict[str, float], Path] | None:
    """Reconstruct without a network; the metrics, and the folder they are in; None after a dry run."""
    from ptycho.config import InferenceConfig
    from ptycho.workflows.refine import reconstruct_iteratively
    from ptycho.workflows.scans import ScanOptions, open_scan

    if "model_path" in call.given:
        flag = "--engine" if "engine" in call.given else "--epochs"
        raise ConfigError(
            f"{flag} reconstructs without a network: leave the bundle out, or refine its result with 'ptycho refine'."
        )
    if call[ClusterOptions].dask is not None:
        raise ConfigError("--dask is for the work of a network: an engine runs in one process, so leave --dask out.")
    _settings(call)
    config = call[InferenceConfig]
    path = needed(call, "scan", config.test_data_file)
    scan = open_scan(path, call[ScanOptions])
    if call[DryRunOptions].dry_run:
        _forecast(call, scan, None)
        return None
    return _iterate(
        call, config.output_dir, lambda engine, **how: reconstruct_iteratively(scan, engine, **how), scan, path
    )


def refine(call: Call) -> tuple[dict[str, float], Path] | None:
    """Refine a result; the metrics of both, and the folder they are in; None after a dry run."""
    from ptycho.workflows.refine import refine_result, scan_of_result, state_of_result
    from ptycho.workflows.results import load_reconstruction
    from ptycho.workflows.scans import ScanOptions, open_scan

    _settings(call)
    result = load_reconstruction(needed(call, "result"))
    path = call.positionals.get("scan") or scan_of_result(result)
    scan = open_scan(path, call[ScanOptions])
    if call[DryRunOptions].dry_run:
        _forecast(call, scan, state_of_result(result, scan, _settings(call)))
        return None
    folder = call[RefinedOutput].output_dir
    return _iterate(call, folder, lambda engine, **how: refine_result(result, scan, engine, **how), scan, path)


def _settings(call: Call) -> Any:
    from ptycho.config import EngineConfig
    from ptycho.engines.registry import configured

    config = call[EngineConfig]
    configured(config)
    return config


def _forecast(call: Call, scan: Any, start: Any) -> None:
    """Print what memory, disk and time the engine will take; nothing is written."""
    from ptycho.workflows.forecast_engine import forecast_engine

    found = forecast_engine(
        scan, _settings(call), start=start, frc=call[IterativeOptions].frc, opening=time.process_time()
    )
    print_lines(*found.lines())


def forecast_refinement(call: Call, found: Any, scan: Any) -> None:
    """Add what the epochs of `--refine` take to the forecast of a network's result."""
    from ptycho.workflows.forecast_engine import add_refinement, trial_probe

    add_refinement(found, scan, _refining(call), trial_probe(scan), call[RunOptions].frc)


def check_refinement(call: Call, scan: Any) -> None:
    """Refuse before the training what the engine of `--refine` would refuse after it."""
    from ptycho.engines import check_settings

    check_settings(scan, _refining(call))


def _refining(call: Call) -> Any:
    from ptycho.config import EngineConfig

    return dataclasses.replace(call[EngineConfig], epochs=call[RunOptions].refine)


def network_result(call: Call, scan: Any, target: Any, config: Any) -> Any:
    """The network's result of an interrupted `run --refine`, where it is whole and this run's own; else None."""
    from ptycho.errors import DataError
    from ptycho.workflows.results import load_reconstruction
    from ptycho.workflows.resume import is_finished

    if not (call[RunOptions].refine and is_finished(scan, config, ["network/reconstruction.h5"])):
        return None
    try:
        result = load_reconstruction(config.output_dir / "network")
    except DataError:
        return None
    seen = (scan if target is None else target).in_memory()
    return result if result.provenance.get("data", {}).get("sha256") == seen.fingerprint() else None


def refined(call: Call, result: Any, scan: Any, bars: Any) -> Any:
    """The network's result after the epochs of `--refine`."""
    from ptycho.config import TrainingConfig
    from ptycho.workflows.refine import ENGINE_STATE, refine_result

    options, training = call[RunOptions], call[TrainingConfig]
    better = refine_result(
        result,
        scan,
        _refining(call),
        split_frc=options.frc,
        counters=bars.epochs,
        checkpoint=training.output_dir / ENGINE_STATE,
        command=call.line,
        reading=reading(call),
        source=training.test_data_file or training.train_data_file,
    )
    better.metrics["seconds"] += result.metrics["seconds"]
    return better


def _iterate(
    call: Call, folder: Path, work: Callable[..., Any], scan: Any, source: Any
) -> tuple[dict[str, float], Path]:
    """Let an engine work and save what comes of it; its state is removed when the result is on the disk."""
    from ptycho.cli.live_page import ProgressDisplay
    from ptycho.files import adopt
    from ptycho.workflows.refine import ENGINE_STATE
    from ptycho.workflows.results import save_reconstruction
    from ptycho.workflows.resume import check_saved

    config, force, state = _settings(call), call[CommonOptions].force, folder / ENGINE_STATE
    replace = goes_on(call, state) or force
    with reserved(call, replace) as out, keeping_state(call, state):
        adopt(out, [ENGINE_STATE])  # so that a killed run is resumed, and removed with --force
        if force:
            state.unlink(missing_ok=True)
        with ProgressDisplay(call, scan, None, out) as bars:
            result = work(
                config,
                split_frc=call[IterativeOptions].frc,
                counters=bars.epochs,
                checkpoint=state,
                command=call.line,
                reading=reading(call),
                source=source,
            )
            bars.show(result)
        save_reconstruction(result, out, overwrite=replace)
        check_saved(result, out)
        state.unlink(missing_ok=True)
    return result.metrics, out


def goes_on(call: Call, state: Path) -> bool:
    """Whether `--resume` goes on from an engine's state, which the engine then checks to be of the same work.

    Raises
    ------
    ConfigError
        Both `--resume` and `--force` are given.
    """
    if not call[ResumeOptions].resume:
        return False
    if call[CommonOptions].force:
        raise ConfigError("resume: --resume goes on with a run and --force starts it anew; give one of the two.")
    if not state.is_file():
        logger.warning("There is no run to resume in %s: it starts from the beginning.", state.parent)
        return False
    return True


def keeping_state(call: Call, state: Path) -> contextlib.AbstractContextManager[None]:
    """See :func:`ptycho.cli.ending.keeping`, of an engine's state."""
    return keeping(call, lambda: f"the state is kept in {state}" if state.is_file() else "")
