"""Scan files: every dialect, the exact round trip, and files that are refused with one sentence."""

import bz2
import errno
import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.data import Scan, available_readers, load_scan, save_npz
from ptycho.data.lazy import LazyPatterns
from ptycho.data.readers import npz as npz_module
from ptycho.errors import DataError, OutputError
from ptycho.files import written_whole
from tests.support import simulated_scan

FIELDS = ("patterns", "positions", "probe", "object", "mask", "scan_index")


def assert_same(actual, expected):
    """Exactly the same scan: every field, its dtype and the metadata."""
    for name in FIELDS:
        one, other = getattr(actual, name), getattr(expected, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one is None or one.dtype == other.dtype, name
    for name in ("measurement", "object_origin", "wavelength", "distance", "detector_pixel_size", "pixel_size", "name"):
        assert getattr(actual, name) == getattr(expected, name), name
    assert actual.metadata == expected.metadata
    assert actual.fingerprint() == expected.fingerprint()


def arrays(count=5, n=8, **changes):
    """PtychoPINN's keys; a change of None removes one."""
    rng = np.random.default_rng(1)
    content = {
        "xcoords": rng.uniform(10, 20, count),
        "ycoords": rng.uniform(30, 40, count),
        "diff3d": rng.uniform(0, 1, (count, n, n)).astype(np.float32),
        "probeGuess": np.ones((n, n), np.complex64),
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


@pytest.fixture
def stored(tmp_path):
    """Write arrays to an NPZ file and return its path."""

    def store(content, name="scan.npz"):
        np.savez(tmp_path / name, **content)
        return tmp_path / name

    return store


@given(
    st.sampled_from(["u1", "<u2", ">u2", "u4", "i4", "i8", "f4", "f8"]).flatmap(
        lambda dtype: hnp.arrays(dtype, (3, 4, 4), elements={"min_value": 0, "max_value": 200})
    ),
    st.sampled_from(["counts", "amplitude"]),
    hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e3, 1e3)),
    st.one_of(st.none(), st.floats(1e-12, 1.0)),
    st.one_of(st.none(), st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))),
    st.one_of(st.none(), hnp.arrays(np.bool_, (4, 4)).filter(np.any)),
    st.integers(0, 3),
    st.text(max_size=5),
    st.booleans(),
)
def test_round_trip_is_exact(
    tmp_path_factory, patterns, measurement, positions, length, origin, mask, modes, name, compress
):
    scan = Scan(
        patterns=patterns,
        measurement=measurement,
        positions=positions,
        probe=np.ones((modes, 4, 4), np.complex64) * 1j if modes else None,
        object=None if origin is None else np.full((5, 7), 2 + 1j, np.complex128),
        object_origin=origin,
        wavelength=length,
        pixel_size=length,
        mask=mask,
        scan_index=np.arange(3, dtype=np.int32) if compress else None,
        name=name,
        metadata={"note": "µm", "list": [1, 2.5]},
    )
    path = tmp_path_factory.mktemp("round") / "scan.npz"
    save_npz(scan, path, compress=compress)
    assert_same(load_scan(path), scan)


