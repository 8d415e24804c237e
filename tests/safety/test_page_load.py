"""Whatever happens to the page of a run, the run goes on, and the page is there again afterwards."""

import contextlib
import http.client
import os
import resource
import socket
import time
from urllib.parse import urlsplit

import pytest

from ptycho.viewer import PageServer, connections
from ptycho.viewer.stage import Stage


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr("ptycho.viewer.server.REQUEST_SECONDS", 0.3)
    monkeypatch.setattr("ptycho.viewer.server.SEND_SECONDS", 0.5)
    server = PageServer(Stage({"title": "run"}, None))
    with contextlib.closing(server):
        yield server


def connected(page):
    address = urlsplit(page.url)
    return socket.create_connection((address.hostname, address.port), timeout=5)


def answers(page, within=5.0):
    """Whether the page answers, as soon as there is room."""
    address, until = urlsplit(page.url), time.monotonic() + within
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
            with contextlib.closing(asked):
                asked.request("GET", f"{address.path}about")
                return asked.getresponse().status == 200
        time.sleep(0.05)
    return False


def is_closed(connection):
    """Whether the other side ends a connection."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def descriptors():
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors of this process")


@needs_proc
@pytest.mark.parametrize("begun", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\x16\x03\x01\xff"])
def test_many_half_open_connections(page, begun):
    """They take no more than 64 descriptors, and each is closed when its time is over."""
    before, opened = descriptors(), []
    for _ in range(200):
        with contextlib.suppress(OSError):
            opened.append(connected(page))
            opened[-1].sendall(begun)
    time.sleep(0.1)
    assert descriptors() - before - len(opened) <= connections.CONNECTION_LIMIT
    assert all(is_closed(each) for each in opened)
    for each in opened:
        each.close()
    assert answers(page)


def test_a_request_that_drips(page):
    """A byte at a time would reset a limit on the wait for each of them."""
    with connected(page) as dripping:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 5:
                dripping.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - began < 3
    assert answers(page)


def test_a_reader_that_reads_nothing(page, monkeypatch):
    monkeypatch.setattr("ptycho.viewer.server.plain_json", lambda value: b" " * 50_000_000)
    began = time.monotonic()
    with connected(page) as slow:
        slow.sendall(f"GET {urlsplit(page.url).path}about HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while page._server._ends and time.monotonic() - began < 10:
            time.sleep(0.02)
    assert time.monotonic() - began < 8
    assert not page._server._ends


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET //\xff\xfe/about?after=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_garbage(page, garbage):
    with connected(page) as garbled:
        with contextlib.suppress(ConnectionError):
            garbled.sendall(garbage)
        assert is_closed(garbled)
    assert answers(page)


@needs_proc
def test_no_free_descriptor(page):
    """The page waits until there is one again, without keeping a core busy."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting, held = [connected(page) for _ in range(2)], []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        os.close(held.pop())
        waiting.append(connected(page))  # takes the last one, so that there is none to accept it with
        began = time.process_time()
        time.sleep(0.6)
        assert time.process_time() - began < 0.4
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in waiting:
            each.close()
    assert answers(page)
