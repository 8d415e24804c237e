"""The network's container: units, layout, PtychoPINN's orders and signs."""

import errno

import numpy as np
import pytest

from ptycho.data import Container, amplitude_factor, make_container, scan_from_groups
from ptycho.data.container import GroupedAmplitudes
from ptycho.errors import DataError
from tests.support import simulated_scan


@pytest.mark.parametrize("gridsize", [1, 2])
def test_amplitudes_are_scaled_by_the_whole_scan(gridsize):
    scan = simulated_scan(30, 16)
    box = make_container(scan, gridsize, 7, seed=2)
    assert box.X.shape == (7, 16, 16, gridsize**2)
    assert box.X.dtype == np.float32
    assert (len(box), box.N, box.channels) == (7, 16, gridsize**2)
    for group in range(7):
        for channel, index in enumerate(box.indices[group]):
            expected = np.sqrt(scan.patterns[index].astype(np.float64)) * box.amplitude_factor
            np.testing.assert_allclose(box.X[group, :, :, channel], expected, rtol=1e-6)
            np.testing.assert_array_equal(box.positions[group, channel], scan.positions[index])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_groups_that_memory_does_not_hold_are_read_when_they_are_indexed(gridsize):
    scan = simulated_scan(30, 16)
    held, read = (make_container(scan, gridsize, 9, seed=2, at_most=limit) for limit in (10**9, 0))
    assert isinstance(held.X, np.ndarray)
    assert isinstance(read.X, GroupedAmplitudes)
    assert (read.X.shape, read.X.dtype, len(read.X)) == (held.X.shape, held.X.dtype, 9)
    for index in (3, slice(2, 5), np.array([8, 0, 0]), (slice(None), 8, 8), (2, 3), (np.array([1, 4]), 5)):
        np.testing.assert_array_equal(read.X[index], held.X[index])
    np.testing.assert_array_equal(read.subset([4, 2]).X[:], held.X[[4, 2]])
    np.testing.assert_array_equal(read.to_scan().patterns, held.to_scan().patterns)


