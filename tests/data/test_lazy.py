"""Patterns that stay in their file: what is read, in which order, and how much memory that takes."""

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.data import Scan, bin_detector, crop_detector, load_scan, save_scan
from ptycho.data.lazy import ArraySource, LazyPatterns
from tests.support import simulated_scan


class Store:
    """Frames made on the fly, which notes what it is asked for; only whole runs of rising order, as HDF5 likes them."""

    def __init__(self, count, n, dtype=np.uint16):
        self.shape, self.dtype, self.asked = (count, n, n), np.dtype(dtype), []

    def __getitem__(self, part):
        assert isinstance(part, slice)
        assert part.step in (None, 1)
        self.asked.append((part.start, part.stop))
        rows = np.arange(part.start, part.stop)[:, None, None]
        return (rows + np.arange(self.shape[1] ** 2).reshape(1, *self.shape[1:])).astype(self.dtype)


def stored(count, n=8, **fields):
    positions = np.random.default_rng(0).uniform(0, 50, (count, 2))
    return Scan(Store(count, n), "counts", positions, **fields)


@given(st.lists(st.integers(-50, 49), max_size=30))
def test_every_order_is_read_once_in_rising_order(index):
    scan = stored(50)
    found = scan.patterns[np.array(index, np.int64)]
    np.testing.assert_array_equal(found, Store(50, 8)[0:50][index])
    asked = scan.patterns.sources[0].array.asked
    assert asked == sorted(asked)
    assert sum(stop - start for start, stop in asked) == len({i % 50 for i in index})


@given(st.lists(st.integers(0, 49), max_size=30), st.integers(2, 12))
def test_no_piece_of_a_store_is_asked_for_twice(index, together):
    store = Store(50, 8)
    store.frames_per_chunk = together
    found = LazyPatterns.of(store)[np.array(index, np.int64)]
    np.testing.assert_array_equal(found, Store(50, 8)[0:50][index])
    pieces = [piece for start, stop in store.asked for piece in range(start // together, (stop - 1) // together + 1)]
    assert pieces == sorted({i // together for i in index})


def test_an_index_beyond_the_end_is_told():
    with pytest.raises(IndexError, match="50"):
        stored(50).patterns[[3, 50]]


def test_subset_and_split_read_nothing():
    scan = stored(5_000_000, 64)
    first, second = scan.split("random")
    part = second.subset(np.arange(0, 1000, 7)).subset(slice(5, 9))
    assert scan.patterns.sources[0].array.asked == []
    assert len(first) == len(second) == 2_500_000
    assert part.counts().shape == (4, 64, 64)
    assert len(scan.patterns.sources[0].array.asked) <= 4


@pytest.mark.parametrize("measurement", ["counts", "amplitude"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
@pytest.mark.parametrize("change", [lambda s: crop_detector(s, 8), lambda s: bin_detector(s, 4)])
def test_detector_changes_of_files_are_made_when_they_are_read(change, dtype, measurement, tmp_path):
    plain = simulated_scan(20, 16)
    plain = plain.replace(patterns=np.minimum(plain.patterns, 255).astype(dtype), measurement=measurement)
    np.save(tmp_path / "a.npy", plain.patterns)
    lazy = change(plain.replace(patterns=np.load(tmp_path / "a.npy", mmap_mode="r")))
    assert isinstance(lazy.patterns, LazyPatterns)
    expected = change(plain)
    assert isinstance(expected.patterns, np.ndarray)
    assert lazy.patterns.dtype == expected.patterns.dtype
    np.testing.assert_array_equal(lazy.patterns[[7, 3, 3]], expected.patterns[[7, 3, 3]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy.patterns))[5], expected.patterns[5])
    assert lazy.fingerprint() == expected.fingerprint()


@given(st.booleans(), st.booleans())
def test_cuts_of_cuts(transposed, shifted):
    frames = np.random.default_rng(1).integers(0, 99, (6, 12, 10))
    lazy = LazyPatterns((ArraySource(frames),), transposed=transposed, shifted=shifted)
    whole = lazy[:]
    once = lazy.cut(slice(2, 9), slice(1, 8))
    np.testing.assert_array_equal(once[:], whole[:, 2:9, 1:8])
    np.testing.assert_array_equal(once.cut(slice(1, 5), slice(2, 7))[2:4], whole[2:4, 3:7, 3:8])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: bin_detector(s, 16),
        lambda s: s.replace(patterns=LazyPatterns((ArraySource(s.patterns),), shifted=True).cut(*2 * (slice(8),))),
    ],
    ids=["bin", "shift and cut"],
)
def test_large_frames_are_made_small_some_megabytes_at_a_time(change):
    store = Store(1200, 128)
    small = change(Scan(store, "counts", np.zeros((1200, 2)))).patterns
    found, asked = small[3:1190], store.asked.copy()
    assert max(stop - start for start, stop in asked) * 128**2 * 2 <= 2**24
    assert sorted(number for part in asked for number in range(*part)) == list(range(3, 1190))
    np.testing.assert_array_equal(found[600:602], small[603:605])


@pytest.mark.parametrize(("together", "first"), [(1, 0), (7, 3), (700, 600), (5000, 10)])
def test_pieces_of_a_store_are_read_whole_and_once(together, first):
    store = Store(2000, 128)
    store.frames_per_chunk = together
    LazyPatterns.of(store)[first:1999]
    assert store.asked[0][0] == first
    assert store.asked[-1][1] == 1999
    assert all(stop % together == 0 for _, stop in store.asked[:-1])
    assert [stop for _, stop in store.asked[:-1]] == [start for start, _ in store.asked[1:]]


def test_a_file_is_summed_once():
    scan = stored(100)
    assert scan.mean_total_counts() == scan.mean_total_counts() > 0
    asked = scan.patterns.sources[0].array.asked
    assert sum(stop - start for start, stop in asked) == 100


def test_a_store_says_what_it_unpacks_together(tmp_path):
    scan = simulated_scan(30, 16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        chunked = file.create_dataset("a", data=scan.patterns, chunks=(7, 16, 8))
        assert scan.replace(patterns=chunked).patterns.frames_per_chunk == 7
        whole = file.create_dataset("b", data=scan.patterns)
        assert scan.replace(patterns=whole).patterns.frames_per_chunk == 1
        raster = file.create_dataset("c", data=scan.patterns.reshape(5, 6, 16, 16), chunks=(2, 6, 16, 16))
        assert LazyPatterns((ArraySource(raster),)).frames_per_chunk == 12
        part = bin_detector(crop_detector(scan.replace(patterns=chunked), 8), 2).subset(slice(3, 20))
        assert part.patterns.frames_per_chunk == 7
    save_scan(scan.replace(pixel_size=1e-8), tmp_path / "scan.cxi")
    assert load_scan(tmp_path / "scan.cxi").patterns.frames_per_chunk == 1
    pytest.importorskip("zarr")
    save_scan(scan, tmp_path / "scan.zarr")
    assert load_scan(tmp_path / "scan.zarr").patterns.frames_per_chunk == 30
