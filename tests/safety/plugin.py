"""An installed package whose reader fails in ways that the library does not foresee."""

from __future__ import annotations

from pathlib import Path

_READER = """
import os, sys

class Own(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def deeper(n):
    return deeper(n + 1) + 1

FAULTS = {
    "KeyError": lambda: {}["x"],
    "RecursionError": lambda: deeper(0),
    "Own": lambda: (_ for _ in ()).throw(Own()),
    "long": lambda: (_ for _ in ()).throw(RuntimeError("first\\nsecond " + "x" * 10000)),
    "cancelled": lambda: (_ for _ in ()).throw(__import__("asyncio").CancelledError("gone")),
    "memory": lambda: (_ for _ in ()).throw(MemoryError()),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "exit": lambda: sys.exit(7),
    "pipe": lambda: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")),
}

class Reader:
    name, description, options = "faulty", "by nothing", frozenset()

    def accepts(self, file):
        if file.path.suffix == ".faulty":
            FAULTS[file.path.stem]()
        return False

    def read(self, file, given):
        return {}
"""


def install(folder: Path) -> Path:
    """Write the package to a folder that is to stand in PYTHONPATH."""
    info = folder / "faulty_reader-1.dist-info"
    info.mkdir(parents=True)
    (folder / "faulty_reader.py").write_text(_READER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-reader\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ptycho.readers]\n0-faulty = faulty_reader:Reader\n")
    return folder
