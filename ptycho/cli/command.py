"""The `ptycho` command: parses, calls the workflows, draws progress, prints metrics.

Only what the chosen command needs is imported, so that `ptycho --help` is immediate.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptycho._version import __version__
from ptycho.cli import iterative, learning
from ptycho.cli.guard import guarded
from ptycho.cli.help_texts import COMMANDS, FAMILIES, overview
from ptycho.cli.options import (
    Call,
    ClusterOptions,
    CommonOptions,
    DryRunOptions,
    ResumeOptions,
    RunOptions,
    needed,
    parse,
)
from ptycho.cli.outputs import require_free_output, reserved
from ptycho.cli.printing import LineFormatter, json_lines, print_lines
from ptycho.config.processes import is_first_process
from ptycho.errors import ConfigError
from ptycho.visible import brief

BUNDLE = "wts.h5.zip"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, see :mod:`ptycho.cli.guard`."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words), words)


def _dispatch(words: list[str]) -> None:
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help"):
        if len(words) > 1 and (words[1] in COMMANDS or words[1] in FAMILIES):
            _dispatch([*words[1:], "--help"])
            return
        print_lines(*overview().rstrip("\n").split("\n"))
        return
    if first in ("-V", "--version"):
        print_lines(f"ptycho {__version__}")
        return
    rest = words[1:]
    if first in FAMILIES:
        if not rest or rest[0] in ("-h", "--help"):
            print_lines(*overview(first).rstrip("\n").split("\n"))
            return
        first, rest = f"{first} {rest[0]}", rest[1:]
    if first not in COMMANDS:
        first = brief(first)
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}."
        raise ConfigError(f"Unknown command {first}: {advice}")
    call = parse(first, rest)
    if call is None:
        return
    _start_logging(call[CommonOptions].verbose)
    require_free_output(call)
    with call.closing:
        _RUNNERS[first](call)


def _start_logging(verbose: bool) -> None:
    """Send the library's messages to standard error; what other libraries warn of only when asked."""
    level = logging.INFO if verbose else logging.WARNING
    if not is_first_process():  # a further process of a training says what the first one says
        level = logging.ERROR
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)


def _simulate(call: Call) -> None:
    from ptycho.cli.progress_bars import ProgressBars
    from ptycho.data import save_npz
    from ptycho.files import saved_together
    from ptycho.workflows.inspect import draw_inspection, inspect_scan
    from ptycho.workflows.simulate import SimulationConfig, simulate_scan

    started, config = time.perf_counter(), call[SimulationConfig]
    with reserved(call) as out:
        with ProgressBars(not call[CommonOptions].quiet) as bars:
            scan = simulate_scan(config, bars.counter("simulate"))
        with saved_together(out, overwrite=call[CommonOptions].force) as stage:
            save_npz(scan, stage / "scan.npz")
            draw_inspection(scan, inspect_scan(scan), stage / "scan.png")
    print_lines(f"patterns {len(scan)}")
    print_lines(f"photons {scan.mean_total_counts():.4g} per pattern")
    _finish(started, out / "scan.npz")


def _inspect(call: Call) -> None:
    from ptycho.workflows.inspect import draw_inspection, inspect_scan
    from ptycho.workflows.scans import ScanOptions, open_scan

    path = Path(needed(call, "scan"))
    scan = open_scan(path, call[ScanOptions])
    inspection = inspect_scan(scan)
    with reserved(call) as picture:
        draw_inspection(scan, inspection, picture, overwrite=True)
    print_lines(*inspection.lines())
    print_lines(f"picture {picture}")


def _convert(call: Call) -> None:
    from ptycho.workflows.convert import ConvertOptions, convert_scan
    from ptycho.workflows.scans import ScanOptions

    started = time.perf_counter()
    source, target = needed(call, "source"), needed(call, "target")
    with reserved(call):
        done = convert_scan(
            source, target, call[ScanOptions], call[ConvertOptions], overwrite=call[CommonOptions].force
        )
    print_lines(f"patterns {len(done.scan)} of {done.scan.N} x {done.scan.N}, {done.scan.measurement}")
    print_lines(f"format {done.format}")
    for sentence in done.lost:
        print_lines(f"note {sentence}")
    _finish(started, Path(target))


