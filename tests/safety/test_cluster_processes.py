"""Real processes of a Dask cluster that are killed."""

import os
import signal

import pytest

from ptycho.data import save_npz
from ptycho.workflows import cluster_worker
from ptycho.workflows.scans import open_scan
from ptycho.workflows.worker_pool import connect_workers
from tests.support import simulated_scan

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes by signals")


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
