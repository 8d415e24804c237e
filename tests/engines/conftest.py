"""A small simulated scan for the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ptycho.config import EngineConfig
from ptycho.data import Scan
from ptycho.engines import State
from ptycho.evaluation import compare
from ptycho.physics import focused_probe, lines_object, raster_positions, simulate
from ptycho.workflows.inference import Stitched
from ptycho.workflows.r_factor import scan_r_factor

N = 32


def made(modes: int = 1, nphotons: float = 1e6, noise: bool = True, **fields: Any) -> Scan:
    """A scan of a lines object whose beams overlap well."""
    image = lines_object((88, 88), 3, amplitude=(0.6, 1.0), phase=(-0.8, 0.8)).astype(np.complex128)
    positions = raster_positions((88, 88), N, 5.5, jitter=1.5, rng=1)
    probe = focused_probe(N, aperture=0.5, size=0.45, dtype=np.complex128)
    if modes > 1:
        from ptycho.physics import probe_modes

        probe = probe_modes(probe, modes, [0.7, 0.3][:modes])
    dtype = None if noise else np.float64
    return simulate(image, probe, positions, nphotons, 5, noise=noise, dtype=dtype, **fields)


@dataclass
class Placed:
    """A state as the evaluation takes it."""

    state: State

    def r_factor(self, scan: Scan) -> float:
        return scan_r_factor(self.stitched, self.state.probe, scan.replace(positions=self.state.positions))

    def metrics(self, scan: Scan) -> dict[str, float]:
        return compare(self.stitched, scan.object, scan.object_origin, trim=8).metrics

    @property
    def stitched(self) -> Stitched:
        return Stitched(self.state.object, self.state.weight, self.state.origin, self.state.probe, None)


@pytest.fixture(scope="session")
def scan() -> Scan:
    return made()


@pytest.fixture(scope="session")
def clean() -> Scan:
    return made(noise=False)


@pytest.fixture(scope="session")
def settings() -> Any:
    """An engine's configuration from what differs from the defaults."""

    def make(**changed: Any) -> EngineConfig:
        return EngineConfig(**{"engine_batch_size": 8, "epochs": 5, **changed})

    return make
