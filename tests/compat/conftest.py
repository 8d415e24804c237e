"""A small scan, models trained on it in a second, and PtychoPINN's dictionary as it was before each test."""

from __future__ import annotations

import importlib.util

import pytest

from ptycho import params
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.config.published import default_values
from ptycho.raw_data import RawData
from ptycho.workflows.components import train_cdi_model
from ptycho.workflows.simulate import SimulationConfig, simulate_scan


@pytest.fixture(autouse=True)
def settings():
    """The dictionary before any run; whatever a test writes is gone after it."""
    params.cfg.clear()
    params.cfg.update(default_values())
    yield params.cfg
    params.cfg.clear()
    params.cfg.update(default_values())


@pytest.fixture(scope="session")
def scan():
    """Counts of 64 x 64 pixels, of a known object."""
    return simulate_scan(SimulationConfig(size=100, positions="raster", step=7, jitter=1, nphotons=1e5))


@pytest.fixture(scope="session")
def raw(scan):
    """The same scan under PtychoPINN's names."""
    return RawData.from_scan(scan)


def small(gridsize: int = 1, **changes) -> TrainingConfig:
    """A training of seconds."""
    model = ModelConfig(n_filters_scale=1, start_iterations=5, gridsize=gridsize)
    config = TrainingConfig(model=model, nepochs=1, n_groups=16, batch_size=8, seed=4, validation_fraction=0.0)
    for name, value in changes.items():
        setattr(config.model if hasattr(config.model, name) else config, name, value)
    return config


@pytest.fixture(scope="session")
def trained(scan):
    """What a training returns, by gridsize."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    return {gridsize: train_cdi_model(scan, None, small(gridsize)) for gridsize in (1, 2)}
