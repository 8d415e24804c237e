"""The words of one call of the `ptycho` command: which configurations they make, checked before any work."""

from __future__ import annotations

import contextlib
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.help_texts import COMMANDS
from ptycho.cli.printing import print_lines
from ptycho.config.settings import setting
from ptycho.errors import ConfigError

if TYPE_CHECKING:
    import argparse


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
    refine: int = setting(
        0, "epochs in which an iterative engine then refines the network's object and probe; 0 keeps them", at_least=0
    )


@dataclass
class ResumeOptions:
    """What a command does with the same work that was interrupted in its folder."""

    resume: bool = setting(
        False,
        "go on with the same work in --out that was interrupted, to the same result: a training after its last whole "
        "epoch, an iterative engine from its last state; from the beginning where there is none; nepochs of a training "
        "may be larger with lr_schedule constant or plateau",
    )


@dataclass
class DryRunOptions:
    """Only say what would be done."""

    dry_run: bool = setting(
        False, "try a few patterns, say what memory, disk and time everything would take, and write nothing"
    )


@dataclass
class ClusterOptions:
    """Which processes reconstruct."""

    dask: str | None = setting(
        None,
        "let the workers of a Dask cluster infer and stitch, to the same result; alone starts a process for every core "
        "of this machine, 4 four of them, tcp://host:port is the scheduler of a cluster; none works in one process",
        alone="local",
    )


@dataclass
class IterativeOptions:
    """What an iterative reconstruction does beside its own work."""

    frc: bool = setting(False, "reconstruct the two halves of the scan as well, for a Fourier ring correlation")


@dataclass
class RefinedOutput:
    """Where `refine` writes."""

    output_dir: Path = setting(Path("refined"), "folder for the refined result, created if missing")


@dataclass
class PageOptions:
    """A page on this machine."""

    port: int | None = setting(
        None, "port of the page on this machine; none takes a free one", at_least=1, at_most=65535
    )
    open: bool = setting(False, "open the page in the web browser")


@dataclass
class LiveOptions(PageOptions):
    """The page of a run while it works."""

    live: bool = setting(
        False, "serve a page on this machine that shows object, probe, positions and losses until the work is done"
    )


@dataclass
class ViewOptions(PageOptions):
    """The page of a result."""

    scan: Path | None = setting(None, "the scan that it was made from; none takes the one that the result names")


@dataclass
class Call:
    """One command as it was called: its words, its configurations, and which fields were set by hand."""

    command: str
    line: str
    positionals: dict[str, str]
    configs: list[Any] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What ends with the command."""

    def __getitem__(self, cls: type) -> Any:
        """The configuration of that class."""
        return next(config for config in self.configs if isinstance(config, cls))


_FORECAST = ("train", "pretrain", "reconstruct", "refine", "run")
"""Commands that have `--dry-run`; the others do not know the flag."""


def reading(call: Call) -> Any:
    """How the command reads its scan; None for a command that makes one."""
    from ptycho.workflows.scans import ScanOptions

    return next((config for config in call.configs if isinstance(config, ScanOptions)), None)


def _classes(command: str, engine: str) -> list[tuple[type, str]]:
    """The configuration classes of a command, for an engine, with the headings of their flags."""
    from ptycho.config import InferenceConfig, TrainingConfig
    from ptycho.workflows.bundles import ExportOptions, ImportOptions, InfoOptions
    from ptycho.workflows.convert import ConvertOptions
    from ptycho.workflows.doctor import DoctorOptions
    from ptycho.workflows.evaluate import EvaluateOptions
    from ptycho.workflows.inspect import InspectOptions
    from ptycho.workflows.pretrain import PretrainOptions
    from ptycho.workflows.scans import ScanOptions
    from ptycho.workflows.simulate import SimulationConfig

    scan = (ScanOptions, "reading the scan")
    training = (TrainingConfig, "training and where it runs")
    resume = (ResumeOptions, "work that was interrupted")
    live = (LiveOptions, "the page")
    cluster = (ClusterOptions, "several processes or machines")
    settings = _engine_settings(engine)
    iterative = [(settings, f"the iterative engine {engine}"), (IterativeOptions, "this command"), resume, live]
    run = [(RunOptions, "this command"), (settings, f"the iterative engine {engine} of --refine"), live]
    chosen: dict[str, list[tuple[type, str]]] = {
        "simulate": [(SimulationConfig, "what is simulated")],
        "inspect": [scan, (InspectOptions, "the picture")],
        "convert": [scan, (ConvertOptions, "what is written")],
        "doctor": [scan, (DoctorOptions, "the examination")],
        "train": [scan, training, resume, live],
        "pretrain": [scan, (PretrainOptions, "the simulated objects"), training, resume, live],
        "reconstruct": [scan, (InferenceConfig, "reconstruction and where it runs"), cluster, *iterative],
        "refine": [scan, *iterative, (RefinedOutput, "where it goes")],
        "run": [scan, training, resume, *run],
        "view": [(ViewOptions, "the page"), scan],
        "evaluate": [(EvaluateOptions, "this command")],
        "demo": [(SimulationConfig, "what is simulated"), training, *run],
        "bundle info": [(InfoOptions, "this command")],
        "bundle import": [(ImportOptions, "this command")],
        "bundle export": [(ExportOptions, "this command")],
    }
    dry = [(DryRunOptions, "before it starts")] if command in _FORECAST else []
    return [*chosen[command], *dry, (CommonOptions, "every command")]


ITERATIVE = ("reconstruct", "refine", "run", "demo")
"""Commands with an iterative engine, of which the last two set its epochs by ``--refine``."""


def _engine_settings(engine: str) -> type:
    """The class of an engine's settings; the usual engine is not imported for it."""
    from ptycho.config import EngineConfig

    if engine == EngineConfig.engine:
        return EngineConfig
    from ptycho.engines.registry import find_engine

    return find_engine(engine).settings


