"""The iterative engines behind the `ptycho` command: from scratch, from a result, and after a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho.cli.options import Call, ClusterOptions, CommonOptions, IterativeOptions, RefinedOutput, RunOptions, needed
from ptycho.errors import ConfigError


def is_iterative(call: Call) -> bool:
    """Whether `reconstruct` was asked for an engine instead of a network."""
    return bool(call.given & {"engine", "epochs"})


def reconstruct(call: Call) -> tuple[dict[str, float], Path]:
    """Reconstruct without a network; the metrics, and the folder they are in."""
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
    config = call[InferenceConfig]
    path = needed(call, "scan", config.test_data_file)
    scan = open_scan(path, call[ScanOptions])
    return _iterate(
        call, config.output_dir, lambda engine, **how: reconstruct_iteratively(scan, engine, **how), scan, path
    )


def refine(call: Call) -> tuple[dict[str, float], Path]:
    """Refine a result; the metrics of both, and the folder they are in."""
    from ptycho.workflows.refine import refine_result, scan_of_result
    from ptycho.workflows.results import load_reconstruction
    from ptycho.workflows.scans import ScanOptions, open_scan

    result = load_reconstruction(needed(call, "result"))
    path = call.positionals.get("scan") or scan_of_result(result)
    scan = open_scan(path, call[ScanOptions])
    folder = call[RefinedOutput].output_dir
    return _iterate(call, folder, lambda engine, **how: refine_result(result, scan, engine, **how), scan, path)


def check_refinement(call: Call, scan: Any) -> None:
    """Refuse before the training what the engine of `--refine` would refuse after it."""
    from ptycho.engines import check_settings

    check_settings(scan, _refining(call))


def _refining(call: Call) -> Any:
    from ptycho.config import EngineConfig, EngineSettings, config_to_dict

    return EngineConfig(**config_to_dict(call[EngineSettings]), epochs=call[RunOptions].refine)


def refined(call: Call, result: Any, scan: Any, bars: Any) -> Any:
    """The network's result after the epochs of `--refine`."""
    from ptycho.config import TrainingConfig
    from ptycho.workflows.refine import refine_result

    options, training = call[RunOptions], call[TrainingConfig]
    better = refine_result(
        result,
        scan,
        _refining(call),
        split_frc=options.frc,
        counters=bars.epochs,
        command=call.line,
        source=training.test_data_file or training.train_data_file,
    )
    better.metrics["seconds"] += result.metrics["seconds"]
    return better


def _iterate(
    call: Call, folder: Path, work: Callable[..., Any], scan: Any, source: Any
) -> tuple[dict[str, float], Path]:
    """Let an engine work and save what comes of it."""
    from ptycho.cli.live_page import ProgressDisplay
    from ptycho.config import EngineConfig, validate
    from ptycho.workflows.output import output_folder
    from ptycho.workflows.refine import ENGINE_STATE
    from ptycho.workflows.results import RESULT_FILES, save_reconstruction

    config, force = call[EngineConfig], call[CommonOptions].force
    validate(config)
    with output_folder(folder, RESULT_FILES, force) as out:
        if force:
            (out / ENGINE_STATE).unlink(missing_ok=True)
        with ProgressDisplay(call, scan, None, out) as bars:
            result = work(
                config,
                split_frc=call[IterativeOptions].frc,
                counters=bars.epochs,
                checkpoint=out / ENGINE_STATE,
                command=call.line,
                source=source,
            )
            bars.show(result)
        save_reconstruction(result, out, force=force)
    return result.metrics, out
