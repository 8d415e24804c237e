"""PtychoPINN's RawData: what it takes, groups, saves and refuses."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptycho import params
from ptycho.config import TrainingConfig
from ptycho.data import load_scan, save_npz
from ptycho.errors import DataError
from ptycho.physics import extract_patches
from ptycho.raw_data import RawData, get_relative_coords
from tests.support import simulated_scan

N = 16


def rawdata(scan, **changes):
    arrays = {
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        "diff3d": scan.amplitude(),
        "probeGuess": scan.probe[0],
        "scan_index": np.zeros(len(scan), int),
        "objectGuess": scan.object,
    }
    return RawData.from_coords_without_pc(**(arrays | changes))


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(30, N)


@pytest.mark.parametrize("modes", [1, 3])
def test_single_and_several_modes(modes):
    scan = simulated_scan(12, N, modes=modes)
    raw = rawdata(scan, probeGuess=scan.probe[0] if modes == 1 else scan.probe)
    np.testing.assert_array_equal(raw.scan.probe, scan.probe)
    np.testing.assert_array_equal(raw.scan.positions, scan.positions)
    assert raw.xcoords_start is not None
    assert raw.generate_grouped_data(N, K=4, nsamples=5, gridsize=2)["X_full"].shape == (5, N, N, 4)


def test_the_type_decides_what_was_measured_and_the_log_says_so(scan, caplog):
    caplog.set_level(logging.INFO, "ptycho.compat.raw_data")
    assert rawdata(scan).scan.measurement == "amplitude"
    assert "float32 and taken for amplitude" in caplog.text
    assert rawdata(scan, diff3d=scan.patterns).scan.measurement == "counts"
    assert "uint16 and taken for counts" in caplog.text
    stated = rawdata(scan, diff3d=scan.counts(), measurement="counts")
    np.testing.assert_allclose(stated.scan.amplitude(), scan.amplitude(), rtol=1e-6)
    assert rawdata(scan, diff3d=scan.amplitude().tolist()).scan.measurement == "amplitude"


def test_whole_numbers_taken_for_amplitudes_are_warned_of(scan, caplog):
    assert rawdata(scan, diff3d=scan.counts()).scan.measurement == "amplitude"
    assert "holds whole numbers only; if these are counts" in caplog.text
    caplog.clear()
    rawdata(scan, diff3d=scan.counts(), measurement="amplitude")
    rawdata(scan)
    rawdata(scan, diff3d=scan.patterns)
    assert not caplog.text


def test_grouped_data_are_ptychopinns(scan):
    raw = RawData(
        scan.positions[:, 1],
        scan.positions[:, 0],
        scan.positions[:, 1] + 0.5,
        scan.positions[:, 0],
        scan.amplitude(),
        scan.probe[0],
        None,
        scan.object,
    )
    grouped = raw.generate_grouped_data(N, K=5, nsamples=7, seed=2, gridsize=2)
    index = grouped["nn_indices"]
    assert index.shape == (7, 4)
    assert all(len(set(group)) == 4 for group in index.tolist())
    assert grouped["diffraction"].dtype == grouped["X_full"].dtype == np.float32
    amplitude = scan.amplitude()
    np.testing.assert_allclose(grouped["diffraction"], np.moveaxis(amplitude[index], 1, -1), rtol=1e-5)
    energy = (amplitude.astype(float) ** 2).sum(axis=(1, 2)).mean()
    np.testing.assert_allclose(grouped["X_full"], grouped["diffraction"] * np.sqrt((N / 2) ** 2 / energy), rtol=1e-5)
    xy = np.stack([scan.positions[index, 1], scan.positions[index, 0]], axis=1)[:, None]
    np.testing.assert_array_equal(grouped["coords_nn"], xy)
    np.testing.assert_allclose(grouped["coords_offsets"], xy.mean(axis=3, keepdims=True))
    np.testing.assert_allclose(grouped["coords_relative"], xy.mean(axis=3, keepdims=True) - xy)
    np.testing.assert_allclose(grouped["coords_start_nn"][:, 0, 0], xy[:, 0, 0] + 0.5)
    np.testing.assert_allclose(grouped["coords_start_offsets"][:, 0, 0], grouped["coords_offsets"][:, 0, 0] + 0.5)
    np.testing.assert_allclose(grouped["coords_start_relative"], grouped["coords_relative"], atol=1e-9)
    truth = extract_patches(scan.object, scan.positions[index], N)
    assert grouped["Y"].dtype == np.complex64
    np.testing.assert_allclose(grouped["Y"], np.moveaxis(truth, 1, -1), rtol=1e-6)
    assert grouped["objectGuess"] is raw.objectGuess
    assert grouped["scan"].fingerprint() == raw.scan.fingerprint()
    assert "sample_indices" not in grouped


def test_given_patches_come_before_those_of_the_object(scan):
    patches = np.arange(30)[:, None, None, None] * np.ones((30, N, N, 1), np.complex64)
    xy = (scan.positions[:, 1], scan.positions[:, 0])
    raw = RawData(*xy, *xy, scan.amplitude(), scan.probe[0], None, scan.object, Y=patches)
    grouped = raw.generate_grouped_data(N, nsamples=5, gridsize=2)
    np.testing.assert_array_equal(grouped["Y"][:, 0, 0, :].real, grouped["nn_indices"])
    assert rawdata(scan, objectGuess=None).generate_grouped_data(N, nsamples=5, gridsize=2)["Y"] is None


def test_the_draw(scan, caplog):
    raw = rawdata(scan)

    def groups(**options):
        return raw.generate_grouped_data(N, gridsize=1, **options)["nn_indices"][:, 0].tolist()

    assert groups(nsamples=6) == groups(nsamples=6) == groups(nsamples=6, seed=0)
    assert groups(nsamples=6) != groups(nsamples=6, seed=1)
    assert groups(nsamples=6, sequential_sampling=True) == [0, 1, 2, 3, 4, 5]
    assert len(groups(nsamples=99)) == 30
    assert "99 groups asked for, 30 made" in caplog.text
    many = {"K": 3, "nsamples": 60, "gridsize": 2, "enable_oversampling": True}
    assert len(raw.generate_grouped_data(N, **many)["X_full"]) == 30  # 3 neighbours: one choice from each seed
    assert len(raw.generate_grouped_data(N, **many, neighbor_pool_size=6)["X_full"]) == 60
    raw.sample_indices = np.arange(3)
    np.testing.assert_array_equal(raw.generate_grouped_data(N, gridsize=1)["sample_indices"], [0, 1, 2])


def test_gridsize_is_the_dictionarys_where_it_is_not_given(scan, monkeypatch):
    monkeypatch.setitem(params.cfg, "gridsize", 2)
    assert rawdata(scan).generate_grouped_data(N, nsamples=3)["X_full"].shape[-1] == 4
    assert rawdata(scan).generate_grouped_data(N, nsamples=3, gridsize=1)["X_full"].shape[-1] == 1


def test_files(scan, tmp_path, caplog):
    whole = scan.replace(mask=np.arange(N * N).reshape(N, N) > 3, object_origin=(-2.0, 3.0), scan_index=np.arange(30))
    save_npz(whole, tmp_path / "scan.npz")
    raw = RawData.from_file(tmp_path / "scan.npz")
    assert raw.scan.fingerprint() == whole.fingerprint()
    assert raw.diff3d.shape == (30, N, N)
    assert raw.probeGuess.shape == (N, N)
    raw.to_file(tmp_path / "again")
    assert load_scan(tmp_path / "again.npz").fingerprint() == whole.fingerprint()
    both = RawData.from_files(tmp_path / "scan.npz", str(tmp_path / "again.npz"))
    assert [len(part.xcoords) for part in both] == [30, 30]
    assert RawData.from_file(tmp_path / "scan.npz", measurement="amplitude").scan.measurement == "amplitude"
    config = TrainingConfig()
    config.model.N = 16
    RawData.from_file(tmp_path / "scan.npz", True, config)
    assert not caplog.text
    RawData.from_file(tmp_path / "scan.npz", validate_config=True, current_config=TrainingConfig())
    assert "N is 64, and the patterns are 16 x 16" in caplog.text


def test_what_ptychodus_writes_is_counts(scan, tmp_path):
    """Its patterns are in the detector's type, here real; `bad_pixels` tells that it wrote them."""
    columns, rows = scan.positions[:, 1], scan.positions[:, 0]
    bad = np.zeros((N, N), bool)
    bad[0, 0] = True
    arrays = {"diff3d": scan.counts(), "bad_pixels": bad, "probeGuess": scan.probe, "objectGuess": scan.object}
    start = {"xcoords_start": columns, "ycoords_start": rows, "scan_index": np.zeros(30, int)}
    np.savez(tmp_path / "train.npz", xcoords=columns, ycoords=rows, **arrays, **start)
    raw = RawData.from_file(tmp_path / "train.npz")
    assert raw.scan.measurement == "counts"
    np.testing.assert_array_equal(raw.scan.mask, ~bad)


