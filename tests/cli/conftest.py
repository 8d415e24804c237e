"""The real command in a process of its own, and small scans for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.data import save_npz
from ptycho.workflows.simulate import SimulationConfig, simulate_scan
from tests.support import prepared

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sys.executable).with_name("ptycho")
COMMAND = [str(INSTALLED)] if INSTALLED.is_file() else [sys.executable, "-m", "ptycho"]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def figure(self, name: str) -> str:
        """What stands after a name at the beginning of a line of the output."""
        return next(line[len(name) + 1 :] for line in self.out.splitlines() if line.startswith(name + " "))


@pytest.fixture(scope="session")
def warm():
    """A process that forks the plain commands of this session; none where there are no forks."""
    if not hasattr(os, "fork"):
        yield None
        return
    words = [sys.executable, "-m", "tests.cli.warm"]
    with subprocess.Popen(words, cwd=ROOT, env=_environment({}), text=True, stdin=-1, stdout=-1) as process:
        yield process
        process.stdin.close()


def _environment(changes: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "shims"), *filter(None, [os.environ.get("PYTHONPATH")])])
    inherited = {**os.environ}
    inherited.pop("TF_CPP_MIN_LOG_LEVEL", None)  # JAX, where an earlier test has loaded it, lowers it
    return {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **changes}


@pytest.fixture
def ptycho(tmp_path, warm):
    """Run `ptycho WORDS...` in an empty folder: a fork of one that is loaded; `cold` or told more, the file itself."""
    folder = tmp_path / "work"
    folder.mkdir()

    def forked(words: list[str]) -> Outcome:
        out, err = tmp_path / "out", tmp_path / "err"
        for path in (out, err):
            path.write_bytes(b"")
        streams = {"out": str(out), "err": str(err)}
        request = {"folder": str(folder), "environment": _environment({}), "words": words, **streams}
        print(json.dumps(request), file=warm.stdin, flush=True)
        code = int(warm.stdout.readline())
        return Outcome(code, out.read_text(), err.read_text())

    def run(
        *words: Any, cold: bool = False, env: dict[str, str] | None = None, preparation: str = "", **options: Any
    ) -> Outcome:
        if warm is not None and not (cold or env or preparation or options):
            return forked(list(map(str, words)))
        command = [*COMMAND, *map(str, words)]
        done = subprocess.run(
            prepared(preparation, command) if preparation else command,
            cwd=folder,
            env=_environment(env or {}),
            text=True,
            timeout=300,
            check=False,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        return Outcome(done.returncode, done.stdout, done.stderr or "")

    run.folder = folder
    return run


@pytest.fixture
def refused(ptycho):
    """Run a command that must be refused with one sentence, code 2, and nothing written; return the sentence."""

    def run(*words: Any, **options: Any) -> str:
        def found() -> list[Path]:  # what a killed run left may be removed: its lock and its hidden folders
            ours = (".ptychopinn.lock", ".ptychopinn-")
            return sorted(p for p in ptycho.folder.rglob("*") if not any(part.startswith(ours) for part in p.parts))

        before = found()
        outcome = ptycho(*words, **options)
        assert outcome.code == 2, outcome
        lines = outcome.err.strip().splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("ptycho: "), outcome.err
        assert lines[0].endswith((".", "?")) or "pip install" in lines[0], outcome.err
        assert outcome.out == ""
        assert found() == before
        return lines[0]

    return run


@pytest.fixture(scope="session")
def simulation():
    """Sixty simulated patterns of 64 x 64 counts on a raster."""
    return simulate_scan(
        SimulationConfig(size=112, N=64, positions="raster", step=7, jitter=1, nphotons=1e5, object="dead_leaves")
    )


@pytest.fixture(scope="session")
def scan_path(simulation, tmp_path_factory):
    """The same as a file."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    save_npz(simulation, path)
    return path


@pytest.fixture
def write_npz(tmp_path):
    """Write PtychoPINN's arrays, some of them changed or left out, and return the path."""

    def write(name: str = "bad.npz", without: str = "", count: int = 9, size: int = 64, **changes: Any) -> Path:
        rng = np.random.default_rng(0)
        arrays = {
            "diff3d": rng.poisson(3, (count, size, size)).astype(np.float32),
            "xcoords": rng.uniform(0, 20, count),
            "ycoords": rng.uniform(0, 20, count),
            "probeGuess": np.ones((size, size), np.complex64),
        }
        arrays |= changes
        arrays.pop(without, None)
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return write
