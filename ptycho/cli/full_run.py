"""The whole job behind `ptycho run` and `ptycho demo`: train, reconstruct, refine, save."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ptycho.cli import iterative, learning
from ptycho.cli.options import Call, CommonOptions, ResumeOptions, RunOptions, reading
from ptycho.cli.outputs import reserved
from ptycho.files import adopt

__all__ = ["train_and_reconstruct"]


def train_and_reconstruct(
    call: Call, scan: Any, target: Any, config: Any, folder: Path | None = None
) -> dict[str, float] | None:
    """Train on a scan, reconstruct it or another one, refine the result if wanted, and save everything.

    Parameters
    ----------
    call : `run` or `demo`.
    scan, target, config : what is learned from, what is reconstructed if it is another scan, and the settings.
    folder : the output folder, where the caller has locked it.

    Returns
    -------
    dict or None
        Metrics of the result; None where all results of a run that is to be resumed are there already.
    """
    from ptycho.cli.live_page import ProgressDisplay
    from ptycho.model.bundle import BUNDLE_NAME
    from ptycho.workflows.output_folder import ENGINE_STATE, RESULT_FILES
    from ptycho.workflows.results import save_reconstruction
    from ptycho.workflows.resume import check_saved, is_finished, may_replace

    refine = call[RunOptions].refine > 0
    if refine:
        iterative.check_refinement(call, scan if target is None else target)
    resume = call.command == "run" and call[ResumeOptions].resume
    results = [*RESULT_FILES, BUNDLE_NAME, *(["network/reconstruction.h5"] if refine else [])]
    force = may_replace(scan, config, results, resume, call[CommonOptions].force)
    if resume and is_finished(scan, config, results):
        return None
    state = config.output_dir / ENGINE_STATE if refine else None
    with (
        reserved(call, force) if folder is None else contextlib.nullcontext(folder) as out,
        learning.keeping_training(call, config, state),
    ):
        if state is not None:
            adopt(out, [ENGINE_STATE])
        if state is not None and not resume:
            state.unlink(missing_ok=True)
        with ProgressDisplay(call, scan, target, out) as bars:
            result = iterative.network_result(call, scan, target, config) if resume else None
            if result is None:
                result = _network_result(call, scan, target, config, bars, out, resume, force)
                if refine:
                    save_reconstruction(result, out / "network", overwrite=force)
            bars.show(result)
            if refine:
                result = iterative.refined(call, result, scan if target is None else target, bars)
                bars.show(result)
        save_reconstruction(result, out, overwrite=force)
        if state is not None:
            check_saved(result, out)
            state.unlink(missing_ok=True)
    metrics: dict[str, float] = result.metrics
    return metrics


def _network_result(
    call: Call, scan: Any, target: Any, config: Any, bars: Any, out: Path, resume: bool, overwrite: bool
) -> Any:
    """Train, save the bundle and reconstruct."""
    from ptycho.workflows.run import run_scan, save_training

    result, _ = run_scan(
        scan,
        config,
        target,
        split_frc=call[RunOptions].frc,
        epochs=bars.epochs("train"),
        counters=bars.counter,
        on_trained=lambda bundle: save_training(bundle, out, overwrite=overwrite),
        log_dir=out,
        resume=resume,
        overwrite=overwrite,
        command=call.line,
        reading=reading(call),
    )
    return result