def test_changed_attributes_are_what_counts(scan):
    raw = rawdata(scan)
    raw.probeGuess = scan.probe[0] * 2
    raw.xcoords = raw.xcoords + 1
    np.testing.assert_array_equal(raw.scan.probe[0], scan.probe[0] * 2)
    np.testing.assert_array_equal(raw.scan.positions[:, 1], scan.positions[:, 1] + 1)


def test_simulation_has_its_photons(scan, monkeypatch):
    raw = RawData.from_simulation(
        scan.positions[:, 1], scan.positions[:, 0], scan.probe, scan.object, np.arange(30), nphotons=1e5, seed=3
    )
    assert raw.scan.mean_total_counts() == pytest.approx(1e5, rel=0.01)
    assert raw.scan.measurement == "counts"
    np.testing.assert_array_equal(raw.scan_index, np.arange(30))
    monkeypatch.setitem(params.cfg, "nphotons", 2e4)
    dictated = RawData.from_simulation(scan.positions[:, 1], scan.positions[:, 0], scan.probe, scan.object)
    assert dictated.scan.mean_total_counts() == pytest.approx(2e4, rel=0.02)


def test_it_says_its_shapes(scan):
    text = str(rawdata(scan, objectGuess=None))
    assert "diff3d: (30, 16, 16)" in text
    assert "objectGuess: None" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xcoords": np.zeros(3)}, "xcoords, ycoords and the two of the start hold 3, 30, 3 and 30 values"),
        ({"ycoords": np.zeros((30, 1))}, r"ycoords: float64 of shape \(30, 1\) given; expected one number"),
        ({"xcoords": np.array(["a"] * 30)}, "xcoords: <U1"),
        ({"diff3d": np.ones((30, N))}, "patterns: rank 2"),
        ({"diff3d": np.full((30, N, N), np.nan)}, "non-finite"),
        ({"probeGuess": np.ones((8, 8))}, "probe: shape"),
        ({"objectGuess": np.ones(4)}, "object: shape"),
        ({"measurement": "photons"}, "measurement: 'photons' given"),
    ],
)
def test_what_is_no_scan_is_refused_at_once(scan, change, message):
    with pytest.raises(DataError, match=message):
        rawdata(scan, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"N": 64}, "N: 64 given, and the patterns are 16 x 16"),
        ({"N": N, "K": 2, "gridsize": 2}, "neighbor_count: 2 given"),
        ({"N": N, "gridsize": 6, "K": 40}, "has only 30"),
        ({"N": N, "nsamples": 0}, "n_groups: 0 given"),
    ],
)
def test_groups_that_cannot_be_made(scan, options, message):
    with pytest.raises(DataError, match=message):
        rawdata(scan).generate_grouped_data(**options)


def test_relative_coordinates_want_groups():
    with pytest.raises(DataError, match=r"coords_nn: shape \(3, 2\) given"):
        get_relative_coords(np.zeros((3, 2)))
