"""The `ptycho` command: parses, calls the workflows, draws progress, prints figures.

Only what the chosen command needs is imported, so that `ptycho --help` is immediate.
"""

from __future__ import annotations

import difflib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho._version import __version__
from ptycho.cli_help import COMMANDS, overview
from ptycho.config.settings import setting
from ptycho.errors import ConfigError, PtychoError

RESULTS = ("reconstruction.h5", "reconstruction.npz", "report.html")
BUNDLE = "wts.h5.zip"


@dataclass
class CommonOptions:
    """What every command understands."""

    force: bool = setting(False, "replace the results of an earlier run")
    quiet: bool = setting(False, "draw no progress bars")
    verbose: bool = setting(False, "log what happens")


@dataclass
class RunOptions:
    """What `run` and `demo` do beside training and reconstruction."""

    frc: bool = setting(True, "reconstruct the two halves of the scan as well, for a Fourier ring correlation")


@dataclass
class Call:
    """One command as it was called: its words, its configurations, and which fields were set by hand."""

    command: str
    line: str
    positionals: dict[str, str]
    configs: list[Any] = field(default_factory=list)
    given: set[str] = field(default_factory=set)

    def __getitem__(self, cls: type) -> Any:
        """The configuration of that class."""
        return next(config for config in self.configs if isinstance(config, cls))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 refused with one sentence, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except PtychoError as error:
        print(f"ptycho: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError:
        print("ptycho: the memory does not suffice: use a smaller --batch_size, --crop or --bin.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ptycho: interrupted.", file=sys.stderr)
        return 130


def _dispatch(words: list[str]) -> int:
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in COMMANDS:
            return _dispatch([words[1], "--help"])
        print(overview(), end="")
        return 0
    if first in ("-V", "--version"):
        print(f"ptycho {__version__}")
        return 0
    if first not in COMMANDS:
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}."
        raise ConfigError(f"Unknown command {first}: {advice}")
    call = _parse(first, words[1:])
    if call is None:
        return 0
    level = logging.INFO if call[CommonOptions].verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    _RUNNERS[first](call)
    return 0


def _classes(command: str) -> list[tuple[type, str]]:
    """The configuration classes of a command with the headings of their flags."""
    from ptycho.config import InferenceConfig, TrainingConfig
    from ptycho.workflows.evaluate import EvaluateOptions
    from ptycho.workflows.inspect import InspectOptions
    from ptycho.workflows.scans import ScanOptions
    from ptycho.workflows.simulate import SimulationConfig

    scan = (ScanOptions, "reading the scan")
    training = (TrainingConfig, "training and where it runs")
    chosen = {
        "simulate": [(SimulationConfig, "what is simulated")],
        "inspect": [scan, (InspectOptions, "the picture")],
        "train": [scan, training],
        "reconstruct": [scan, (InferenceConfig, "reconstruction and where it runs")],
        "run": [scan, training, (RunOptions, "this command")],
        "evaluate": [(EvaluateOptions, "this command")],
        "demo": [(SimulationConfig, "what is simulated"), training, (RunOptions, "this command")],
    }
    return [*chosen[command], (CommonOptions, "every command")]


def _parse(command: str, words: list[str]) -> Call | None:
    """Read a command's words; None where only its help was wanted."""
    from ptycho.config.flags import add_flags, combine, make_parser, parse_flags

    text = COMMANDS[command]
    names = " ".join(name.upper() for name, _ in text.positionals)
    parser = make_parser(f"ptycho {command}", names, text.description, f"examples:\n{text.examples}")
    for name, meaning in text.positionals:
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=meaning)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings by name, flat or the model's under 'model:'")
    classes = _classes(command)
    seen: set[str] = set()
    for cls, title in classes:
        seen |= add_flags(parser, cls, title, skip=seen)
    if any(word in ("-h", "--help") for word in words):
        print(parser.format_help(), end="")
        return None
    kinds = [cls for cls, _ in classes]
    own, flags = parse_flags(parser, words, kinds)
    configs, given = combine(kinds, flags, own.pop("config", None))
    return Call(command, shlex.join(["ptycho", command, *words]), own, configs, given)


def _simulate(call: Call) -> None:
    from ptycho.cli_progress import ProgressBars
    from ptycho.data import save_npz
    from ptycho.workflows.inspect import draw_inspection, inspect_scan
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.simulate import SimulationConfig, simulate_scan

    started, config = time.perf_counter(), call[SimulationConfig]
    out = prepare_output(config.output_dir, ["scan.npz"], call[CommonOptions].force)
    with ProgressBars(not call[CommonOptions].quiet) as bars:
        scan = simulate_scan(config, bars.counter("simulate"))
    save_npz(scan, out / "scan.npz")
    draw_inspection(scan, inspect_scan(scan), out / "scan.png")
    print(f"patterns {len(scan)}")
    print(f"photons {scan.mean_total_counts():.4g} per pattern")
    _finish(started, out / "scan.npz")


def _inspect(call: Call) -> None:
    from ptycho.workflows.inspect import InspectOptions, draw_inspection, inspect_scan
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.scans import ScanOptions, open_scan

    path = Path(_needed(call, "scan"))
    scan = open_scan(path, call[ScanOptions])
    inspection = inspect_scan(scan)
    print("\n".join(inspection.lines()))
    out = prepare_output(call[InspectOptions].output_dir, [])
    picture = out / f"{path.name.split('.')[0]}.png"
    draw_inspection(scan, inspection, picture)
    print(f"picture {picture}")


