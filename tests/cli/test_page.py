"""`ptycho view`, and `--live`, through the real command and plain HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from urllib.parse import urlencode, urlsplit

import pytest

from tests.cli.conftest import COMMAND, ROOT


def ask(url, name, **query):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        connection.request("GET", f"{address.path}{name}?{urlencode(query)}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)
    finally:
        connection.close()


@pytest.fixture(scope="session")
def result_path(scan_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    words = [*COMMAND, "reconstruct", str(scan_path), "--epochs", "2", "--crop", "32", "--out", str(folder / "out")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "shims")])
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path}, timeout=300)
    return folder / "out"


def test_view_reads_the_scan_as_it_was_read_for_the_result(begin, result_path):
    process, url = begin("view", result_path)
    about = ask(url, "about")
    assert about["patterns"] == ""
    assert any("sha256" in str(rows) or "SHA" in str(rows) for rows in about["details"].values())
    assert "Ctrl-C" in process.stdout.readline()
    version = ask(url, "state", client="c")["picture"]
    assert ask(url, "picture", version=version)["at_hand"] is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_view_without_the_scan(begin, result_path, scan_path):
    gone = scan_path.with_name("moved.npz")
    scan_path.rename(gone)
    try:
        _, url = begin("view", result_path / "reconstruction.npz")
        about = ask(url, "about")
        assert "not there any more" in about["patterns"]
        assert "--scan" in about["patterns"]
        _, url = begin("view", result_path, "--scan", gone, "--crop", 32)
        assert ask(url, "about")["patterns"] == ""
        _, url = begin("view", result_path, "--scan", gone)
        assert "--crop" in ask(url, "about")["patterns"]
    finally:
        gone.rename(scan_path)


def test_view_refuses_what_is_no_result(refused, scan_path, tmp_path):
    assert "no reconstruction" in refused("view", tmp_path)
    assert refused("view", scan_path)
    assert "RESULT" in refused("view")


def test_a_port_that_is_taken_is_refused(refused, result_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port = {port} cannot be used" in refused("view", result_path, "--port", port)
    assert "port" in refused("view", result_path, "--port", 70000)


def test_the_port_and_a_browser_may_be_chosen(begin, result_path, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen = tmp_path / "seen"
    opener = tmp_path / "browser"
    opener.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    opener.chmod(0o755)
    process, url = begin("view", result_path, "--port", port, "--open", env={"BROWSER": f"{opener} %s"})
    assert urlsplit(url).port == port
    assert "Ctrl-C" in process.stdout.readline()
    assert seen.read_text().strip() == url


QUICK = ("--n_filters_scale", 1, "--n_groups", 16, "--batch_size", 8, "--start_iterations", 2, "--frc", "false")


@pytest.mark.slow
def test_live_of_a_whole_run(begin, scan_path):
    """Every step is told; who looks on sees pictures; the result is that of a run without a page."""
    process, url = begin("run", scan_path, *QUICK, "--nepochs", 3, "--refine", 2, "--out", "run", "--live")
    steps, pictures, state = {}, set(), {"version": -1, "ended": False}
    while not state["ended"]:
        state = ask(url, "state", client="c", after=state["version"], pace=0.1, looks=1)
        steps |= {step["words"]: step["total"] for step in state["steps"]}
        if "picture" in state:
            pictures.add(state["picture"])
    assert ask(url, "picture", version=max(pictures))["images"]["object"]["shape"]
    with contextlib.suppress(ConnectionError):  # the program ends, and may do so before it answers
        ask(url, "farewell", client="c")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert state["status"] == "finished"
    assert state["message"] == "Saved in run."
    assert "R-factor" in out
    assert steps["Training"] == 3
    assert any(words.endswith("rpie") for words in steps)
    assert "Physics estimate" in steps
    assert len(pictures) >= 2
