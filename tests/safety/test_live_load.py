"""A run with `--live`, under a load of connections that ask for nothing."""

import contextlib
import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from ptycho.data import save_npz
from tests.safety.test_kills import ENVIRONMENT
from tests.support import prepared, simulated_scan

pytest.importorskip("resource")
AT_A_TIME, IN_ALL = 250, 1000


def test_half_open_connections_to_a_run(tmp_path):
    """A thousand of them, to a command that may have 160 descriptors: its result is whole and its exit code 0."""
    save_npz(simulated_scan(M=40, N=32, seed=1), tmp_path / "scan.npz")
    words = ["reconstruct", "scan.npz", "--epochs", "1500", "--out", "result", "--live"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = prepared(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))", [sys.executable, "-m", "ptycho", *words]
    )
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}, **pipes)
    first = process.stdout.readline()
    address = urlsplit(next(word for word in first.split() if word.startswith("http")))
    made = 0
    with contextlib.ExitStack() as open_ones:
        for number in range(IN_ALL):
            if number % AT_A_TIME == 0:
                open_ones.close()
            with contextlib.suppress(OSError):
                half = socket.create_connection((address.hostname, address.port), timeout=2)
                open_ones.callback(half.close)
                half.sendall(b"GET ")
                made += 1
        assert process.poll() is None or made > AT_A_TIME
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert made > 64 * 2  # those beyond the limit of the page may be refused
    assert os.path.getsize(tmp_path / "result" / "reconstruction.h5") > 0
