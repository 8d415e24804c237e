"""Opening scans for a workflow, and the folder for its results."""

import numpy as np
import pytest

from ptycho.config import ModelConfig
from ptycho.data import save_npz
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.files import adopt
from ptycho.workflows.output_folder import output_folder, write_json
from ptycho.workflows.scans import ScanOptions, fit_model_to, open_scan, subsample
from ptycho.workflows.simulate import SimulationConfig, simulate_scan


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=160, N=128, n_positions=12))


def test_bin_comes_before_crop(scan):
    opened = open_scan(scan, ScanOptions(bin=2, crop=32))
    assert opened.N == 32
    assert open_scan(scan).N == 128
    # Binning by 2 keeps the object's pixel, cropping 64 to 32 doubles it.
    np.testing.assert_allclose(opened.positions, scan.positions / 2)


@pytest.mark.parametrize(
    ("region", "low", "high"),
    [
        ("70:100,60:90", (70, 60), (100, 90)),
        ("80:,:", (80, -np.inf), (np.inf, np.inf)),
        (":90,:", (-np.inf,) * 2, (90, np.inf)),
    ],
)
def test_a_region_holds_the_positions_inside(scan, region, low, high):
    opened = open_scan(scan, ScanOptions(region=region))
    inside = ((scan.positions >= low) & (scan.positions < high)).all(axis=1)
    assert 0 < inside.sum() < len(scan)
    np.testing.assert_array_equal(opened.positions, scan.positions[inside])
    np.testing.assert_array_equal(opened.patterns, scan.patterns[inside])


def test_a_region_is_counted_in_cropped_pixels(scan):
    opened = open_scan(scan, ScanOptions(crop=64, region="40:,:"))
    assert len(opened) == (scan.positions[:, 0] >= 80).sum()


@pytest.mark.parametrize("region", ["5", "1:2", "a:b,c:d", "1:2:3,4:5", "1:2,3:4,5:6"])
def test_a_region_that_is_none_is_refused(scan, region):
    with pytest.raises(ConfigError, match=r"region = .* expected ROW:ROW,COLUMN:COLUMN"):
        open_scan(scan, ScanOptions(region=region))


def test_an_empty_region_is_told_with_where_the_positions_are(scan):
    with pytest.raises(DataError, match=r"region: 900:,: holds no position; they are in rows \d+"):
        open_scan(scan, ScanOptions(region="900:,:"))


def test_a_file_is_read_as_it_is_told(tmp_path, scan):
    save_npz(scan.subset(slice(0, 4)), tmp_path / "scan.npz")
    assert open_scan(tmp_path / "scan.npz").measurement == "counts"
    assert open_scan(tmp_path / "scan.npz", ScanOptions(measurement="amplitude")).measurement == "amplitude"


def test_the_model_follows_the_scan_unless_told(scan):
    model = ModelConfig()
    fit_model_to(scan, model, adopt=True)
    assert model.N == 128
    with pytest.raises(DataError, match="128 x 128 pixels and the model has N = 64: use --crop 64 or --N 128"):
        fit_model_to(scan, ModelConfig(N=64), adopt=False)
    with pytest.raises(DataError, match="has N = 256: use --N 128"):
        fit_model_to(scan, ModelConfig(N=256), adopt=False)


@pytest.mark.parametrize(("crop", "advice"), [(96, "use --crop 64"), (32, "the smallest is 64")])
def test_sizes_that_no_network_takes(scan, crop, advice):
    with pytest.raises(DataError, match=f"{crop} x {crop} pixels, .* N = 64, 128, 256: {advice}"):
        fit_model_to(open_scan(scan, ScanOptions(crop=crop)), ModelConfig(), adopt=True)


def test_subsample_is_seeded_and_keeps_order(scan):
    part = subsample(scan, 5, seed=3)
    assert len(part) == 5
    np.testing.assert_array_equal(part.positions, subsample(scan, 5, seed=3).positions)
    order = [np.flatnonzero((scan.positions == p).all(axis=1))[0] for p in part.positions]
    assert order == sorted(order)
    assert subsample(scan, None, 0) is scan
    assert subsample(scan, 99, 0) is scan


def test_a_folder_with_results_is_refused_unless_forced(tmp_path):
    (tmp_path / "report.html").write_text("old")
    with (
        pytest.raises(OutputError, match=r"report\.html exists already: .*--force"),
        output_folder(tmp_path, ["report.html"]),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"report\.html was not written by ptychopinn"),
        output_folder(tmp_path, ["report.html"], force=True),
    ):
        pass
    adopt(tmp_path, ["report.html"])
    with output_folder(tmp_path, ["report.html"], force=True) as out:
        assert (out / "report.html").read_text() == "old"
    with output_folder(tmp_path, ["other.h5"]) as out:
        assert out == tmp_path


def _fail_if(there):
    if there:
        raise DataError("bad data.")


def test_a_failure_leaves_no_empty_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(DataError), output_folder(folder, []):
        _fail_if(folder.is_dir())
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there_before(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(DataError), output_folder(tmp_path, []):
        _fail_if(True)
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot be written to: Not a directory"),
        output_folder(tmp_path / "file" / "x", []),
    ):
        pass
    with pytest.raises(OutputError, match="cannot be written to: File exists"), output_folder(tmp_path / "file", []):
        pass


def test_json_is_whole(tmp_path):
    write_json({"b": 1.5, "a": [1, 2]}, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text().startswith('{\n  "a": [')
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "y.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
