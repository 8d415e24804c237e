"""Fixtures of all tests: backends, namespaces, dtypes, scans, and Hypothesis without chance or deadline."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ptycho.backend import Backend, get_backend
from tests import support

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile(
    "ptycho", derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ptycho")

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


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="session", params=["numpy", "pytorch"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend whose framework is installed."""
    if request.param == "pytorch":
        _needs("torch")
    return get_backend(request.param)


@pytest.fixture(scope="session", params=["numpy", "torch", "array_api_strict"])
def xp(request: pytest.FixtureRequest) -> Any:
    """Every array namespace that the physics is proved on; array-api-strict has the standard and nothing else."""
    if request.param == "torch":
        _needs("torch")
        return importlib.import_module("array_api_compat.torch")
    name = "array_api_compat.numpy" if request.param == "numpy" else "array_api_strict"
    return importlib.import_module(name)


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
