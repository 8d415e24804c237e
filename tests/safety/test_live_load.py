"""A run with `--live`, under a load of connections that ask for nothing."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
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
    words = ["reconstruct", "scan.npz", "--epochs", "4000", "--out", "result", "--live"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = prepared(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))", [sys.executable, "-m", "ptycho", *words]
    )
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}, **pipes)
    first = process.stdout.readline()
    address = urlsplit(next(word for word in first.split() if word.startswith("http")))
    made = 0
    for _ in range(IN_ALL // AT_A_TIME):
        with contextlib.ExitStack() as open_ones:
            waiting = select.poll()
            tried = {}
            for _ in range(AT_A_TIME):  # all at once: none waits until another one is taken
                half = open_ones.enter_context(socket.socket())
                half.setblocking(False)
                half.connect_ex((address.hostname, address.port))
                tried[half.fileno()] = half
                waiting.register(half, select.POLLOUT)
            end = time.monotonic() + 2
            while tried and time.monotonic() < end:
                for number, _ in waiting.poll(100):
                    waiting.unregister(number)
                    with contextlib.suppress(OSError):
                        tried.pop(number).sendall(b"GET ")
                        made += 1
        assert process.poll() is None
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert made > 64 * 2  # those beyond the limit of the page may be refused
    assert os.path.getsize(tmp_path / "result" / "reconstruction.h5") > 0
