"""Files and command lines of earlier versions go on working; `make.py` beside this file wrote the archives."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptycho.cli.options
import ptycho.config
from ptycho import cli
from ptycho.config import EngineConfig, InferenceConfig, TrainingConfig, load_config
from ptycho.data import load_scan
from ptycho.engines import solve
from ptycho.model.bundle import load_bundle, save_bundle
from ptycho.workflows.bundles import describe_model_file
from ptycho.workflows.refine import refine_result
from ptycho.workflows.results import load_reconstruction, save_reconstruction
from ptycho.workflows.run import reconstruct_scan
from ptycho.workflows.train import train
from tests.backends.alone import can_train
from tests.support import compiled_quickly

VERSIONS = {path.name.removesuffix(".tar.xz"): path for path in sorted(Path(__file__).parent.glob("*.tar.xz"))}
RENAMED = {
    "averaged": "full_batch_epochs",
    "engine_batch": "engine_batch_size",
    "estimate_passes": "start_iterations",
    "shift": "interpolation",
}
"""Settings that have another name by now; the old one goes on working in files."""
OF_ANOTHER_ENGINE = {"--averaged", "--damping", "--momentum"}
"""Flags that 0.1.0 accepted beside `--engine gradient` without any effect; by now they are refused."""
TRAINED = ("pytorch", "tensorflow", "jax")
BUNDLES = (*(f"{backend}-{gridsize}-2" for backend in TRAINED for gridsize in (1, 2)), "pytorch-1-None", "neutral")
RESULTS = (
    "pytorch-1-2",
    "pytorch-2-2",
    "pytorch-1-None",
    *(f"engine-{n}" for n in ("plain", "modes", "slices", "lsqml")),
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def unpacked(request, tmp_path_factory):
    """The folder of what a version wrote."""
    folder = tmp_path_factory.mktemp("earlier") / request.param
    with tarfile.open(VERSIONS[request.param]) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def earlier(unpacked, monkeypatch):
    """The same as the current folder, as it was when the files were written."""
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.fixture
def scan(earlier):
    return load_scan("scan.npz")


def values_of(config: Any) -> dict[str, Any]:
    """Settings by name, flat, as JSON has them."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= values_of(value)
        else:
            found[field.name] = str(value) if isinstance(value, Path) else value
    return found


def now(name: str, names: Any) -> str:
    """What a setting is called today."""
    return name if name in names else RENAMED[name]


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_open_and_reconstruct(scan, name, tmp_path):
    """The object is the one that the version made of the same scan."""
    bundle = load_bundle(Path("bundles") / name)
    assert describe_model_file(str(Path("bundles") / name))
    again = load_bundle(save_bundle(bundle, tmp_path))
    assert again.params.keys() == bundle.params.keys()
    assert again.config == bundle.config
    assert again.history == bundle.history
    made = reconstruct_scan(scan, bundle, InferenceConfig(device="cpu"), backend="numpy")
    # the backends start from the same weights and see the same batches
    kept = load_reconstruction(
        Path("results") / re.sub("tensorflow|jax", "pytorch", name.replace("neutral", "pytorch-1-2"))
    )
    assert made.object.shape == kept.object.shape
    covered = kept.weight > 0.1 * kept.weight.max()
    if name != "pytorch-1-None":  # of bare patterns these few filters make a constant
        assert np.ptp(np.angle(kept.object[covered])) > 0.1
    # Kept with seven bits. The start that the network corrects comes from another implementation of rPIE in 0.1.0;
    # after the two iterations of these bundles it has not converged, so the order of its batches shows.
    allowed = 0.01 if name == "pytorch-1-None" else 0.08
    assert error_of(made.object[covered], kept.object[covered]) < allowed
    assert made.metrics["r_factor"] == pytest.approx(kept.metrics["r_factor"], rel=0.06)


