"""A command that is killed at any step leaves the old file or the new one, whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile

from ptycho.data import save_npz
from ptycho.files import RECORD
from ptycho.model.bundle import load_bundle
from ptycho.workflows.results import RESULT_FILES, load_reconstruction
from tests.safety.kills import COMMANDS
from tests.support import simulated_scan

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shims"), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_every_step(name, tmp_path):
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    if name == "run":
        pytest.importorskip("torch")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.kills", name, str(tmp_path / "work")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3


def is_whole(path):
    """Whether a file of a result is complete, by what it ends with or by being read."""
    content = path.read_bytes()
    if path.name == "wts.h5.zip":
        return bool(load_bundle(path).params)
    if path.stem == "reconstruction":
        return load_reconstruction(path).object.ndim == 2
    if path.name == RECORD:
        return bool(json.loads(content))
    if path.suffix == ".tif":
        return tifffile.imread(path).ndim == 2
    endings = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".yaml": b"\n"}
    return content.rstrip(b"\n").endswith(endings[path.suffix].rstrip(b"\n"))


@pytest.mark.slow
def test_a_real_run_is_killed(tmp_path):
    """With training and drawing, by the clock: what `ptycho run` writes is there, old or new, and whole."""
    pytest.importorskip("lightning")
    save_npz(simulated_scan(M=40, N=64), tmp_path / "scan.npz")
    words = [
        "-m",
        "ptycho",
        "run",
        "scan.npz",
        "--out",
        "out",
        "--force",
        "--quiet",
        "--nepochs",
        "1",
        "--n_filters_scale",
    ]
    options = {"cwd": tmp_path, "env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = time.monotonic()
    subprocess.run([sys.executable, *words, "1"], check=True, **options)
    seconds = time.monotonic() - started
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert names == {*RESULT_FILES, "wts.h5.zip", "config.yaml", RECORD}
    for part in (0.5, 0.8, 0.9, 0.97):
        process = subprocess.Popen([sys.executable, *words, "1"], **options)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(part * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
        assert {name for name in found if name[0] != "." or name == RECORD} == names
        assert all(is_whole(tmp_path / "out" / name) for name in names)
