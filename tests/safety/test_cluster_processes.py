"""Real processes of a Dask cluster that are killed: the work is repeated, or the command ends in a sentence."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ptycho.data import save_npz
from ptycho.model.bundle import save_bundle
from ptycho.workflows import cluster_worker
from ptycho.workflows.scans import open_scan
from ptycho.workflows.worker_pool import connect_workers
from tests.safety.test_kills import ENVIRONMENT
from tests.support import simulated_scan
from tests.workflows.test_cluster import untrained

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes by signals")
LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")


@pytest.fixture
def scan_path(tmp_path):
    """A scan of 18 patterns."""
    save_npz(simulated_scan(18, 64, photons=1e4), tmp_path / "scan.npz")
    return tmp_path / "scan.npz"


def test_a_worker_that_is_killed_during_the_check(scan_path, tmp_path, monkeypatch):
    """It is started again by its nanny, and checked again."""
    marker, looked = str(tmp_path / "killed"), cluster_worker.check_readable

    async def dies_once(scan, dask_worker):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            await looked(scan, dask_worker)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(cluster_worker, "check_readable", dies_once)
    with connect_workers("2") as workers:
        workers.check(open_scan(scan_path))
    assert os.path.exists(marker)


PROGRAM = """
import os, signal, sys
from ptycho.cli import main
from ptycho.workflows import worker_pool
sent = worker_pool._part_of
def part_of(*arguments):
    os.kill(int(sys.argv[1]), signal.SIGKILL)
    return sent(*arguments)
worker_pool._part_of = part_of
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


def started(folder, module, *words):
    """A process of Dask, quiet."""
    command = [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", "address.json", *words, *LOOPBACK]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_scheduler_that_is_killed_during_the_work(scan_path, tmp_path):
    scan = open_scan(scan_path)
    save_bundle(untrained(scan), tmp_path / "wts.h5.zip")
    scheduler = started(tmp_path, "dask_scheduler", "--port", "0")
    worker = started(tmp_path, "dask_worker", "--no-nanny", "--nthreads", "1", "--death-timeout", "60")
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "address.json").exists() and time.monotonic() < until:
            time.sleep(0.1)
        address = json.loads((tmp_path / "address.json").read_text())["address"]
        words = ["reconstruct", "scan.npz", "wts.h5.zip", "--out", "result", "--dask", address, "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(scheduler.pid), *words],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "cluster" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "result" / "reconstruction.h5").exists()
