"""`ptycho train` and `run` killed in the middle, and the same command again with --resume."""

import signal
import subprocess
import time

import numpy as np
import pytest

from ptycho.model.bundle import load_bundle
from tests.backends.alone import can_train
from tests.cli.conftest import COMMAND
from tests.safety.test_kills import ENVIRONMENT

QUICK = ("--n_filters_scale", "1", "--nepochs", "5", "--n_groups", "8", "--batch_size", "4", "--estimate_passes", "2",
         "--lr_schedule", "plateau", "--early_stopping_patience", "5", "--validation_fraction", "0.25",
         "--device", "cpu", "--quiet")  # fmt: skip
COMPILED_QUICKLY = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}


def kill_after_the_first_epoch(folder, *words):
    """Start the command, and end it without any cleaning up as soon as there is a checkpoint."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=folder,
        env=ENVIRONMENT | COMPILED_QUICKLY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    checkpoints = folder / words[words.index("--out") + 1] / "checkpoints"
    while process.poll() is None and not any(checkpoints.glob("last.*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was at its end already"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow", "jax"])
def test_a_kill_changes_nothing(ptycho, scan_path, backend):
    if not can_train(backend):
        pytest.skip(f"{backend} cannot train here")
    words = ("train", scan_path, *QUICK, "--backend", backend, "--resume")
    whole = ptycho(*words, "--out", "whole", env=COMPILED_QUICKLY)
    assert whole.code == 0, whole.err
    assert "no training to resume in whole/checkpoints: it starts from the beginning" in whole.err
    kill_after_the_first_epoch(ptycho.folder, *words, "--out", "killed")
    resumed = ptycho(*words, "--out", "killed", env=COMPILED_QUICKLY)
    assert (resumed.code, resumed.err) == (0, "")
    one, other = (load_bundle(ptycho.folder / name) for name in ("whole", "killed"))
    assert one.history == other.history
    for name, values in one.params.items():
        np.testing.assert_array_equal(other.params[name], values)
    logs = [(ptycho.folder / name / "logs" / "metrics.csv").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_what_is_left_of_a_run(ptycho, refused, scan_path):
    """Killed, typed anew without and with the flag, with other settings, damaged, when finished, and for longer."""
    pytest.importorskip("lightning")
    words = ("run", scan_path, *QUICK, "--frc", "false", "--out", "out")
    kill_after_the_first_epoch(ptycho.folder, *words)
    assert refused(*words) == (
        "ptycho: out holds this training, broken off: go on with --resume, or start anew with --force."
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
