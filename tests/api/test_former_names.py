"""Former names of attributes and constructor arguments work for one version, with a warning that names the new one."""

import numpy as np
import pytest

from ptycho import Bundle, Reconstruction, TrainingConfig, make_container, physics
from tests.support import simulated_scan


def result(**given):
    return Reconstruction(np.ones((8, 8)), np.ones((8, 8)), (0, 0), np.zeros((2, 2)), np.ones((1, 4, 4)), **given)


def former(holder, old, new):
    with pytest.warns(FutureWarning, match=rf"{old} is now called {new}"):
        return getattr(holder, old)


def test_attributes():
    scan = simulated_scan(12, 8)
    container = make_container(scan)
    bundle = Bundle({}, TrainingConfig(), 1.0, 1e3, 64)
    assert former(result(metrics={"r_factor": 0.1}), "figures", "metrics") == {"r_factor": 0.1}
    assert former(scan, "kept", "in_memory")() is scan
    assert former(scan, "together", "frames_per_chunk") == 1
    assert former(container, "factor", "amplitude_factor") == container.amplitude_factor
    assert former(bundle, "side", "group_canvas_side") == 64


def test_arguments_and_assignment():
    with pytest.warns(FutureWarning, match="figures is now called metrics"):
        found = result(figures={"r_factor": 0.1})
    assert found.metrics == {"r_factor": 0.1}
    with pytest.warns(FutureWarning, match="figures is now called metrics"):
        found.figures = {"seconds": 1.0}
    assert found.metrics == {"seconds": 1.0}


@pytest.mark.parametrize(("old", "new"), [("Laid", "PartialReassembly"), ("laid_together", "merge_partials")])
def test_physics(old, new):
    assert former(physics, old, f"ptycho.physics.{new}") is getattr(physics, new)