@pytest.mark.parametrize("name", RESULTS)
def test_results_open(earlier, name, tmp_path):
    result = load_reconstruction(Path("results") / name)
    assert result.object.shape == result.weight.shape
    assert result.provenance["command"] == "ptycho reconstruct"
    assert 0 < result.metrics["r_factor"] < 1
    assert result.measured is not None
    assert result.measured.shape == result.predicted.shape
    if name.startswith("engine-"):
        assert len(result.history["r_factor"]) == 4
    if name == "engine-slices":
        assert result.slices.shape == (2, *result.object.shape)
        assert result.slice_spacing == 1e-6
    if name == "engine-modes":
        assert result.probe.shape == (2, 64, 64)
        assert result.components.shape == (1, 64, 64)
        assert result.weights.shape == (len(result.positions), 2)
        assert result.metrics["position_shift_rms"] > 0
    save_reconstruction(result, tmp_path)
    again = load_reconstruction(tmp_path)
    np.testing.assert_array_equal(again.object, result.object)
    assert again.metrics == result.metrics
    assert again.history == result.history


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_refined(scan, name):
    """From where they are: one epoch, with the settings that the result was made with."""
    result = load_reconstruction(Path("results") / name)
    slices = 1 if result.slices is None else len(result.slices)
    config = EngineConfig(epochs=1, modes=len(result.probe), slices=slices, slice_spacing=result.slice_spacing)
    refined = refine_result(result, scan, config)
    assert refined.metrics["r_factor_before"] == result.metrics["r_factor"]
    assert refined.metrics["r_factor"] < 1.1 * result.metrics["r_factor"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", TRAINED)
def test_killed_trainings_go_on(scan, backend, tmp_path):
    """After the epochs that are there, to the loss that the training would have had."""
    if not can_train(backend):
        pytest.skip(f"{backend} cannot train here")
    folder = shutil.copytree(Path("killed") / backend, tmp_path / "out")
    whole, told = json.loads((folder / "whole.json").read_text()), []
    config = load_config(TrainingConfig, folder / "config.yaml")
    with compiled_quickly():
        bundle = train(scan, config, [lambda epoch, *_: told.append(epoch)], folder, resume=True)
    assert told == [3]
    assert bundle.history["loss"][:2] == whole["loss"][:2]
    assert bundle.history.keys() == whole.keys()
    for name, losses in whole.items():
        assert bundle.history[name] == pytest.approx(losses, rel=0.02), name


@pytest.mark.slow
def test_killed_trainings_go_on_by_the_command(earlier, tmp_path, capsys):
    pytest.importorskip("lightning")
    folder, kept = tmp_path / "out", Path("killed") / "pytorch"
    shutil.copytree(kept / "checkpoints", folder / "checkpoints")
    words = ["--resume", "--quiet", "--out", str(folder), "--config", str(kept / "config.yaml")]
    assert cli.main(["train", "scan.npz", *words]) == 0, capsys.readouterr().err
    assert len(load_bundle(folder).history["loss"]) == 3


@pytest.mark.parametrize("name", ["plain", "modes"])
def test_killed_engines_go_on(scan, name, tmp_path):
    """After the epochs that are there, to the R-factor that the run would have had."""
    folder = shutil.copytree(Path("killed") / f"engine-{name}", tmp_path / "out")
    whole, told = json.loads((folder / "whole.json").read_text()), []
    config = load_config(EngineConfig, folder / "engine.yaml")
    state = solve(
        scan, config, callbacks=[lambda epoch, *_: told.append(epoch)], checkpoint=folder / "engine-state.npz"
    )
    assert told == [4, 5, 6]  # it was killed when the fourth was done and not yet kept
    assert state.history["r_factor"] == pytest.approx(whole, rel=0.005)
    assert state.history["r_factor"][:3] == pytest.approx(whole[:3], rel=1e-5)


def test_killed_engines_go_on_by_the_command(earlier, tmp_path, capsys):
    """The settings in the words of that version; another setting is another run, which the state does not fit."""
    folder = shutil.copytree(Path("killed") / "engine-plain", tmp_path / "out")
    words = ["reconstruct", "scan.npz", "--epochs", "6", "--averaged", "1", "--momentum", "0.5", "--quiet"]
    words += ["--out", str(folder), "--engine_batch"]
    assert cli.main([*words, "5"]) == 2
    assert "belongs to a run with another scan or other settings" in capsys.readouterr().err
    assert cli.main([*words, "4"]) == 0, capsys.readouterr().err
    whole = json.loads((folder / "whole.json").read_text())
    assert load_reconstruction(folder).history["r_factor"] == pytest.approx(whole, rel=0.005)


def test_checkpoints_for_ptychodus_open(earlier):
    pytest.importorskip("lightning")
    from ptycho_torch.lightning_utils import find_best_checkpoint, read_checkpoint

    bundle, configs = read_checkpoint(find_best_checkpoint("ptychodus"))
    kept = load_bundle(Path("bundles") / "neutral")
    assert bundle.config == kept.config
    assert configs["data_config"].N == 64
    for name, values in kept.params.items():
        np.testing.assert_array_equal(bundle.params[name], values)


@pytest.mark.parametrize("name", ["TrainingConfig", "TrainingConfig-flat", "InferenceConfig", "EngineConfig"])
def test_settings_are_read(earlier, name):
    """Every setting in the file has the value there; none of them is at its default."""
    import yaml

    cls = getattr(ptycho.config, name.partition("-")[0])
    path = Path("settings") / f"{name}.yaml"
    found, written = values_of(load_config(cls, path)), yaml.safe_load(path.read_text())
    written |= written.pop("model", {})
    for setting, value in written.items():
        assert found[now(setting, found)] == value, setting


def command_lines() -> list[Any]:
    """Each command with all of its flags, twice: in full, and in short with dashes."""
    lines = []
    for version, path in VERSIONS.items():
        with tarfile.open(path) as archive:
            for line in json.load(archive.extractfile("settings/commands.json")):
                lines.append(pytest.param(line, id=f"{version}-{line['command']}-{len(lines) % 2}"))
    return lines


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_are_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = list(line["words"])
    for flag in OF_ANOTHER_ENGINE & set(words):
        place = words.index(flag)
        del words[place : place + 2], line["values"][flag.removeprefix("--")]
    call = ptycho.cli.options.parse(line["command"], words)
    found: dict[str, Any] = {}
    for config in call.configs:
        found |= values_of(config)
    for name, value in line["values"].items():
        assert found[now(name, found)] == value, name
    assert len(call.given) >= len([word for word in words if word.startswith("--")])