def _train(call: Call) -> None:
    from ptycho.cli_progress import ProgressBars
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.run import save_training, train_scan

    started = time.perf_counter()
    scan, config = _open_for_training(call)
    out = prepare_output(config.output_dir, [BUNDLE], call[CommonOptions].force)
    with ProgressBars(not call[CommonOptions].quiet) as bars:
        bundle, history = train_scan(scan, config, bars.epochs("train"))
    save_training(bundle, config, out)
    for name, values in history.items():
        if values:
            print(f"{name} {values[-1]:.6g}")
    _finish(started, out / BUNDLE)


def _reconstruct(call: Call) -> None:
    from ptycho.cli_progress import ProgressBars
    from ptycho.config import InferenceConfig
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.run import open_bundle, reconstruct_scan
    from ptycho.workflows.results import save_reconstruction
    from ptycho.workflows.scans import ScanOptions, open_scan

    started, config = time.perf_counter(), call[InferenceConfig]
    config.test_data_file = Path(_needed(call, "scan", config.test_data_file))
    config.model_path = Path(_needed(call, "model_path", config.model_path))
    bundle = open_bundle(config)
    scan = open_scan(config.test_data_file, call[ScanOptions])
    out = prepare_output(config.output_dir, RESULTS, call[CommonOptions].force)
    with ProgressBars(not call[CommonOptions].quiet) as bars:
        result = reconstruct_scan(scan, bundle, config, bars.counter("reconstruct"), command=call.line)
    save_reconstruction(result, out, force=call[CommonOptions].force)
    _print_figures(result.figures)
    _finish(started, out)


def _run(call: Call) -> None:
    scan, config = _open_for_training(call)
    _train_and_reconstruct(call, scan, config)


def _train_and_reconstruct(call: Call, scan: Any, config: Any) -> Any:
    from ptycho.cli_progress import ProgressBars
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.run import run_scan, save_training
    from ptycho.workflows.results import save_reconstruction

    started, force = time.perf_counter(), call[CommonOptions].force
    out = prepare_output(config.output_dir, (*RESULTS, BUNDLE), force)
    with ProgressBars(not call[CommonOptions].quiet) as bars:
        result, bundle = run_scan(
            scan,
            config,
            split_frc=call[RunOptions].frc,
            epochs=bars.epochs("train"),
            progress=bars.counter,
            command=call.line,
        )
    save_training(bundle, config, out)
    save_reconstruction(result, out, force=force)
    _print_figures(result.figures)
    _finish(started, out)
    return result


def _evaluate(call: Call) -> None:
    from ptycho.workflows.evaluate import EvaluateOptions, evaluate_result, save_evaluation
    from ptycho.workflows.output import prepare_output

    started, options = time.perf_counter(), call[EvaluateOptions]
    comparison = evaluate_result(_needed(call, "result"), _needed(call, "truth"), options)
    _print_figures(comparison.metrics)
    if options.output_dir is not None:
        out = prepare_output(options.output_dir, ["evaluation.json", "evaluation.png"], call[CommonOptions].force)
        save_evaluation(comparison, out)
        _finish(started, out)
    else:
        print(f"seconds {time.perf_counter() - started:.1f}")


def _demo(call: Call) -> None:
    from ptycho.config import TrainingConfig
    from ptycho.data import save_npz
    from ptycho.evaluation import evaluate
    from ptycho.workflows.output import prepare_output
    from ptycho.workflows.run import DEMO_SETTINGS
    from ptycho.workflows.simulate import SimulationConfig, simulate_scan

    simulation, config = call[SimulationConfig], call[TrainingConfig]
    for target in (simulation, config, config.model):
        for name, value in DEMO_SETTINGS.items():
            if name not in call.given and hasattr(target, name):
                setattr(target, name, value)
    out = prepare_output(config.output_dir, ["scan.npz", *RESULTS, BUNDLE], call[CommonOptions].force)
    scan = simulate_scan(simulation)
    save_npz(scan, out / "scan.npz")
    result = _train_and_reconstruct(call, scan, config)
    _print_figures(evaluate(result, scan))


def _open_for_training(call: Call) -> tuple[Any, Any]:
    """The scan and the training configuration of a command, both checked before any work is done."""
    from ptycho.backend import get_trainer
    from ptycho.config import TrainingConfig, validate
    from ptycho.workflows.scans import ScanOptions, fit_model_to, open_scan

    config = call[TrainingConfig]
    config.train_data_file = Path(_needed(call, "scan", config.train_data_file))
    validate(config)
    get_trainer(config.backend)
    scan = open_scan(config.train_data_file, call[ScanOptions])
    fit_model_to(scan, config.model, adopt="N" not in call.given)
    return scan, config


def _needed(call: Call, name: str, otherwise: Path | None = None) -> str:
    value = call.positionals.get(name, otherwise)
    if value is None:
        raise ConfigError(
            f"'ptycho {call.command}' needs {name.upper()}: 'ptycho {call.command} --help' says what it is."
        )
    return str(value)


def _print_figures(figures: Mapping[str, float]) -> None:
    from ptycho.workflows.evaluate import figure_lines

    for line in figure_lines(figures):
        print(line)


def _finish(started: float, saved: Path) -> None:
    print(f"seconds {time.perf_counter() - started:.1f}")
    print(f"saved {saved}")


_RUNNERS: dict[str, Callable[[Call], None]] = {
    "simulate": _simulate,
    "inspect": _inspect,
    "train": _train,
    "reconstruct": _reconstruct,
    "run": _run,
    "evaluate": _evaluate,
    "demo": _demo,
}
