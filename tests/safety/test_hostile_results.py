"""A result whose numbers or shapes make no sense is refused in one sentence by every command that reads it."""

import numpy as np
import pytest

from ptycho import cli
from ptycho.errors import DataError
from ptycho.workflows import results
from tests.support import simulated_scan, true_result

CHANGES = {
    "a NaN position": {"positions": np.full((30, 2), np.nan)},
    "an infinite position": {"positions": np.full((30, 2), np.inf)},
    "an infinite origin": {"origin": np.array([np.inf, 0.0])},
    "pixels of 0": {"pixel_size": 0.0},
    "negative pixels": {"pixel_size": -1e-9},
    "pixels of NaN": {"pixel_size": np.nan},
    "slices at no distance": {"slice_spacing": 0.0},
    "an empty object": {"object": np.ones((0, 9)), "weight": np.ones((0, 9))},
    "no modes": {"probe": np.ones((0, 16, 16))},
    "a few weights": {"weights": np.ones((3, 2))},
    "small components": {"components": np.ones((1, 8, 8))},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_is_refused(tmp_path, name, ending, capsys):
    arrays = results._flat(true_result(simulated_scan())) | CHANGES[name]
    path = tmp_path / f"reconstruction.{ending}"
    (results.write_hdf5 if ending == "h5" else results.write_npz)(path, arrays)
    with pytest.raises(DataError):
        results.load_reconstruction(path)
    for words in (["view", str(path)], ["evaluate", str(path), str(path)]):
        assert cli.main(words) == 2
        assert [line[:8] for line in capsys.readouterr().err.splitlines()].count("ptycho: ") == 1