def _named_engine(command: str, words: list[str]) -> str:
    """The engine that a command's words, or the file of settings that they name, choose."""
    from ptycho.config import EngineConfig, load_yaml_config
    from ptycho.config.flags import FlagParser

    parser = FlagParser(prog=f"ptycho {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("--engine")
    parser.add_argument("--config")
    named, _ = parser.parse_known_args(words)
    from_file = load_yaml_config(named.config).get("engine") if named.config and not named.engine else None
    return str(named.engine or from_file or EngineConfig.engine)


def _explanation(name: str, engine: str) -> str | None:
    """Why a setting is not known, where other engines have it."""
    from ptycho.engines.registry import settings_elsewhere

    others = settings_elsewhere(name.replace("-", "_"), engine)
    if not others:
        return None
    of = " and ".join(others)
    return f"{name} is a setting of {of} and not of {engine}: leave it out, or choose --engine {others[0]}."


def _other_defaults(command: str) -> Mapping[str, Any]:
    """Values that a command starts from instead of the defaults of its configurations."""
    if command != "demo":
        return {}
    from ptycho.workflows.demo import DEMO_SETTINGS

    return DEMO_SETTINGS


def parse(command: str, words: list[str]) -> Call | None:
    """Read a command's words; None where only its help was wanted."""
    from ptycho.config import EngineConfig, TrainingConfig
    from ptycho.config.engines import fields_of_others
    from ptycho.config.flags import add_flags, combine, make_parser, parse_flags

    text = COMMANDS[command]
    names = " ".join(name.upper() for name, _ in text.positionals)
    parser = make_parser(f"ptycho {command}", names, text.description, f"examples:\n{text.examples}")
    for name, meaning in text.positionals:
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=meaning)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings by name, flat or the model's under 'model:'")
    engine = _named_engine(command, words) if command in ITERATIVE else EngineConfig.engine
    classes = _classes(command, engine)
    without = {"epochs"} if command in ITERATIVE[2:] else set()
    seen: set[str] = set(without)
    for cls, title in classes:
        seen |= fields_of_others(cls, engine)
        seen |= add_flags(parser, cls, title, seen, _other_defaults(command))
    if any(word in ("-h", "--help") for word in words):
        _list_backends(parser, trains=any(cls is TrainingConfig for cls, _ in classes))
        print_lines(*parser.format_help().rstrip("\n").split("\n"))
        return None
    kinds = [cls for cls, _ in classes]
    with _printed_warnings():
        explain = partial(_explanation, engine=engine) if command in ITERATIVE else lambda name: None
        own, flags = parse_flags(parser, words, kinds, explain)
        configs, given = combine(kinds, flags, own.pop("config", None), without, explain)
    return Call(command, shlex.join(["ptycho", *command.split(), *words]), own, configs, given)


def _list_backends(parser: argparse.ArgumentParser, trains: bool) -> None:
    """Show the possible backends in the help of ``--backend`` and say which of them are installed."""
    from ptycho.backends import available_backends, available_trainers, is_installed

    names = available_trainers() if trains else available_backends()
    installed = ", ".join(name for name in names if is_installed(name)) or "none"
    for action in parser._actions:
        if action.dest == "backend":
            action.metavar = "|".join(names)
            action.help = f"{action.help} (installed here: {installed})"


@contextlib.contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print what is warned of, such as renamed flags, as sentences without a place in the source."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", FutureWarning)
        yield
    for message in dict.fromkeys(str(each.message) for each in noticed):
        print(f"ptycho: {message}", file=sys.stderr)


def needed(call: Call, name: str, otherwise: Path | None = None) -> str:
    """A word that the command cannot do without."""
    value = call.positionals.get(name, otherwise)
    if value is None:
        raise ConfigError(
            f"'ptycho {call.command}' needs {name.upper()}: 'ptycho {call.command} --help' says what it is."
        )
    return str(value)
