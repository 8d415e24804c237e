"""Write files with the version of the library that is installed, for later versions to read.

    python make.py OUT.tar.xz

run in the environment of a checkout of that version (``git worktree add``). The archive holds scans, bundles, results,
what killed runs leave, settings and command lines. Most weights are zero, and results have few significant bits, so
that the archive stays small; everything is written by the library's own functions and commands.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import EngineConfig, InferenceConfig, ModelConfig, TrainingConfig, load_config, save_config
from ptycho.config import torch_fields as theirs
from ptycho.config.flags import SPELLINGS
from ptycho.config.settings import field_types, split_optional
from ptycho.data import load_scan, save_npz
from ptycho.engines import solve
from ptycho.model.bundle import load_bundle, save_bundle
from ptycho.workflows.refine import reconstruct_iteratively
from ptycho.workflows.results import save_reconstruction
from ptycho.workflows.simulate import SimulationConfig, simulate_scan
from ptycho.workflows.train import train
from ptycho_torch.lightning_utils import save_checkpoint

try:
    from ptycho.cli.options import _classes, parse
except ImportError:  # 0.1.0
    from ptycho.cli_words import _classes, parse
try:
    from ptycho.cli.help_texts import COMMANDS
except ImportError:
    from ptycho.cli_help import COMMANDS

BACKENDS = ("pytorch", "tensorflow", "jax")
CHANGED = {"N": 64, "start_model": None, "model_type": "supervised", "architecture": "cnn", "region": "0:30,:40.5"}
"""Values of settings for which no other value can be made up, or that decide what else is read."""


def live(channels: int) -> np.ndarray:
    """Which channels of a convolution have weights; the last ones reach the border head."""
    chosen = np.zeros(channels, bool)
    chosen[[0, -1]] = True
    return chosen


def sparse_start(folder: Path, scan: Any, **changes: Any) -> Path:
    """A bundle most of whose channels are zero and stay zero in a training that starts from it."""
    config = training("pytorch", nepochs=1, **changes)
    bundle = train(scan, config)
    for name, values in bundle.params.items():
        if name.endswith(("/kernel", "/bias")):
            kept = live(values.shape[-1])
            if name.endswith("/kernel"):
                kept = live(values.shape[-2])[:, None] & kept
            bundle.params[name] = np.where(kept, values, np.float32(0))
    bundle.native = {}
    return save_bundle(bundle, folder)


def training(backend: str, **changes: Any) -> TrainingConfig:
    """A short training of the smallest network."""
    model = {"n_filters_scale": 1, "gridsize": changes.pop("gridsize", 1), "estimate_passes": changes.pop("passes", 2)}
    values = {"nepochs": 3, "n_groups": 8, "batch_size": 4, "validation_fraction": 0.25, "device": "cpu", **changes}
    return TrainingConfig(model=ModelConfig(**model), backend=backend, **values)


def killed(kind: str, folder: Path) -> None:
    """Run a training or an engine, by the settings in its folder, in a process that kills itself."""
    done = subprocess.run([sys.executable, __file__, kind, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL


def be_killed(kind: str, folder: Path) -> None:
    """What that process does."""
    scan = load_scan("scan.npz")
    if kind == "train":
        train(scan, load_config(TrainingConfig, folder / "config.yaml"), [kill_after(2)], folder)
    else:
        config, state = load_config(EngineConfig, folder / "engine.yaml"), folder / "engine-state.npz"
        solve(scan, config, callbacks=[kill_after(4)], checkpoint=state, every=0.0)


def kill_after(epochs: int) -> Any:
    """A callback that ends the process without any cleaning up."""

    def tell(epoch: int, *_: Any) -> None:
        if epoch == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    return tell


def rounded(result: Any) -> Any:
    """The same result with seven significant bits."""

    def coarse(values: Any) -> Any:
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fc" or values.dtype == np.float64:
            return values
        bits = np.ascontiguousarray(values).view(np.float32).view(np.uint32)
        return ((bits + 0x8000) & 0xFFFF0000).view(np.float32).view(values.dtype)

    return dataclasses.replace(result, **{f.name: coarse(getattr(result, f.name)) for f in dataclasses.fields(result)})


def save_result(result: Any, folder: Path, kept: str = "reconstruction.h5") -> None:
    """One of the files of a result."""
    with tempfile.TemporaryDirectory() as temporary:
        save_reconstruction(rounded(result), temporary)
        folder.mkdir(parents=True)
        shutil.copy(Path(temporary) / kept, folder / kept)


def write_trainings(out: Path, scan: Any) -> None:
    """Bundles of every backend and gridsize; checkpoints of killed trainings, and the losses of whole ones."""
    wholes: dict[str, Any] = {}
    starts = {
        (gridsize, passes): sparse_start(out / f"start-{gridsize}-{passes}", scan, gridsize=gridsize, passes=passes)
        for gridsize, passes in ((1, 2), (2, 2), (1, None))
    }
    for backend in BACKENDS:
        for (gridsize, passes), start in starts.items():
            if passes is None and backend != "pytorch":
                continue
            config = training(backend, gridsize=gridsize, passes=passes, start_model=start)
            bundle = train(scan, config)
            save_bundle(bundle, out / "bundles" / f"{backend}-{gridsize}-{passes}")
            if (gridsize, passes) == (1, 2):
                wholes[backend] = bundle.history
        config = training(backend, start_model=starts[1, 2])
        folder = out / "killed" / backend
        folder.mkdir(parents=True)
        save_config(config, folder / "config.yaml")
        (folder / "whole.json").write_text(json.dumps(wholes[backend]))
        killed("train", folder)
    neutral = load_bundle(out / "bundles" / "pytorch-1-2")
    assert not neutral.native
    save_bundle(neutral, out / "bundles" / "neutral")
    names = ("data_config", "model_config", "training_config", "inference_config")
    classes = (theirs.DataConfig, theirs.ModelConfig, theirs.TrainingConfig, theirs.InferenceConfig)
    settings = {name: cls() for name, cls in zip(names, classes, strict=True)}
    save_checkpoint(neutral, settings, out / "ptychodus" / "checkpoints" / "best-checkpoint.ckpt")


def write_results(out: Path, scan: Any) -> None:
    """What networks and engines make of the scan, and the state that a killed engine keeps."""
    from ptycho.workflows.run import reconstruct_scan

    for name in ("pytorch-1-2", "pytorch-2-2", "pytorch-1-None"):
        folder = out / "bundles" / name
        bundle = load_bundle(folder)
        config = InferenceConfig(model_path=folder, backend=bundle.config.backend, device="cpu")
        save_result(reconstruct_scan(scan, bundle, config, backend="numpy", command="ptycho reconstruct"),
                    out / "results" / folder.name)  # fmt: skip
    settings = {
        "plain": {},
        "modes": {"modes": 2, "correct_positions": "gradient", "positions_from": 1, "opr_modes": 1, "opr_from": 1},
        "slices": {"slices": 2, "slice_spacing": 1e-6},
        "lsqml": {"engine": "lsqml"},
    }
    for name, changes in settings.items():
        config = EngineConfig(epochs=4, averaged=1, **changes)
        kept = "reconstruction.npz" if name == "plain" else "reconstruction.h5"
        result = reconstruct_iteratively(scan, config, command="ptycho reconstruct", source=out / "scan.npz")
        save_result(result, out / "results" / f"engine-{name}", kept)
        save_config(config, out / "results" / f"engine-{name}" / "engine.yaml")
    for name in ("plain", "modes"):
        momentum = 0.5 if name == "plain" else 0.0
        config = EngineConfig(epochs=6, averaged=1, engine_batch=4, momentum=momentum, **settings[name])
        folder = out / "killed" / f"engine-{name}"
        folder.mkdir(parents=True)
        save_config(config, folder / "engine.yaml")
        whole = solve(scan, config)
        (folder / "whole.json").write_text(json.dumps(whole.history["r_factor"]))
        killed("engine", folder)


def other(field: Any, hint: Any) -> Any:
    """A value of a setting that is not its default."""
    plain, _ = split_optional(hint)
    if field.name in CHANGED:
        return CHANGED[field.name]
    choices = [choice for choice in field.metadata.get("choices", ()) if choice != field.default]
    if choices:
        return choices[-1]
    if plain is bool:
        return not field.default
    if plain in (int, float):
        low = max(field.metadata.get("at_least") or 0, field.metadata.get("above") or 0)
        high = field.metadata.get("at_most")
        candidate = (field.default or low) + 1 if plain is int else ((field.default or low) + 0.25)
        return plain(candidate if high is None or candidate <= high else high / 2)
    return Path(f"some/{field.name}") if plain is Path else f"some-{field.name}"


def write_settings(out: Path) -> None:
    """Every setting of every configuration, none at its default, as YAML; and every flag of every command."""
    out.mkdir()

    def filled(cls: type) -> Any:
        hints = field_types(cls)
        fields = [field for field in dataclasses.fields(cls) if field.name != "model"]
        values = {field.name: other(field, hints[field.name]) for field in fields}
        return cls(**values, **({"model": filled(hints["model"])} if "model" in hints else {}))

    for cls in (TrainingConfig, InferenceConfig, EngineConfig):
        save_config(filled(cls), out / f"{cls.__name__}.yaml")
    flat = {name: value for name, value in plain(filled(TrainingConfig)).items() if value is not None}
    (out / "TrainingConfig-flat.yaml").write_text("".join(f"{name}: {value}\n" for name, value in flat.items()))
    lines = []
    for command in COMMANDS:
        values: dict[str, Any] = {}
        for cls, _ in _classes(command):
            values |= {name: value for name, value in plain(filled(cls)).items() if name not in values}
        if command == "demo":  # one flag of this name for two settings, which no value suits
            del values["noise"]
        for short in (False, True):
            words: list[str] = []
            for name, value in values.items():
                flag = SPELLINGS.get(name, (f"--{name.replace('_', '-')}",))[0] if short else f"--{name}"
                words += [flag] if value is True else [flag, str(value)]
            call = parse(command, words)
            assert call is not None
            assert call.given == set(values)
            found = {name: value for config in call.configs for name, value in plain(config).items()}
            lines.append({"command": command, "words": words, "values": found})
    (out / "commands.json").write_text(json.dumps(lines, indent=1))


def plain(config: Any) -> dict[str, Any]:
    """Settings by name, flat, as JSON has them."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= plain(value) if dataclasses.is_dataclass(value) else {
            field.name: str(value) if isinstance(value, Path) else value
        }  # fmt: skip
    return found


def store(path: Path) -> None:
    """Keep the members of a bundle as they are instead of compressed, since the archive is compressed as a whole."""
    with zipfile.ZipFile(path) as packed:
        members = {info.filename: packed.read(info) for info in packed.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as stored:
        for name, data in members.items():
            stored.writestr(name, data)


def main(target: Path) -> None:
    """Make everything in a temporary folder and pack it."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        os.chdir(out)
        here = Path()
        wave = {"wavelength": 1e-10, "pixel_size": 1e-8}
        made = SimulationConfig(
            size=84, positions="raster", step=6, jitter=1, nphotons=1e4, object="dead_leaves", **wave
        )
        save_npz(simulate_scan(made), here / "scan.npz")
        scan = load_scan(here / "scan.npz")
        write_settings(here / "settings")
        write_trainings(here, scan)
        write_results(here, scan)
        for path in here.rglob("*.zip"):
            store(path)
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for path in sorted(p for p in here.rglob("*") if p.is_file() and "logs" not in p.parts):
                info = archive.gettarinfo(path)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                with path.open("rb") as stream:
                    archive.addfile(info, stream)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve()) if len(sys.argv) == 2 else be_killed(sys.argv[1], Path(sys.argv[2]))
