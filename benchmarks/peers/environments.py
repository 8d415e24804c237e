"""Environments of the peers, one for each, so that none decides which versions another gets."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "PEERS", "Peer", "install"]

FOLDER = Path(__file__).parents[2] / ".venv-peers"
"""Where the environments are made unless somebody says where; git does not see it."""

_TORCH = "torch==2.13.0"
"""Installed before a peer that needs it, and held: where pip prefers a build for the CPU no other one is fetched."""


@dataclass(frozen=True)
class Peer:
    """A program of the field."""

    name: str
    """Of its environment, and of its adapter ``with_NAME.py``."""
    package: str
    """What pip installs."""
    needs_torch: bool = False

    @property
    def distribution(self) -> str:
        """The package without its extras."""
        return self.package.split("[")[0]

    def python(self, folder: Path) -> Path:
        """The interpreter of its environment."""
        return folder / self.name / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def version(self, folder: Path) -> str | None:
        """Its version, None where it is not installed."""
        return _installed(self.python(folder), self.distribution)


PEERS = (
    Peer("phaser", "phaserem[jax]"),
    Peer("ptychi", "ptychi", needs_torch=True),
    Peer("ptyrad", "ptyrad", needs_torch=True),
    Peer("ptylab", "ptylab"),
    Peer("cdtools", "cdtools-py", needs_torch=True),
)


def install(peer: Peer, folder: Path) -> str:
    """Make a peer's environment; the last line of the trouble if there was any, else nothing.

    Parameters
    ----------
    peer : which.
    folder : of all environments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [sys.executable, "-m", "venv", str(folder / peer.name)]
    with tempfile.TemporaryDirectory() as scratch:
        held = Path(scratch) / "constraints.txt"
        held.write_text(f"{_TORCH}\n" if peer.needs_torch else "", encoding="utf-8")
        pip = [str(peer.python(folder)), "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", str(held)]
        for words in (made, *([[*pip, _TORCH]] if peer.needs_torch else []), [*pip, peer.package]):
            done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip().splitlines()
                return said[-1] if said else f"exit code {done.returncode}"
    return ""


def _installed(python: Path, distribution: str) -> str | None:
    """Version of a distribution as another interpreter sees it; None where either is missing."""
    if not python.is_file():
        return None
    words = f"from importlib.metadata import version; print(version({distribution!r}))"
    done = subprocess.run([str(python), "-c", words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
