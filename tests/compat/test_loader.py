"""PtychoPINN's containers: arrays, offsets that know their scan, splits, files."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho import params
from ptycho.data import LocalOffsets
from ptycho.errors import DataError
from ptycho.loader import PtychoDataContainer, PtychoDataset, RawData, load
from ptycho.workflows.scans import as_scan
from tests.support import simulated_scan

N = 16


@pytest.fixture(scope="module")
def raw():
    return RawData.from_scan(simulated_scan(30, N))


@pytest.fixture(scope="module")
def grouped(raw):
    return raw.generate_grouped_data(N, K=4, nsamples=8, gridsize=2)


def test_a_container_has_ptychopinns_arrays(raw, grouped):
    box = load(lambda: grouped, raw.probeGuess, which=None, create_split=False)
    assert isinstance(box, PtychoDataContainer)
    assert len(box) == 8
    np.testing.assert_array_equal(box.X, grouped["X_full"])
    np.testing.assert_allclose(box.Y, grouped["Y"], atol=1e-6)
    np.testing.assert_allclose(box.Y_I, np.abs(grouped["Y"]))
    np.testing.assert_allclose(box.Y_phi, np.angle(grouped["Y"]))
    np.testing.assert_array_equal(box.local_offsets, grouped["coords_relative"])
    np.testing.assert_array_equal(box.global_offsets, grouped["coords_offsets"])
    for same in (box.coords, box.coords_nominal, box.coords_true):
        np.testing.assert_allclose(same, grouped["coords_relative"], rtol=1e-6)
        assert same.dtype == np.float32
    np.testing.assert_array_equal(box.nn_indices, grouped["nn_indices"])
    np.testing.assert_array_equal(box.probe, raw.probeGuess)
    assert (box.X.dtype, box.Y.dtype, box.probe.dtype) == (np.float32, np.complex64, np.complex64)
    assert box.norm_Y_I == pytest.approx(np.sqrt(params.get("nphotons")) / (N / 2))
    assert box.YY_full is None
    assert "X (8, 16, 16, 4)" in repr(box)


def test_offsets_know_where_they_are_from(raw, grouped):
    offsets = load(lambda: grouped, raw.probeGuess).local_offsets
    assert isinstance(offsets, LocalOffsets)
    assert offsets.source is grouped["scan"]
    np.testing.assert_allclose(offsets.positions, raw.scan.positions[grouped["nn_indices"]])
    for plain in (offsets[:3], offsets * 1, np.array(offsets)):
        assert getattr(plain, "source", None) is getattr(plain, "positions", None) is None


def test_without_truth_the_patches_are_one(grouped):
    box = load(lambda: grouped | {"Y": None}, None)
    np.testing.assert_array_equal(box.Y, np.ones((8, N, N, 4)))
    assert box.probe is None


def test_splits_take_everything_along(raw, grouped):
    parts = [load(lambda: (grouped, 0.75), raw.probeGuess, which, create_split=True) for which in ("train", "test")]
    assert [len(part) for part in parts] == [6, 2]
    for name, whole in (("X", "X_full"), ("global_offsets", "coords_offsets"), ("nn_indices", "nn_indices")):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), grouped[whole])
    np.testing.assert_allclose(parts[1].Y, grouped["Y"][6:], atol=1e-6)
    np.testing.assert_allclose(parts[1].local_offsets.positions, raw.scan.positions[grouped["nn_indices"][6:]])
    with pytest.raises(DataError, match="which: None given, 'train' or 'test' expected"):
        load(lambda: (grouped, 0.75), None, create_split=True)
    dataset = PtychoDataset(*parts)
    assert (dataset.train_data, dataset.test_data) == tuple(parts)


def test_other_data_are_refused(grouped):
    with pytest.raises(DataError, match="nn_indices: not in the grouped data"):
        load(lambda: {key: value for key, value in grouped.items() if key != "nn_indices"}, None)


def test_a_container_of_given_arrays_shows_its_scan(raw, grouped):
    names = ("X", "Y_I", "Y_phi", "norm_Y_I", "YY_full", "coords_nominal", "coords_true", "nn_indices")
    made = load(lambda: grouped, raw.probeGuess)
    values = [getattr(made, name) for name in (*names, "global_offsets", "local_offsets", "probe")]
    scan = as_scan(PtychoDataContainer(*values))
    seen = np.unique(grouped["nn_indices"])
    np.testing.assert_allclose(scan.positions, raw.scan.positions[seen])
    ratio = scan.amplitude()[raw.scan.patterns[seen] > 0] / raw.scan.amplitude(seen)[raw.scan.patterns[seen] > 0]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert as_scan(made).fingerprint() == raw.scan.fingerprint()


def test_arrays_in_one_call(raw, monkeypatch):
    monkeypatch.setitem(params.cfg, "gridsize", 2)
    arrays = (raw.xcoords, raw.ycoords, raw.diff3d, raw.probeGuess, raw.scan_index)
    box = PtychoDataContainer.from_raw_data_without_pc(*arrays, nsamples=3)
    assert box.X.shape == (3, N, N, 4)
    with pytest.raises(DataError, match="N: 32 given"):
        PtychoDataContainer.from_raw_data_without_pc(*arrays, N=32)


def test_arrays_are_written_under_their_names(raw, grouped, tmp_path):
    box = load(lambda: grouped, raw.probeGuess)
    box.to_npz(tmp_path / "box")
    with np.load(tmp_path / "box.npz", allow_pickle=False) as stored:
        assert "YY_full" not in stored
        np.testing.assert_array_equal(stored["X"], box.X)
        np.testing.assert_array_equal(stored["local_offsets"], box.local_offsets)
        np.testing.assert_array_equal(stored["probe"], box.probe)
