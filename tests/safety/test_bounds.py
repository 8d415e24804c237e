"""What would take all memory is refused by name before anything of that size is allocated."""

import numpy as np
import pytest

from ptycho.config import EngineConfig, ModelConfig, validate
from ptycho.data import Scan, load_scan, save_npz
from ptycho.errors import ConfigError, DataError
from ptycho.workflows.scans import ScanOptions, open_scan


@pytest.fixture
def scan():
    positions = np.random.default_rng(0).uniform(0, 60, (40, 2))
    return Scan(np.ones((40, 16, 16), np.float32), "counts", positions)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ModelConfig, "n_filters_scale"),
        (EngineConfig, "modes"),
        (EngineConfig, "opr_modes"),
        (EngineConfig, "slices"),
    ],
)
def test_a_setting_that_takes_all_memory_is_refused_by_name(kind, name):
    with pytest.raises(ConfigError, match=f"^{name} = 1000000 "):
        kind(**{name: 1_000_000})
    changed = kind()
    setattr(changed, name, 1_000_000)
    with pytest.raises(ConfigError, match=f"^{name} = 1000000 "):
        validate(changed)


@pytest.mark.parametrize("place", [(1e6, 0.0), (0.0, -1e6), (1e6, 1e6), (1e12, 3.0)])
def test_an_outlying_position_is_named_and_can_be_left_out(tmp_path, scan, place):
    positions = scan.positions.copy()
    positions[17] = place
    save_npz(scan.replace(positions=positions), tmp_path / "scan.npz")
    for read in (load_scan, open_scan):
        with pytest.raises(DataError, match=r"positions: pattern 17 lies at .* --region"):
            read(tmp_path / "scan.npz")
    assert len(open_scan(tmp_path / "scan.npz", ScanOptions(region="-10:100,-10:100"))) == 39


@pytest.mark.parametrize("unit", [1e6, 1e9])
def test_a_field_larger_than_the_memory_is_refused(tmp_path, scan, unit):
    save_npz(scan.replace(positions=scan.positions * unit), tmp_path / "scan.npz")
    with pytest.raises(DataError, match=r"positions: .* of memory here; .*--pixel_size"):
        load_scan(tmp_path / "scan.npz")


def test_a_scan_at_one_place_and_one_of_two_regions_are_read(scan):
    assert open_scan(scan.replace(positions=np.ones((40, 2)))) is not None
    positions = scan.positions + np.where(np.arange(40) < 20, 0, 3000)[:, None]
    assert len(open_scan(scan.replace(positions=positions))) == 40
