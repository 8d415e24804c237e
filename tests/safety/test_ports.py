"""What listens while several processes of this machine work: on the loopback interface and nowhere else."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import scan_path, simulation  # noqa: F401

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")

_LISTENING = "0A"
_LOOPBACK = {"tcp": "0100007F", "tcp6": "00000000000000000000000001000000"}
_SMALL = ["--n_filters_scale", "1", "--n_groups", "16", "--batch_size", "4", "--estimate_passes", "0", "--quiet"]


def family(pid):
    """A process and those that it started."""
    children = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    return {pid, *(each for child in children for each in family(int(child)))}


def listening(pid):
    """Addresses, in Linux's notation, at which a process or one that it started accepts connections."""
    inodes = set()
    for each in family(pid):
        with contextlib.suppress(OSError):
            inodes |= {os.readlink(link) for link in Path(f"/proc/{each}/fd").iterdir()}
    found = set()
    for table, loopback in _LOOPBACK.items():
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING and f"socket:[{words[9]}]" in inodes:
                address, _, port = words[1].partition(":")
                found.add(("loopback" if address == loopback else address, int(port, 16)))
    return found


def seen(words, folder):
    """Every address at which a command listened, until it ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ptycho", *map(str, words)], cwd=folder, env=environment, stdout=out, stderr=out
        )
        found = set()
        while process.poll() is None:
            found |= listening(process.pid)
            time.sleep(0.3)
    assert process.returncode == 0, (folder / "out").read_text()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_of_one_training_listen_on_the_loopback_interface(tmp_path, scan_path, strategy):  # noqa: F811
    pytest.importorskip("lightning")
    words = ["train", scan_path, "--out", "model", *_SMALL, "--nepochs", "2", "--device", "cpu"]
    found = seen([*words, "--devices", "2", "--strategy", strategy], tmp_path)
    assert found, "the processes met without a port"
    assert {address for address, _ in found} == {"loopback"}


@pytest.mark.slow
def test_a_live_page_listens_on_the_loopback_interface(tmp_path, scan_path):  # noqa: F811
    words = ["reconstruct", scan_path, "--epochs", "20", "--out", "result", "--live", "--quiet"]
    assert {address for address, _ in seen(words, tmp_path)} == {"loopback"}


@pytest.mark.slow
def test_the_workers_of_a_local_cluster_listen_on_the_loopback_interface(tmp_path, scan_path):  # noqa: F811
    pytest.importorskip("lightning")
    pytest.importorskip("distributed")
    seen(["train", scan_path, "--out", "model", *_SMALL, "--nepochs", "1"], tmp_path)
    found = seen(["reconstruct", scan_path, "model", "--out", "result", "--dask", "2"], tmp_path)
    assert found
    assert {address for address, _ in found} == {"loopback"}
