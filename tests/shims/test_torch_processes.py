"""Training in two processes on one CPU: the losses and weights of one process, and one result."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import save_npz
from ptycho.errors import ConfigError
from ptycho.model.bundle import load_bundle
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.train import train

pytest.importorskip("lightning")

N = 64


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory):
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    scan = simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_npz(scan, path)
    return path


def run(scan_path, folder, *more):
    """`ptycho train` in a process of its own: 15 groups in batches of 4, so that the last one is shared by nobody."""
    words = [
        sys.executable, "-m", "ptycho", "train", str(scan_path), "--out", str(folder), "--n_filters_scale", "1",
        "--nepochs", "2", "--n_groups", "16", "--batch_size", "4", "--validation_fraction", "0.07",
        "--estimate_passes", "2", "--device", "cpu", "--learning_rate", "1e-4", *more,
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_are_one(scan_path, tmp_path):
    run(scan_path, tmp_path / "one")
    done = run(scan_path, tmp_path / "two", "--devices", "2", "--strategy", "ddp")
    assert done.stdout.count("saved") == 1
    one, two = (load_bundle(tmp_path / name) for name in ("one", "two"))
    assert set(one.history) == set(two.history)
    for name, values in one.history.items():
        np.testing.assert_allclose(two.history[name], values, rtol=1e-4)
    for name, values in one.params.items():
        np.testing.assert_allclose(two.params[name], values, atol=1e-3 * max(np.abs(values).max(), 1e-3))
    assert json.dumps(two.config.devices) == "2"


def test_a_batch_that_cannot_be_shared_is_refused(scan_path):
    config = TrainingConfig(
        model=ModelConfig(N=N, n_filters_scale=1, estimate_passes=0), batch_size=5, devices=2, device="cpu"
    )
    from ptycho.data import load_scan

    with pytest.raises(ConfigError, match="batch_size: 5 groups cannot be shared equally by 2 devices"):
        train(load_scan(scan_path), config)


@pytest.mark.slow
def test_other_processes_load_the_data(scan_path, tmp_path):
    """Two workers make the same batches in the same order as the training process itself."""
    run(scan_path, tmp_path / "alone")
    run(scan_path, tmp_path / "helped", "--num_workers", "2")
    alone, helped = (load_bundle(tmp_path / name) for name in ("alone", "helped"))
    for name, values in alone.params.items():
        np.testing.assert_array_equal(helped.params[name], values)