def test_same_scan_gives_same_bytes(tmp_path):
    save_npz(simulated_scan(), tmp_path / "a.npz")
    save_npz(simulated_scan(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_written_file_has_ptychopinns_keys(tmp_path):
    scan = simulated_scan(modes=1)
    save_npz(scan, tmp_path / "a.npz", measurement="amplitude")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["diff3d"].dtype == np.float32
        np.testing.assert_allclose(file["diff3d"] ** 2, scan.counts(), rtol=1e-6)
        np.testing.assert_array_equal(file["xcoords"], scan.positions[:, 1])
        np.testing.assert_array_equal(file["ycoords_start"], scan.positions[:, 0])
        assert file["probeGuess"].shape == (scan.N, scan.N)
        assert json.loads(str(file["_metadata"]))["measurement"] == "amplitude"
    assert load_scan(tmp_path / "a.npz").measurement == "amplitude"


def test_large_uncompressed_arrays_are_mapped(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(npz_module, "MAP_FROM_BYTES", 1000)
    scan = simulated_scan()
    save_npz(scan, tmp_path / "a.npz", compress=False)
    loaded = load_scan(tmp_path / "a.npz")
    assert isinstance(loaded.patterns, LazyPatterns)
    assert_same(loaded, scan)
    save_npz(scan, tmp_path / "b.npz")
    assert isinstance(load_scan(tmp_path / "b.npz").patterns, np.ndarray)
    assert "'diff3d' is stored compressed, so all of its 15.5 kB are unpacked into memory" in caplog.text


def test_ptychopinn_contract(stored):
    content = arrays(xcoords_start=np.zeros(5), ycoords_start=np.zeros(5), scan_index=np.arange(5))
    scan = load_scan(stored(content, "fly.npz"))
    assert scan.measurement == "amplitude"
    np.testing.assert_array_equal(scan.positions, np.stack([content["ycoords"], content["xcoords"]], axis=-1))
    np.testing.assert_array_equal(scan.scan_index, np.arange(5))
    assert scan.probe.shape == (1, 8, 8)
    assert scan.object is None
    assert scan.name == "fly"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_integer_diff3d_is_counts(stored, dtype):
    scan = load_scan(stored(arrays(diff3d=np.full((5, 8, 8), 7, dtype))))
    assert scan.measurement == "counts"
    assert scan.patterns.dtype == dtype


def test_ptychodus_dialect(stored):
    bad = np.zeros((8, 8), bool)
    bad[1, 2] = True
    image = np.ones((30, 30), complex)
    scan = load_scan(stored(arrays(bad_pixels=bad, probeGuess=np.ones((1, 3, 8, 8), complex), objectGuess=image)))
    assert scan.object_origin == (-0.5, -0.5)  # ptychodus has positions at the middle of a patch, not at its pixel N//2
    assert scan.measurement == "counts"
    assert scan.probe.shape == (3, 8, 8)
    np.testing.assert_array_equal(scan.mask, ~bad)


@pytest.mark.parametrize("axis", [0, 2])
def test_legacy_cube_is_turned_to_the_scan_axis(stored, axis):
    content = arrays()
    cube = content.pop("diff3d")
    scan = load_scan(stored({**content, "diffraction": np.moveaxis(cube, 0, axis)}))
    np.testing.assert_array_equal(scan.patterns, cube)
    assert scan.measurement == "amplitude"


def test_legacy_cube_with_equal_sides_asks_for_the_axis(stored):
    content = arrays(count=8)
    cube = content.pop("diff3d")
    path = stored({**content, "diffraction": np.moveaxis(cube, 0, 2)})
    with pytest.raises(DataError, match="say which with scan_axis=0 or scan_axis=2"):
        load_scan(path)
    np.testing.assert_array_equal(load_scan(path, scan_axis=2).patterns, cube)
    with pytest.raises(DataError, match="scan_axis: 5 given"):
        load_scan(path, scan_axis=5)


def test_what_the_caller_states_wins(stored):
    path = stored(arrays())
    scan = load_scan(path, measurement="counts", wavelength=1e-10, name="mine", probe=None)
    assert (scan.measurement, scan.wavelength, scan.name, scan.probe) == ("counts", 1e-10, "mine", None)
    assert load_scan(path, format="ptychopinn-npz").N == 8
    with pytest.raises(DataError, match=r"unknown option colour; for ptychopinn-npz there are patterns,.*scan_axis"):
        load_scan(path, colour=1)
    with pytest.raises(DataError, match="format: 'zip' given, one of"):
        load_scan(path, format="zip")


def test_foreign_metadata_is_kept_and_pickled_scalars_stay_unread(stored, caplog):
    foreign = np.array(json.dumps({"nphotons": 1e9}))
    assert load_scan(stored(arrays(_metadata=foreign))).metadata == {"nphotons": 1e9}
    pickled = arrays(_metadata=np.array("{}", dtype=object), objectGuess=np.array(None))
    scan = load_scan(stored(pickled))
    assert scan.object is None
    assert scan.metadata == {}
    assert "objectGuess is a pickled object, which is not read" in caplog.text


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("key", ["diff3d", "xcoords", "objectGuess", "probeGuess", "_metadata"])
def test_object_arrays_are_refused_unread(stored, tmp_path, key):
    trap = np.empty((2,), object)
    trap[:] = [Trap(tmp_path / "sprung"), None]
    path = stored(arrays(**{key: trap}))
    with pytest.raises(DataError, match=f"{key}.* is an array of Python objects, which is refused"):
        load_scan(path)
    assert not (tmp_path / "sprung").exists()


BAD_CONTENT = [
    ({"diff3d": None}, "lacks the array 'diff3d'; it holds probeGuess, xcoords, ycoords"),
    ({"xcoords": None}, "lacks the array 'xcoords'"),
    ({"ycoords": np.zeros(4)}, "xcoords has 5 values, ycoords 4"),
    ({"xcoords": np.zeros(4), "ycoords": np.zeros(4)}, "4 coordinates given for 5 patterns"),
    ({"xcoords": np.zeros((5, 1))}, r"xcoords is float64 of shape \(5, 1\)"),
    ({"xcoords": np.full(5, "a")}, "one real number per pattern expected"),
    ({"xcoords": np.full(5, np.nan)}, "positions: 5 of 5 are not finite"),
    ({"diff3d": np.ones((8, 8))}, "patterns of rank 2"),
    ({"diff3d": np.ones((5, 8, 8, 1))}, "patterns of rank 4"),
    ({"diff3d": np.full((5, 8, 8), np.nan)}, "negative or non-finite"),
    ({"diff3d": np.full((5, 8, 8), -1)}, "64 negative or non-finite"),
    ({"probeGuess": np.ones((4, 4))}, "probe: shape"),
    ({"bad_pixels": np.zeros((4, 4), bool)}, "mask: shape"),
    ({"_metadata": np.array("not json")}, "_metadata is not JSON"),
    ({"_metadata": np.array("[1]")}, "a JSON object expected"),
    ({"diff3d": None, "diffraction": np.ones((7, 8, 8))}, "neither its first nor its last axis"),
    ({"diff3d": None, "diffraction": np.ones((5, 8))}, "patterns of rank 2"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONTENT, ids=[message[:30] for _, message in BAD_CONTENT])
def test_bad_content_is_refused_and_the_file_named(stored, changes, message):
    path = stored(arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        load_scan(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_refused(tmp_path, stored):
    whole = stored(arrays()).read_bytes()
    cases = {
        "cut.npz": whole[: len(whole) // 2],
        "empty.npz": b"",
        "noise.npz": os.urandom(500),
        "cut.npz.bz2": bz2.compress(whole)[:-40],
        "noise.npz.bz2": b"BZh9" + bytes(100),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read as an NPZ file"):
            load_scan(tmp_path / name)


def test_damaged_member_is_refused(tmp_path, stored):
    content = bytearray(stored(arrays(count=200)).read_bytes())
    place = content.index(b"diff3d.npy") + 20_000
    content[place : place + 8] = bytes(8)
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(DataError, match="'diff3d' cannot be read, the file is damaged"):
        load_scan(tmp_path / "damaged.npz")


def test_odd_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "fake.npz", "w") as archive:
        archive.writestr("diff3d.npy", b"not an array")
    with pytest.raises(DataError, match="cannot be read as an NPZ"):
        load_scan(tmp_path / "fake.npz")


def test_other_files_are_refused(tmp_path, stored):
    with pytest.raises(DataError, match="does not exist; give the path"):
        load_scan(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="is a directory"):
        load_scan(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"of no format that can be read; known are .*ptychopinn-npz.*tike-npz"):
        load_scan(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"with the arrays a, b is of no format"):
        load_scan(stored({"a": np.zeros(2), "b": np.zeros(2)}))
    with pytest.raises(DataError, match="is not an NPZ file, which the format tike-npz is"):
        load_scan(tmp_path / "notes.txt", format="tike-npz")


def test_readers_are_registered():
    readers = available_readers()
    assert {"ptychopinn-npz", "tike-npz"} <= set(readers)
    assert all(reader.description for reader in readers.values())


@pytest.mark.parametrize("packed", [False, True])
def test_tike_file_is_centred(tmp_path, packed):
    scan = simulated_scan(6, 8, modes=2)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        data=np.fft.ifftshift(scan.patterns, axes=(1, 2))[None].astype(np.float32),
        probe=scan.probe[None, None, None],
        scan=(scan.positions - 4)[None].astype(np.float32),
    )
    path = tmp_path / ("t.npz.bz2" if packed else "t.npz")
    path.write_bytes(bz2.compress(buffer.getvalue()) if packed else buffer.getvalue())
    loaded = load_scan(path)
    assert loaded.measurement == "counts"
    np.testing.assert_array_equal(loaded.patterns, scan.patterns)
    np.testing.assert_array_equal(loaded.positions, scan.positions)
    np.testing.assert_array_equal(loaded.probe, scan.probe)
    assert loaded.name == "t"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.ones((2, 6, 8, 8))}, "only axes of length 1 may precede"),
        ({"data": np.ones((8, 8))}, "data has rank 2"),
        ({"data": np.ones((1, 6, 8, 4))}, "square ones are expected"),
        ({"scan": np.zeros((1, 5, 2))}, "5 coordinates given for 6 patterns"),
        ({"scan": None}, "lacks the array 'scan'"),
    ],
)
def test_bad_tike_content_is_refused(stored, changes, message):
    content = {"data": np.ones((1, 6, 8, 8)), "scan": np.zeros((1, 6, 2)), "probe": np.ones((1, 8, 8)), **changes}
    with pytest.raises(DataError, match=message):
        load_scan(stored({key: value for key, value in content.items() if value is not None}))


def test_measured_scan_is_read_as_its_notes_say(scan_file):
    scan = load_scan(scan_file)
    assert (len(scan), scan.N, scan.measurement) == (516, 128, "counts")
    assert scan.mean_total_counts() == pytest.approx(4.61e5, rel=1e-3)
    brightest = np.unravel_index(scan.counts().sum(axis=0, dtype=np.float64).argmax(), (128, 128))
    assert np.abs(np.array(brightest) - 64).max() < 20
    assert scan.positions.min() == pytest.approx(-164 + 64, abs=1)
    assert scan.positions.max() == pytest.approx(168 + 64, abs=1)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    scan = simulated_scan()
    path = tmp_path / "scan.npz"
    save_npz(scan, path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        save_npz(scan, path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; nothing was left behind"):
        save_npz(scan.replace(name="new"), path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["scan.npz"]


def test_write_to_a_missing_directory_or_full_device_is_refused(tmp_path):
    with pytest.raises(OutputError, match="No such file or directory"):
        save_npz(simulated_scan(), tmp_path / "absent" / "scan.npz")
    with pytest.raises(DataError, match="metadata: not everything"):
        save_npz(simulated_scan().replace(metadata={"f": open}), tmp_path / "scan.npz")
    assert os.listdir(tmp_path) == []


def test_error_while_writing_removes_the_partial_file(tmp_path):
    def fail(stream):
        stream.write(b"half")
        raise KeyError

    with pytest.raises(KeyError), written_whole(tmp_path / "x") as stream:
        fail(stream)
    assert os.listdir(tmp_path) == []
