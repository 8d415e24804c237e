"""`ptycho train` and `run` killed in the middle, and the same command again with --resume."""

import signal
import subprocess
import time

import numpy as np
import pytest

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import load_scan
from ptycho.model.bundle import load_bundle
from ptycho.workflows.train import train
from tests.backends.alone import can_train
from tests.cli.conftest import COMMAND
from tests.safety.test_kills import ENVIRONMENT
from tests.support import compiled_quickly

QUICK = ("--n_filters_scale", "1", "--nepochs", "5", "--n_groups", "8", "--batch_size", "4", "--start_iterations", "2",
         "--lr_schedule", "plateau", "--early_stopping_patience", "5", "--validation_fraction", "0.25",
         "--device", "cpu", "--quiet")  # fmt: skip


def config_of(backend):
    """The settings of these words."""
    return TrainingConfig(
        model=ModelConfig(n_filters_scale=1, start_iterations=2), backend=backend, nepochs=5, n_groups=8, batch_size=4,
        lr_schedule="plateau", early_stopping_patience=5, validation_fraction=0.25, device="cpu",
    )  # fmt: skip


COMPILED_QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}


def kill_after_the_first_epoch(folder, *words):
    """Start the command, and end it without any cleaning up as soon as there is a checkpoint; what it said."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=folder,
        env=ENVIRONMENT | COMPILED_QUICKLY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoints = folder / words[words.index("--out") + 1] / "checkpoints"
    while process.poll() is None and not any(checkpoints.glob("last.*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was at its end already"
    return said


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow", "jax"])
def test_a_kill_changes_nothing(ptycho, scan_path, backend):
    """Weights, losses and table are those of a training in one go in this process."""
    if not can_train(backend):
        pytest.skip(f"{backend} cannot train here")
    folder = ptycho.folder
    words = ("train", scan_path, *QUICK, "--backend", backend, "--resume", "--out", "killed")
    said = kill_after_the_first_epoch(folder, *words)
    assert "no training to resume in killed/checkpoints: it starts from the beginning" in said
    resumed = ptycho(*words, env=COMPILED_QUICKLY)
    assert (resumed.code, resumed.err) == (0, "")
    with compiled_quickly():
        whole = train(load_scan(scan_path), config_of(backend), log_dir=folder / "whole")
    killed = load_bundle(folder / "killed")
    assert whole.history == killed.history
    for name, values in whole.params.items():
        np.testing.assert_array_equal(killed.params[name], values)
    logs = [(folder / name / "logs" / "metrics.csv").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_what_is_left_of_a_run(ptycho, refused, scan_path):
    """Killed, typed anew without and with the flag, with other settings, damaged, when finished, and for longer."""
    pytest.importorskip("lightning")
    words = ("run", scan_path, *QUICK, "--frc", "false", "--out", "out")
    kill_after_the_first_epoch(ptycho.folder, *words)
    assert refused(*words) == (
        "ptycho: out/checkpoints/training.json exists already: resume its training with --resume, choose another "
        "--out, or replace it with --force."
    )
    assert "batch_size: 2 given, and the training in out/checkpoints has 4" in refused(
        *words, "--resume", "--batch_size", 2
    )
    last = ptycho.folder / "out" / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[:9000])
    sentence = refused(*words, "--resume")
    assert "last.ckpt: no checkpoint from which this training could go on" in sentence
    assert sentence.endswith("start anew with --force.")
    last.write_bytes(content)
    resumed = ptycho(*words, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.figure("R-factor")
    finished = ptycho(*words, "--resume")
    assert (finished.code, finished.out) == (0, "finished out: nothing is left to resume\n")
    (ptycho.folder / "out" / "report.html").unlink()
    longer = ptycho(*words, "--resume", "--nepochs", 6)
    assert longer.code == 0, longer.err
    assert (ptycho.folder / "out" / "report.html").is_file()
    assert len(load_bundle(ptycho.folder / "out").history["loss"]) == 6
