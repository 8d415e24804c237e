"""A device that a backend cannot compute on is refused by name before any work, in commands and in Python."""

import numpy as np
import pytest

from ptycho.backends import get_backend, is_installed, resolve_device
from ptycho.cli.command import main
from ptycho.config import EngineConfig
from ptycho.data import Scan, save_npz
from ptycho.engines import solve
from ptycho.errors import BackendError


@pytest.fixture
def scan():
    positions = np.random.default_rng(0).uniform(0, 60, (40, 2))
    return Scan(np.ones((40, 64, 64), np.float32), "counts", positions, probe=np.ones((64, 64), np.complex64))


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:7", "gpu", "nonsense", ""])
def test_numpys_engine_refuses_every_device_but_the_cpu(scan, device):
    with pytest.raises(BackendError, match=r"^device: .* is not possible with numpy.*--backend pytorch"):
        solve(scan, EngineConfig(epochs=1, device=device))


@pytest.mark.parametrize("name", ["pytorch", "jax", "tensorflow"])
@pytest.mark.parametrize("device", ["mps:3", "cuda:99", "nonsense", "meta"])
def test_a_framework_refuses_a_device_that_is_not_there(name, device):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    with pytest.raises(BackendError, match=f"^device: '{device}' .*choose"):
        resolve_device(get_backend(name), device)


@pytest.mark.parametrize("name", ["numpy", "pytorch", "jax", "tensorflow"])
@pytest.mark.parametrize("device", [None, "auto", "cpu"])
def test_the_cpu_and_the_best_device_are_accepted(name, device):
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    backend = get_backend(name)
    assert backend.to_numpy(backend.asarray(np.ones(1), device=resolve_device(backend, device))) == 1


@pytest.mark.parametrize("more", [["--epochs", "1"], ["--engine", "epie"], ["--engine", "lsqml", "--dry-run"]])
def test_the_command_refuses_a_device_before_it_writes(tmp_path, scan, capsys, more):
    save_npz(scan, tmp_path / "scan.npz")
    out = tmp_path / "out"
    assert main(["reconstruct", str(tmp_path / "scan.npz"), "--out", str(out), "--device", "cuda", *more]) == 2
    assert "device: 'cuda' is not possible with numpy" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("command", [["train"], ["pretrain"], ["run"], ["run", "--refine", "1"]])
def test_a_training_command_refuses_a_device_before_it_writes(tmp_path, scan, capsys, command):
    if not is_installed("pytorch"):
        pytest.skip("pytorch is not installed")
    save_npz(scan, tmp_path / "scan.npz")
    out = tmp_path / "out"
    words = [command[0], str(tmp_path / "scan.npz"), *command[1:], "--out", str(out), "--device", "nonsense"]
    assert main(words) == 2
    assert "device: 'nonsense' " in capsys.readouterr().err
    assert not out.exists()
