"""Fixtures of all tests: backends, namespaces, dtypes, scans, and Hypothesis without chance or deadline."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ptycho.backends import Backend, get_backend
from tests import support

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile(
    "ptycho", derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ptycho")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
_SCAN_NAME = "siemens-star-small.npz.bz2"


def _measured_scan() -> Path | None:
    """The measured scan beside the repository, or the one that PTYCHO_TEST_SCAN names."""
    named = os.environ.get("PTYCHO_TEST_SCAN")
    path = Path(named) if named else ROOT.parent / "shared" / "data" / _SCAN_NAME
    return path if path.is_file() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests on the measured scan where it is not there."""
    if _measured_scan() is not None:
        return
    absent = [item for item in items if "scan_file" in getattr(item, "fixturenames", ())]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def _framework(name: str) -> None:
    if not support.installed(name):
        pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session", params=support.BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend whose framework is installed."""
    _framework(request.param)
    return get_backend(request.param)


@pytest.fixture(scope="session", params=support.BACKENDS[1:])
def learner(request: pytest.FixtureRequest) -> Backend:
    """Every backend with gradients whose framework is installed."""
    _framework(request.param)
    return get_backend(request.param)


@pytest.fixture(scope="session", params=support.NAMESPACES)
def xp(request: pytest.FixtureRequest) -> Any:
    """Every array namespace that the physics is proved on, eager; compiled functions are in tests/backends."""
    _framework(request.param)
    return support.namespace(request.param)


_GIVEN = ("xp", "backend", "learner", "compiler")


@pytest.fixture(autouse=True)
def _jax_in_double_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """JAX has 64-bit arrays while a test runs that is given them, and at no other time; the library never asks for it.

    Most of what JAX does in a test is compile, so less is optimised; what is computed means the same.
    """
    given = [request.getfixturevalue(name) for name in _GIVEN if name in request.fixturenames]
    if not any(getattr(value, "xp", value) is sys.modules.get("jax.numpy", request) for value in given):
        yield
        return
    with support.compiled_quickly(), importlib.import_module("jax").enable_x64(True):
        yield


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    """The name of a real dtype."""
    return request.param


@pytest.fixture(scope="session")
def complex_dtype(dtype: str) -> str:
    """The name of the complex dtype of the same precision."""
    return {"float32": "complex64", "float64": "complex128"}[dtype]


@pytest.fixture(scope="session")
def tolerance(dtype: str) -> float:
    """The relative rounding error that is allowed in that dtype."""
    return support.tolerance(dtype)


@pytest.fixture(scope="session")
def assert_close() -> Any:
    """`tests.support.assert_close`: namespace, dtype, shape and values."""
    return support.assert_close


@pytest.fixture(scope="session")
def scan_file() -> Path:
    """The measured scan; tests that ask for it are not collected where it is not there."""
    path = _measured_scan()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def small_scan() -> Any:
    """Thirty simulated patterns of 16 x 16 counts with object and probe."""
    return support.simulated_scan()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """Start `ptycho WORDS...`, which serves a page, beside the test; the process and the address that it prints."""
    running: list[subprocess.Popen] = []
    path = os.pathsep.join([str(ROOT), str(ROOT / "shims"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(*words: Any, env: dict[str, str] | None = None) -> tuple[subprocess.Popen, str]:
        settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}
        process = subprocess.Popen(
            [sys.executable, "-m", "ptycho", *map(str, words)],
            cwd=tmp_path, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        running.append(process)
        first = process.stdout.readline()
        assert first.startswith("page http://127.0.0.1:"), (first, "" if first else process.stderr.read())
        return process, first.split()[1]

    yield start
    for process in running:
        process.kill()
        process.communicate()