def _doctor(call: Call) -> None:
    from ptycho.cli.progress_bars import ProgressBars
    from ptycho.files import saved_together
    from ptycho.workflows.doctor import DoctorOptions, diagnose
    from ptycho.workflows.doctor_picture import draw_diagnosis
    from ptycho.workflows.output_folder import write_json
    from ptycho.workflows.scans import ScanOptions, open_scan

    started, options = time.perf_counter(), call[DoctorOptions]
    scan = open_scan(needed(call, "scan"), call[ScanOptions])
    folder: contextlib.AbstractContextManager[Path | None] = contextlib.nullcontext()
    if options.output_dir is not None:
        folder = reserved(call)
    with folder as out:
        with ProgressBars(not call[CommonOptions].quiet) as bars:
            diagnosis = diagnose(scan, options, bars.counter("orientations"))
        if out is not None:
            with saved_together(out, overwrite=True) as stage:
                write_json(diagnosis.as_dict(), stage / "doctor.json")
                draw_diagnosis(scan, diagnosis, stage / "doctor.png")
    print_lines(*diagnosis.lines())
    if out is None:
        print_lines(f"seconds {time.perf_counter() - started:.1f}")
    else:
        _finish(started, out / "doctor.png")


def _train(call: Call) -> None:
    _learn(call, lambda call: learning.opened(call)[::2])


def _pretrain(call: Call) -> None:
    _learn(call, learning.simulated)


def _learn(call: Call, begin: Callable[[Call], tuple[Any, Any]]) -> None:
    from ptycho.cli.live_page import ProgressDisplay
    from ptycho.workflows.resume import is_finished, may_replace
    from ptycho.workflows.run import save_training, train_scan

    started, resume = time.perf_counter(), call[ResumeOptions].resume
    scan, config = begin(call)
    if call[DryRunOptions].dry_run:
        learning.forecast(call, scan, None, config, reconstructed=False)
        return
    replace = may_replace(scan, config, [BUNDLE], resume, call[CommonOptions].force)
    if resume and is_finished(scan, config, [BUNDLE]):
        print_lines(f"finished {config.output_dir / BUNDLE}: nothing is left to resume")
        return
    with reserved(call, replace) as out, learning.keeping_training(call, config):
        with ProgressDisplay(call, scan, None, out) as bars:
            bundle = train_scan(scan, config, bars.epochs("train"), bars.counter, out, resume, overwrite=replace)
        save_training(bundle, out, overwrite=replace)
    for name, values in bundle.history.items():
        print_lines(f"{name} {values[-1]:.6g}")
    _finish(started, out / BUNDLE)


def _reconstruct(call: Call) -> None:
    from ptycho.backends import get_backend, resolve_device
    from ptycho.cli.live_page import ProgressDisplay
    from ptycho.config import InferenceConfig, validate
    from ptycho.workflows.results import save_reconstruction
    from ptycho.workflows.run import open_bundle, reconstruct_scan
    from ptycho.workflows.scans import ScanOptions, open_scan, open_scan_for_others
    from ptycho.workflows.worker_pool import connect_workers

    started, config = time.perf_counter(), call[InferenceConfig]
    if iterative.is_iterative(call):
        _iteratively(iterative.reconstruct, call)
        return
    if call[ResumeOptions].resume:
        raise ConfigError("resume: only the work of --engine can be resumed; leave --resume out.")
    path = needed(call, "scan", config.test_data_file)
    bundle = open_bundle(needed(call, "model_path", config.model_path))
    validate(config)
    dask, dry = call[ClusterOptions].dask, call[DryRunOptions].dry_run
    if dask is not None and dry:
        raise ConfigError("--dry-run forecasts one process and not the workers of --dask: leave one of the two out.")
    opened = open_scan if dask is None else open_scan_for_others
    scan = opened(path, call[ScanOptions])
    backend = config.backend if "backend" in call.given else None
    if dask is None:
        resolve_device(get_backend(backend or bundle.config.backend), config.device)
    if dry:
        from ptycho.workflows.forecast import forecast_reconstruction

        said = forecast_reconstruction(scan, bundle, config, backend=backend, opening=time.process_time())
        print_lines(*said.lines())
        return
    with reserved(call) as out:
        with connect_workers(dask) as workers, ProgressDisplay(call, scan, None, out) as bars:
            result = reconstruct_scan(
                scan,
                bundle,
                config,
                backend=backend,
                counters=bars.counter,
                command=call.line,
                reading=call[ScanOptions],
                workers=workers,
            )
            bars.show(result)
        save_reconstruction(result, out, overwrite=call[CommonOptions].force)
    _print_metrics(result.metrics)
    _finish(started, out)


def _refine(call: Call) -> None:
    _iteratively(iterative.refine, call)


def _iteratively(work: Callable[[Call], tuple[dict[str, float], Path] | None], call: Call) -> None:
    started = time.perf_counter()
    done = work(call)
    if done is not None:
        _print_metrics(done[0])
        _finish(started, done[1])


