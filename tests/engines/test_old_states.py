"""States of runs that version 0.1 was killed in: the work goes on from them, to the result of that version."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ptycho.config import EngineConfig
from ptycho.data import load_scan
from ptycho.engines import load_state, solve
from ptycho.errors import DataError

FILES = Path(__file__).parent.parent / "data_files"
RUNS = {
    "rpie": {
        "epochs": 8,
        "full_batch_epochs": 1,
        "interpolation": "fourier",
        "momentum": 0.3,
        "opr_modes": 1,
        "opr_from": 1,
        "correct_positions": "gradient",
        "positions_from": 1,
    },
    "adam": {"engine": "gradient", "epochs": 6, "step_size": 0.1, "backend": "pytorch"},
}
R_FACTORS = {
    "rpie": [0.14885392164657316, 0.14705712741034108, 0.13325138607763976, 0.13416564496606953, 0.17126603826068112],
    "adam": [0.315924626209759, 0.22986096533194475, 0.19610698292959872],
}
"""What the uninterrupted runs of commit 0ad4836 found in the last epochs."""


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on(name, tmp_path):
    scan, path = load_scan(FILES / "engine_scan.npz"), tmp_path / "engine-state.npz"
    shutil.copy(FILES / f"engine_state_{name}.npz", path)
    seen = []
    config = EngineConfig(**RUNS[name], engine_batch_size=8, double=True)
    done = solve(scan, config, checkpoint=path, callbacks=[lambda epoch, epochs, numbers: seen.append(epoch)])
    assert seen == list(range(config.epochs - len(R_FACTORS[name]) + 1, config.epochs + 1))
    np.testing.assert_allclose(done.history["r_factor"][-len(seen) :], R_FACTORS[name], rtol=1e-6)
    assert done.interpolation == config.interpolation


def test_it_belongs_to_its_settings(tmp_path):
    scan, path = load_scan(FILES / "engine_scan.npz"), tmp_path / "engine-state.npz"
    shutil.copy(FILES / "engine_state_rpie.npz", path)
    with pytest.raises(DataError, match="another scan or other settings"):
        solve(scan, EngineConfig(**RUNS["rpie"], engine_batch_size=7, double=True), checkpoint=path)
    with pytest.raises(DataError, match="another scan or other settings"):
        load_state(path, "another label")
