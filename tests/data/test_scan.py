"""The typed scan: validation, units, subsets, fingerprint."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.data import Scan
from ptycho.data.lazy import LazyPatterns
from ptycho.errors import DataError
from tests.support import simulated_scan


def plain(count=4, n=8, **fields):
    """A scan of `count` patterns of counts 0, 1, 2, ... with some fields set."""
    patterns = np.arange(count * n * n, dtype=np.uint16).reshape(count, n, n)
    given_fields = {"patterns": patterns, "measurement": "counts", "positions": np.zeros((count, 2)), **fields}
    return Scan(**given_fields)


def altered(values, index, value):
    values = np.array(values, dtype=float)
    values[index] = value
    return values


GOOD = np.ones((4, 8, 8))
BAD_FIELDS = [
    ({"patterns": np.ones((8, 8))}, r"patterns: rank 2 .* rank 3"),
    ({"patterns": np.ones((4, 8, 6))}, "patterns: 8x6 given, square"),
    ({"patterns": np.ones((0, 8, 8))}, "holds no patterns"),
    ({"patterns": GOOD.astype(complex)}, "dtype complex128 given"),
    ({"patterns": GOOD.astype(object)}, "dtype object given"),
    ({"patterns": [[[1, 2], [3]]]}, "not an array of numbers"),
    ({"patterns": altered(GOOD, (2, 3, 5), np.nan)}, r"of pattern 2, the first is nan at pixel \(3, 5\)"),
    ({"patterns": altered(GOOD, (1, 0, 7), np.inf)}, "of pattern 1, the first is inf"),
    ({"patterns": altered(GOOD, (3, 1, 1), -2)}, r"of pattern 3, the first is -2.0 at pixel \(1, 1\)"),
    ({"patterns": altered(GOOD, (3, 1, 1), -2).astype(np.int32)}, "of pattern 3, the first is -2 at"),
    ({"measurement": "intensity"}, "measurement: 'intensity' given, 'counts' or 'amplitude'"),
    ({"positions": np.zeros((3, 2))}, "positions: 3 coordinates given for 4 patterns"),
    ({"positions": np.zeros((2, 4))}, r"positions: shape \(2, 4\) given"),
    ({"positions": altered(np.zeros((4, 2)), (1, 0), np.nan)}, "not finite, the first is that of pattern 1"),
    ({"positions": np.zeros((4, 2), complex)}, "positions: dtype complex128"),
    ({"positions": np.zeros((4, 2), object)}, "positions: an array of Python objects"),
    ({"probe": np.ones((1, 4, 4))}, r"probe: shape \(1, 4, 4\) given, \(modes, 8, 8\)"),
    ({"probe": np.full((8, 8), np.nan)}, "probe: 64 value"),
    ({"probe": np.full((8, 8), "a")}, "probe: dtype"),
    ({"object": np.ones(5)}, "object: shape"),
    ({"object": np.ones((5, 5)), "object_origin": (1,)}, "object_origin: .* two finite numbers"),
    ({"wavelength": -1}, "wavelength: -1 given"),
    ({"distance": "far"}, "distance: 'far' given, a positive length"),
    ({"pixel_size": float("inf")}, "pixel_size: inf given"),
    ({"mask": np.ones((4, 4), bool)}, r"mask: shape \(4, 4\) given, \(8, 8\)"),
    ({"mask": np.zeros((8, 8), bool)}, "mask: every pixel is marked bad"),
    ({"mask": np.full((8, 8), 2)}, "mask: values other than"),
    ({"scan_index": np.zeros(3, int)}, "scan_index: int64 of shape"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_field_is_named(fields, message):
    with pytest.raises(DataError, match=message):
        plain(**fields)


def test_every_field_is_kept():
    fields = {
        "probe": np.ones((2, 8, 8), np.complex64),
        "object": np.ones((20, 30), np.complex64),
        "object_origin": (1.5, -2.0),
        "wavelength": 1e-10,
        "distance": 2.0,
        "detector_pixel_size": 5e-5,
        "mask": np.eye(8, dtype=bool),
        "scan_index": np.arange(4),
        "name": "star",
        "metadata": {"beamline": "2-ID"},
    }
    scan = plain(**fields)
    for name, value in fields.items():
        np.testing.assert_array_equal(getattr(scan, name), value)
    assert (len(scan), scan.N) == (4, 8)
    assert "star" in repr(scan)
    assert "4 patterns of 8x8, counts" in repr(scan)


def test_types_are_brought_to_order():
    scan = plain(positions=[[0, 1], [2, 3], [4, 5], [6, 7]], probe=np.ones((8, 8)), object=np.ones((9, 9), np.float32))
    assert scan.positions.dtype == np.float64
    assert scan.probe.shape == (1, 8, 8)
    assert scan.probe.dtype == np.complex128
    assert scan.object.dtype == np.complex64
    assert scan.object_origin == (0.0, 0.0)
    assert plain(object_origin=(3, 4)).object_origin is None


def test_object_pixel_follows_from_the_far_field():
    geometry = {"wavelength": 1e-10, "distance": 2.0, "detector_pixel_size": 5e-5}
    assert plain(**geometry).object_pixel_size == pytest.approx(1e-10 * 2 / (8 * 5e-5))
    assert plain(**geometry, pixel_size=3e-8).object_pixel_size == 3e-8
    assert plain(wavelength=1e-10).object_pixel_size is None


@given(hnp.arrays(np.uint16, (3, 4, 4)))
def test_integer_counts_equal_float_counts(patterns):
    whole, real = (plain(3, 4, patterns=p) for p in (patterns, patterns.astype(np.float32)))
    for scan in (whole, real):
        assert scan.counts().dtype == scan.amplitude().dtype == np.float32
    np.testing.assert_array_equal(whole.counts(), real.counts())
    np.testing.assert_array_equal(whole.amplitude(), real.amplitude())
    assert whole.mean_total_counts() == real.mean_total_counts() == patterns.sum(dtype=np.float64) / 3


@given(hnp.arrays(np.uint16, (3, 4, 4)))
def test_integer_amplitudes_do_not_overflow_when_squared(patterns):
    scan = plain(3, 4, patterns=patterns, measurement="amplitude")
    np.testing.assert_array_equal(scan.counts(dtype=np.float64), patterns.astype(np.float64) ** 2)
    np.testing.assert_array_equal(scan.amplitude(), patterns.astype(np.float32))


@given(hnp.arrays(np.float64, (2, 4, 4), elements=st.floats(0, 1e6)))
def test_counts_and_amplitude_belong_together(patterns):
    scan = plain(2, 4, patterns=patterns)
    assert scan.counts().dtype == np.float64
    np.testing.assert_allclose(scan.amplitude() ** 2, scan.counts(), rtol=1e-14, atol=1e-300)
    np.testing.assert_array_equal(scan.patterns, patterns)


@pytest.mark.parametrize("garbage", [np.nan, -1.0, 65535.0])
@pytest.mark.parametrize("measurement", ["counts", "amplitude"])
def test_bad_pixels_read_as_zero_whatever_they_hold(garbage, measurement):
    mask = np.ones((8, 8), bool)
    mask[2, 5] = False
    patterns = np.full((4, 8, 8), 3.0, np.float32)
    patterns[:, 2, 5] = garbage
    scan = plain(patterns=patterns, mask=mask, measurement=measurement)
    for values in (scan.counts(), scan.amplitude([1, 0])):
        assert (values[:, 2, 5] == 0).all()
        assert (values[:, mask] > 0).all()
    assert scan.mean_total_counts() == 63 * (3 if measurement == "counts" else 9)


def test_indices_choose_repeat_and_reorder():
    scan = plain()
    np.testing.assert_array_equal(scan.counts([2, 0, 2]), scan.counts()[[2, 0, 2]])
    np.testing.assert_array_equal(scan.counts(slice(1, 3)), scan.counts()[1:3])
    np.testing.assert_array_equal(scan.counts([True, False, False, True]), scan.counts()[[0, 3]])
    np.testing.assert_array_equal(scan.counts([-1]), scan.counts()[3:])
    assert scan.counts([]).shape == (0, 8, 8)
    for wrong in ([4], [[0, 1]], [0.5]):
        with pytest.raises(DataError, match="indices"):
            scan.counts(wrong)


def test_chunks_cover_all_patterns_once():
    scan = plain(count=11)
    for size in (None, 1, 4, 100):
        assert np.concatenate([np.arange(11)[part] for part in scan.chunks(size)]).tolist() == list(range(11))


@pytest.mark.parametrize("by", ["rows", "columns", "alternate", "random"])
@pytest.mark.parametrize("fraction", [0.5, 0.3])
def test_split_shares_the_patterns_out(by, fraction, small_scan):
    parts = small_scan.split(by, fraction, seed=1)
    first, second = ({(*tuple(p), int(c.sum())) for p, c in zip(x.positions, x.patterns, strict=True)} for x in parts)
    assert len(parts[0]) == round(fraction * len(small_scan))
    assert len(parts[0]) + len(parts[1]) == len(small_scan)
    assert not first & second
    axis = {"rows": 0, "columns": 1}.get(by)
    if axis is not None:
        assert parts[0].positions[:, axis].max() <= parts[1].positions[:, axis].min()


def test_split_alternates_and_refuses_empty_halves():
    scan = plain(5, positions=np.arange(10).reshape(5, 2))
    assert scan.split("alternate", 0.6)[0].positions[:, 0].tolist() == [0, 4, 8]
    with pytest.raises(DataError, match="one half empty"):
        scan.split(fraction=0.01)
    with pytest.raises(DataError, match="by='diagonal'"):
        scan.split("diagonal")


def test_subset_and_replace_keep_the_rest():
    scan = plain(scan_index=np.arange(4), name="x", probe=np.ones((8, 8)))
    some = scan.subset([3, 1])
    assert some.scan_index.tolist() == [3, 1]
    assert some.name == "x"
    np.testing.assert_array_equal(some.patterns, scan.patterns[[3, 1]])
    assert scan.replace(name="y").name == "y"
    with pytest.raises(DataError, match="no field colour"):
        scan.replace(colour=1)
    with pytest.raises(AttributeError):
        scan.name = "z"


def test_fingerprint_depends_on_the_data_alone():
    scan = simulated_scan(4, 8)
    same = scan.replace(name="other", metadata={"a": 1}, patterns=scan.patterns.astype(">u2"))
    assert scan.fingerprint() == same.fingerprint()
    assert len(scan.fingerprint()) == 64
    changed = [
        scan.replace(measurement="amplitude"),
        scan.replace(positions=scan.positions + 1e-9),
        scan.replace(wavelength=2e-10),
        scan.replace(probe=scan.probe * 2),
        scan.replace(mask=np.eye(8, dtype=bool)),
        scan.subset([0, 1, 3, 2]),
    ]
    assert len({scan.fingerprint(), *(other.fingerprint() for other in changed)}) == 7


def test_hdf5_and_memory_maps_read_lazily(tmp_path):
    scan = simulated_scan(12, 8)
    with h5py.File(tmp_path / "patterns.h5", "w") as file:
        data = file.create_dataset("data", data=scan.patterns)
        np.save(tmp_path / "patterns.npy", scan.patterns)
        for lazy in (data, np.load(tmp_path / "patterns.npy", mmap_mode="r")):
            other = scan.replace(patterns=lazy)
            assert isinstance(other.patterns, LazyPatterns)
            assert isinstance(other.subset([5, 1]).patterns, LazyPatterns)
            np.testing.assert_array_equal(other.counts([7, 2, 2]), scan.counts([7, 2, 2]))
            assert other.fingerprint() == scan.fingerprint()
            assert other.mean_total_counts() == scan.mean_total_counts()
            np.testing.assert_array_equal(other.subset([5, 1, 5]).patterns, scan.patterns[[5, 1, 5]])
            assert other.in_memory(at_most=100) is other
            np.testing.assert_array_equal(other.in_memory().patterns, scan.patterns)
            assert isinstance(other.in_memory().patterns, np.ndarray)


def test_lazy_patterns_are_checked_when_read(tmp_path):
    np.save(tmp_path / "bad.npy", altered(np.ones((4, 8, 8)), (2, 0, 0), -1))
    scan = plain(patterns=np.load(tmp_path / "bad.npy", mmap_mode="r"))
    scan.counts([0, 1])
    with pytest.raises(DataError, match="negative"):
        scan.counts([2])