def _run(call: Call) -> None:
    opened = learning.opened(call)
    if call[DryRunOptions].dry_run:
        learning.forecast(call, *opened, frc=call[RunOptions].frc)
    else:
        _train_and_reconstruct(call, *opened)


def _train_and_reconstruct(call: Call, scan: Any, target: Any, config: Any) -> None:
    from ptycho.cli.full_run import train_and_reconstruct

    started = time.perf_counter()
    metrics = train_and_reconstruct(call, scan, target, config)
    if metrics is None:
        print_lines(f"finished {config.output_dir}: nothing is left to resume")
    else:
        _print_metrics(metrics)
        _finish(started, config.output_dir)


def _view(call: Call) -> None:
    from ptycho.cli.live_page import view

    view(call)


def _evaluate(call: Call) -> None:
    from ptycho.workflows.evaluate import EvaluateOptions, evaluate_result, save_evaluation

    started, options = time.perf_counter(), call[EvaluateOptions]
    comparison = evaluate_result(needed(call, "result"), needed(call, "truth"), options)
    _print_metrics(comparison.metrics)
    if options.output_dir is not None:
        with reserved(call) as out:
            save_evaluation(comparison, out, overwrite=call[CommonOptions].force)
        _finish(started, out)
    else:
        print_lines(f"seconds {time.perf_counter() - started:.1f}")


def _demo(call: Call) -> None:
    from ptycho.backends import backend_for_training, resolve_device
    from ptycho.cli.full_run import train_and_reconstruct
    from ptycho.cli.progress_bars import ProgressBars
    from ptycho.config import TrainingConfig, validate
    from ptycho.data import save_npz
    from ptycho.files import saved_together
    from ptycho.workflows.demo import apply_demo_settings
    from ptycho.workflows.scans import fit_model_to
    from ptycho.workflows.simulate import SimulationConfig, simulate_scan

    simulation, config = call[SimulationConfig], call[TrainingConfig]
    for target in (simulation, config):
        apply_demo_settings(target, call.given)
        validate(target)
    resolve_device(backend_for_training(config.backend), config.device)
    started = time.perf_counter()
    with reserved(call) as out:
        with ProgressBars(not call[CommonOptions].quiet) as bars:
            scan = simulate_scan(simulation, bars.counter("simulate"))
        fit_model_to(scan, config.model, adopt=True)
        with saved_together(out, overwrite=call[CommonOptions].force) as stage:
            save_npz(scan, stage / "scan.npz")
        metrics = train_and_reconstruct(call, scan, None, config, out)
    _print_metrics(metrics or {})
    _finish(started, out)


def _bundle_info(call: Call) -> None:
    from ptycho.workflows.bundles import InfoOptions, describe_model_file, description_lines

    found = describe_model_file(needed(call, "file"))
    print_lines(*(json_lines(found) if call[InfoOptions].json else description_lines(found)))


def _bundle_import(call: Call) -> None:
    from ptycho.workflows.bundles import ImportOptions, import_bundle
    from ptycho.workflows.run import save_training

    started, options = time.perf_counter(), call[ImportOptions]
    bundle = import_bundle(needed(call, "archive"), options.probe, options.data_dirs)
    with reserved(call) as out:
        save_training(bundle, out, overwrite=call[CommonOptions].force)
    print_lines(f"backend {bundle.config.backend}")
    print_lines(f"N {bundle.config.model.N}")
    print_lines(f"gridsize {bundle.config.model.gridsize}")
    _finish(started, out / BUNDLE)


def _bundle_export(call: Call) -> None:
    from ptycho.workflows.bundles import ExportOptions, export_bundle

    started, options = time.perf_counter(), call[ExportOptions]
    with reserved(call):
        target = export_bundle(
            needed(call, "bundle"), options.to, options.output_file, overwrite=call[CommonOptions].force
        )
    _finish(started, target)


def _print_metrics(metrics: Mapping[str, float]) -> None:
    from ptycho.workflows.evaluate import metric_lines

    for line in metric_lines(metrics):
        print_lines(line)


def _finish(started: float, saved: Path) -> None:
    print_lines(f"seconds {time.perf_counter() - started:.1f}")
    print_lines(f"saved {saved}")


_RUNNERS: dict[str, Callable[[Call], None]] = {
    "simulate": _simulate,
    "inspect": _inspect,
    "convert": _convert,
    "doctor": _doctor,
    "train": _train,
    "pretrain": _pretrain,
    "reconstruct": _reconstruct,
    "refine": _refine,
    "run": _run,
    "view": _view,
    "evaluate": _evaluate,
    "demo": _demo,
    "bundle info": _bundle_info,
    "bundle import": _bundle_import,
    "bundle export": _bundle_export,
}
