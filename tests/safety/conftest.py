"""A watch over everything that a loader may not do, and whole sample files, made once."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ptycho, warm
from tests.safety.samples import LOADERS, Loader

FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess.Popen", "pty.spawn"),
    *("pickle.find_class", "marshal.loads", "socket.connect", "urllib.Request", "webbrowser.open", "ctypes.dlopen"),
    *(
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.putenv",
    ),
    *("shutil.move", "shutil.rmtree", "shutil.copyfile", "shutil.unpack_archive"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Python's own audit of what runs: files opened for writing, processes, sockets, names looked up by a pickle."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Told by the interpreter of every event; it cannot be removed again, only be switched off."""
        if not self.on:
            return
        written = event == "open" and (
            bool(int(arguments[2] or 0) & _WRITES) if len(arguments) > 2 else set(str(arguments[1])) & set("wax+")
        )
        importing = event in ("marshal.loads", "ctypes.dlopen") and _imports()
        if (event in FORBIDDEN and not importing) or (written and str(arguments[0]) != os.devnull and not _imports()):
            self.seen.append(f"{event} {arguments!r:.200}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Nothing forbidden may happen in this block."""
        self.seen.clear()
        written = sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # compiled modules are no loader's files
        self.on = True
        try:
            yield
        finally:
            self.on = False
            sys.dont_write_bytecode = written
        assert not self.seen


def _imports() -> bool:
    """Whether the import system is at work, which reads, writes and opens compiled modules."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


_WATCH = Watch()


@pytest.fixture(scope="session")
def _installed() -> Watch:
    sys.addaudithook(_WATCH.hook)
    return _WATCH


@pytest.fixture
def watch(_installed) -> Watch:
    """See `Watch`."""
    return _installed


def needs(name: str) -> None:
    """Skip where what makes the sample is not installed."""
    module = {"import torch": "torch", "checkpoint": "lightning", "import keras": "tensorflow", "zarr": "zarr"}.get(
        name
    )
    if module is not None and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


class Sample:
    """A whole file of a kind, its loader, and what it gives."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.loader = name, LOADERS[name]
        self.path = self.loader.make(folder)
        self.good = self.loader.load(self.path)
        self.whole = self.path.read_bytes() if self.path.is_file() else b""

    def load(self, content: bytes, folder: Path) -> str:
        """What a file of this content gives, in a folder where nothing else is."""
        target = folder / self.path.name
        target.write_bytes(content)
        return self.loader.load(target)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Any:
    """Make the sample of a name, once."""
    made: dict[str, Sample] = {}

    def find(name: str) -> Sample:
        needs(name)
        if name not in made:
            made[name] = Sample(name, tmp_path_factory.mktemp("sample"))
        return made[name]

    return find


__all__ = ["Loader", "ptycho", "warm"]
