"""What every command writes, and the check that nothing is in the way, before any work and before any framework."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptycho.cli.options import Call, CommonOptions, DryRunOptions, ResumeOptions, RunOptions, needed

__all__ = ["require_free_output", "reserved"]


@dataclass
class _Folder:
    """An output folder, the names that are written in it, and those that an earlier run of the kind may have left."""

    path: Path
    names: tuple[str, ...]
    renewed: tuple[str, ...] = ()


def require_free_output(call: Call) -> None:
    """Refuse what must not be replaced, or is being written by another run.

    Raises
    ------
    OutputError
        Something is in the way.
    """
    from ptycho.files import require_unlocked
    from ptycho.workflows.output_folder import require_free

    if any(isinstance(each, DryRunOptions) and each.dry_run for each in call.configs):
        return
    planned = _planned(call)
    if isinstance(planned, _Folder):
        require_free(planned.path, planned.names, call[CommonOptions].force, planned.renewed)
    elif planned is not None:
        _check_target(call, planned)
        require_unlocked(planned, inside=False)


@contextlib.contextmanager
def reserved(call: Call, force: bool | None = None) -> Iterator[Path]:
    """Lock what a command writes while the block lasts.

    Parameters
    ----------
    call : the command.
    force : permission to replace what this library wrote, where ``--force`` is not the only one.

    Yields
    ------
    Path
        The output folder, which is there, or the file to write.

    Raises
    ------
    OutputError
        Something is in the way, another run is writing there, or nothing can be written there.
    """
    from ptycho.files import only_writer
    from ptycho.workflows.output_folder import made_folder, output_folder

    planned = _planned(call)
    if isinstance(planned, _Folder):
        force = call[CommonOptions].force if force is None else force
        with output_folder(planned.path, planned.names, force, planned.renewed) as out:
            yield out
        return
    if planned is None:
        raise LookupError(call.command)
    with contextlib.ExitStack() as stack:
        if call.command == "inspect":
            stack.enter_context(made_folder(planned.parent))
        if planned.parent.is_dir():
            stack.enter_context(only_writer(planned, inside=False))
        _check_target(call, planned)
        yield planned


def _planned(call: Call) -> _Folder | Path | None:
    """The output folder with the names in it, or the file; None where nothing is written."""
    folder = _folder_of(call)
    if folder is not None or call.command not in ("inspect", "convert", "bundle export"):
        return folder
    if call.command == "inspect":
        from ptycho.workflows.inspect import InspectOptions

        return Path(call[InspectOptions].output_dir) / f"{Path(needed(call, 'scan')).name.split('.')[0]}.png"
    if call.command == "convert":
        needed(call, "source")
        return Path(needed(call, "target"))
    from ptycho.workflows.bundles import ExportOptions, export_target

    options = call[ExportOptions]
    return export_target(needed(call, "bundle"), options.to, options.output_file)


def _folder_of(call: Call) -> _Folder | None:
    from ptycho.workflows.output_folder import ENGINE_STATE, RESULT_FILES, TRAINING_FILES, TRAINING_LOGS

    if call.command in ("train", "pretrain", "run", "demo"):
        return _of_training(call)
    if call.command in ("reconstruct", "refine"):
        from ptycho.cli.options import RefinedOutput
        from ptycho.config import InferenceConfig

        config = call[RefinedOutput] if call.command == "refine" else call[InferenceConfig]
        names = (*RESULT_FILES, ENGINE_STATE)
        return _Folder(config.output_dir, names, names if _resumes(call) else (ENGINE_STATE,))
    if call.command == "simulate":
        from ptycho.workflows.simulate import SimulationConfig

        return _Folder(call[SimulationConfig].output_dir, ("scan.npz", "scan.png"))
    if call.command == "bundle import":
        from ptycho.workflows.bundles import ImportOptions

        own = tuple(name for name in TRAINING_FILES if name not in TRAINING_LOGS)
        return _Folder(call[ImportOptions].output_dir, own)
    if call.command == "doctor":
        from ptycho.workflows.doctor import DOCTOR_FILES, DoctorOptions

        place = call[DoctorOptions].output_dir
        return None if place is None else _Folder(place, DOCTOR_FILES, DOCTOR_FILES)
    if call.command == "evaluate":
        from ptycho.workflows.evaluate import EVALUATION_FILES, EvaluateOptions

        place = call[EvaluateOptions].output_dir
        return None if place is None else _Folder(place, EVALUATION_FILES)
    return None


def _of_training(call: Call) -> _Folder:
    from ptycho.config import TrainingConfig
    from ptycho.workflows.output_folder import ENGINE_STATE, RESULT_FILES, TRAINING_FILES

    config, names = call[TrainingConfig], TRAINING_FILES
    folder = config.output_dir
    if call.command in ("run", "demo"):
        names = (*RESULT_FILES, *names)
        if call[RunOptions].refine:
            names = (*names, *(f"network/{name}" for name in RESULT_FILES), ENGINE_STATE)
    if call.command == "demo":
        from ptycho.workflows.demo import DEMO_SETTINGS

        names = (*names, "scan.npz")
        folder = folder if "output_dir" in call.given else DEMO_SETTINGS["output_dir"]
    if config.tensorboard:
        names = (*names, "tensorboard/events")  # named for its folder: each run adds files of its own
    return _Folder(folder, names, names if _resumes(call) else ())


def _resumes(call: Call) -> bool:
    return any(isinstance(each, ResumeOptions) and each.resume for each in call.configs)


def _check_target(call: Call, target: Path) -> None:
    """Refuse a file that must not be replaced."""
    from ptycho.data.writers import require_writable, writer_for
    from ptycho.files import require_replaceable

    force = call[CommonOptions].force
    if call.command == "convert":
        from ptycho.workflows.convert import ConvertOptions

        require_writable(target, writer_for(target, call[ConvertOptions].to), overwrite=force)
    elif call.command == "inspect":
        from ptycho.workflows.inspect import is_inspection

        require_replaceable(target, overwrite=is_inspection(target), own=False)
    else:
        from ptycho.workflows.bundles import ExportOptions

        require_replaceable(target, overwrite=force, own=call[ExportOptions].output_file is None)