class Packed:
    """Patterns in pieces of five, as a store unpacks them; tells how often it did."""

    frames_per_chunk = 5

    def __init__(self, patterns):
        self.patterns, self.shape, self.dtype, self.unpacked = patterns, patterns.shape, patterns.dtype, []

    def __getitem__(self, numbers):
        chosen = np.arange(len(self.patterns))[numbers]
        self.unpacked += list(np.unique(np.atleast_1d(chosen) // self.frames_per_chunk))
        return self.patterns[chosen]


class TestStoreOfPieces:
    def test_each_piece_is_unpacked_once_and_nothing_is_left(self, tmp_path):
        scan = simulated_scan(30, 16)
        store = Packed(scan.patterns.astype(">u2"))
        held, read = (make_container(each, 2, 9, seed=2, factor=1.0, at_most=limit)
                      for each, limit in ((scan, 10**9), (scan.replace(patterns=store), 0)))  # fmt: skip
        store.unpacked.clear()
        groups = read.X.unpacked(tmp_path / "new")
        used = np.unique(read.indices)
        assert store.unpacked == list(np.unique(used // 5))
        np.testing.assert_array_equal(groups[np.arange(8, -1, -1)], held.X[::-1])
        np.testing.assert_array_equal(np.asarray(groups.select([4, 2])), held.X[[4, 2]])
        assert store.unpacked == list(np.unique(used // 5))
        assert groups.frames_per_chunk == 1
        assert list((tmp_path / "new").iterdir()) == []

    def test_what_costs_nothing_to_read_stays_where_it_is(self, tmp_path):
        groups = make_container(simulated_scan(30, 16), at_most=0).X
        assert groups.unpacked(tmp_path / "new") is groups
        assert not (tmp_path / "new").exists()

    def test_a_full_disk_is_said_and_costs_time_alone(self, tmp_path, monkeypatch, caplog):
        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("ptycho.data.container.unpacked", full)
        groups = make_container(simulated_scan(30, 16).replace(patterns=Packed(simulated_scan(30, 16).patterns)),
                                at_most=0).X  # fmt: skip
        assert groups.unpacked(tmp_path) is groups
        assert f"again and again, since {tmp_path}: No space left on device" in caplog.text


def test_mean_energy_is_that_of_ptychopinn():
    scan = simulated_scan(30, 16)
    box = make_container(scan)
    assert (box.X.astype(np.float64) ** 2).sum(axis=(1, 2, 3)).mean() == pytest.approx((16 / 2) ** 2, rel=1e-6)
    assert make_container(scan, n_groups=3).amplitude_factor == box.amplitude_factor == amplitude_factor(scan)
    assert make_container(scan, factor=2.0).amplitude_factor == 2.0


def test_factor_does_not_depend_on_how_the_measurement_is_stored():
    scan = simulated_scan(30, 16)
    as_amplitude = scan.replace(patterns=scan.amplitude(dtype=np.float64), measurement="amplitude")
    assert amplitude_factor(as_amplitude) == pytest.approx(amplitude_factor(scan), rel=1e-12)


def test_bad_pixels_do_not_count():
    scan = simulated_scan(10, 16)
    mask = np.ones((16, 16), bool)
    mask[8, 8] = False
    hot = scan.patterns.copy()
    hot[:, 8, 8] = 65535
    box = make_container(scan.replace(patterns=hot, mask=mask))
    assert (box.X[:, 8, 8] == 0).all()
    assert (box.X**2).sum(axis=(1, 2, 3)).mean() == pytest.approx(64, rel=1e-5)
    np.testing.assert_array_equal(box.mask, mask)


def test_offsets_have_ptychopinns_order_and_sign():
    positions = np.array([[[10.0, 20.0], [12.0, 20.0], [10.0, 26.0], [12.0, 26.0]]])
    box = Container(np.zeros((1, 8, 8, 4), np.float32), positions, np.arange(4)[None], 1.0)
    np.testing.assert_array_equal(box.centres, [[11, 23]])
    np.testing.assert_array_equal(box.relative[0], [[-1, -3], [1, -3], [-1, 3], [1, 3]])
    assert box.local_offsets.shape == (1, 1, 2, 4)
    np.testing.assert_array_equal(box.local_offsets[0, 0], [[3, 3, -3, -3], [1, -1, 1, -1]])
    assert box.global_offsets.shape == (1, 1, 2, 1)
    np.testing.assert_array_equal(box.global_offsets[0, 0, :, 0], [23, 11])
    np.testing.assert_array_equal(box.coords_nn[0, 0], [[20, 20, 26, 26], [10, 12, 10, 12]])
    for same in (box.coords_nominal, box.coords_true, box.coords):
        np.testing.assert_array_equal(same, box.local_offsets)
    np.testing.assert_array_equal(box.nn_indices, box.indices)
    assert box.Y is box.Y_I is box.Y_phi is None


def test_relative_positions_sum_to_nothing():
    box = make_container(simulated_scan(40, 8), 2)
    np.testing.assert_allclose(box.relative.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(box.global_offsets - box.local_offsets, box.coords_nn)


def test_patches_follow_their_patterns():
    scan = simulated_scan(12, 8)
    patches = (np.arange(12)[:, None, None] * np.ones((8, 8))).astype(np.complex64)
    box = make_container(scan, 2, 5, patches=patches)
    np.testing.assert_array_equal(box.patches[:, 0, 0, :], box.indices)
    with pytest.raises(DataError, match="patches"):
        make_container(scan, patches=patches[:3])


def test_patches_have_ptychopinns_names():
    patches = (2 * np.exp(0.5j) * np.ones((12, 8, 8))).astype(np.complex64)
    box = make_container(simulated_scan(12, 8), 2, 5, patches=patches)
    assert box.Y is box.patches
    np.testing.assert_allclose(box.Y_I, 2, rtol=1e-6)
    np.testing.assert_allclose(box.Y_phi, 0.5, rtol=1e-6)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_groups_give_their_scan_back(gridsize):
    scan = simulated_scan(30, 16)
    back = make_container(scan, gridsize, seed=3).to_scan()
    assert back.measurement == "amplitude"
    np.testing.assert_allclose(back.amplitude(), scan.amplitude(), rtol=1e-5)
    np.testing.assert_array_equal(back.positions, scan.positions)
    np.testing.assert_array_equal(back.probe, scan.probe)


def test_patterns_are_told_apart_by_their_places_where_they_have_no_numbers():
    scan = simulated_scan(30, 16, seed=1)
    box = make_container(scan, 2, seed=3)
    noisy = box.positions + np.random.default_rng(0).uniform(-1e-8, 1e-8, box.positions.shape)
    back = scan_from_groups(box.X, noisy)
    assert len(back) == len(np.unique(scan.positions, axis=0))


def test_subset_keeps_groups_together():
    scan = simulated_scan(12, 8)
    box = make_container(scan, 2, patches=np.ones((12, 8, 8), np.complex64))
    some = box.subset([4, 1])
    np.testing.assert_array_equal(some.X, box.X[[4, 1]])
    np.testing.assert_array_equal(some.indices, box.indices[[4, 1]])
    assert some.patches.shape == (2, 8, 8, 4)
    assert np.shares_memory(box.subset(slice(0, 3)).X, box.X)


def test_dark_scan_and_wrong_shapes_are_refused():
    scan = simulated_scan(12, 8)
    with pytest.raises(DataError, match="all are dark"):
        make_container(scan.replace(patterns=np.zeros_like(scan.patterns)))
    with pytest.raises(DataError, match="only 3"):
        make_container(scan.subset([0, 1, 2]), 2)
    with pytest.raises(DataError, match="X: shape"):
        Container(np.zeros((3, 8, 8)), np.zeros((3, 1, 2)), np.zeros((3, 1)), 1.0)
    with pytest.raises(DataError, match="positions: shape"):
        Container(np.zeros((3, 8, 8, 1)), np.zeros((3, 2)), np.zeros((3, 1)), 1.0)
