"""Every format that is written gives the scan back exactly, from a file that stays closed until it is read."""

import errno
import gc
import os
import pickle
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ptycho.data import Scan, available_readers, available_writers, load_scan, save_scan
from ptycho.data.lazy import LazyPatterns
from ptycho.data.readers import npz as npz_module
from ptycho.data.writers import ptychopinn_npz
from ptycho.errors import DataError, OutputError
from ptycho.files import appears_whole
from tests.data.test_files import assert_same
from tests.support import simulated_scan

ENDINGS = {
    "ptychopinn-npz": "npz",
    "ptychodus-npz": "product.npz",
    "ptychodus-hdf5": "h5",
    "cxi": "cxi",
    "nexus": "nxs",
    "zarr": "zarr",
}
HDF5 = [name for name, ending in ENDINGS.items() if ending in ("h5", "cxi", "nxs")]


@pytest.fixture(scope="module")
def scan():
    mask = np.ones((16, 16), bool)
    mask[3, 4] = False
    return simulated_scan(modes=2).replace(
        mask=mask, scan_index=np.arange(30, dtype=np.int32), metadata={"µ": [1, 2.5]}
    )


@pytest.fixture(scope="module", params=ENDINGS)
def format(request):
    if request.param == "zarr":
        pytest.importorskip("zarr")
    return request.param


def test_all_formats_are_registered_and_tested():
    assert set(available_writers()) == set(ENDINGS)
    assert set(available_writers()) < set(available_readers())


lengths = st.one_of(st.none(), st.floats(1e-12, 1.0))
patterns = st.sampled_from(["u1", "<u2", ">u2", "u4", "i4", "i8", "f4", ">f4", "f8"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        (3, 4, 4),
        elements=st.integers(0, 200) if dtype[-2] in "ui" else st.floats(1, 200, width=8 * int(dtype[-1])) | st.just(0),
    )
)


@settings(max_examples=25)
@given(
    patterns,
    st.sampled_from(["counts", "amplitude"]),
    hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e3, 1e3)),
    st.floats(1e-10, 1e-6),
    st.tuples(lengths, lengths, lengths),
    st.one_of(st.none(), st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))),
    st.one_of(st.none(), hnp.arrays(np.bool_, (4, 4)).filter(np.any)),
    st.integers(0, 3),
    st.text(max_size=5),
    st.booleans(),
)
def test_round_trip_is_exact(
    format, tmp_path_factory, patterns, measurement, positions, pixel, geometry, origin, mask, modes, name, indexed
):
    wavelength, distance, detector = geometry
    scan = Scan(
        patterns=patterns,
        measurement=measurement,
        positions=positions,
        probe=np.ones((modes, 4, 4), np.complex64) * 1j if modes else None,
        object=None if origin is None else np.full((5, 7), 2 + 1j, np.complex128),
        object_origin=origin,
        wavelength=wavelength,
        distance=distance,
        detector_pixel_size=detector,
        pixel_size=pixel if None in geometry else None,
        mask=mask,
        scan_index=np.arange(3, dtype=np.int16) if indexed else None,
        name=name,
        metadata={"note": "µm", "list": [1, 2.5], "ptychodus": {"comments": "a"}} if indexed else {},
    )
    path = tmp_path_factory.mktemp("round") / f"scan.{ENDINGS[format]}"
    save_scan(scan, path, format=format)
    assert_same(load_scan(path), scan)


def test_the_ending_says_the_format(scan, tmp_path, format):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    assert_same(load_scan(path, format=format), scan)
    assert [path.name] == os.listdir(tmp_path)


def test_unknown_endings_and_formats_are_refused(scan, tmp_path):
    with pytest.raises(DataError, match=r"does not say by its ending .*\.cxi \(cxi\)"):
        save_scan(scan, tmp_path / "scan.dat")
    with pytest.raises(DataError, match="format: 'dat' given, one of cxi, "):
        save_scan(scan, tmp_path / "scan.npz", format="dat")


def test_same_scan_gives_same_bytes(scan, tmp_path, format):
    if format == "zarr":
        pytest.skip("a folder")
    first, second = (tmp_path / f"{name}.{ENDINGS[format]}" for name in "ab")
    save_scan(scan, first)
    if not format.endswith("npz"):
        time.sleep(1.1)  # HDF5 notes times in seconds, unless it is told not to
    save_scan(scan, second)
    assert first.read_bytes() == second.read_bytes()


def test_patterns_stay_in_their_file(scan, tmp_path, format):
    if format.endswith("npz"):
        pytest.skip("NPZ is mapped where it is large and stored plainly")
    save_scan(scan, tmp_path / f"scan.{ENDINGS[format]}")
    loaded = load_scan(tmp_path / f"scan.{ENDINGS[format]}")
    lazy = loaded.patterns
    assert isinstance(lazy, LazyPatterns)
    assert (lazy.shape, lazy.ndim, len(lazy), lazy.dtype) == ((30, 16, 16), 3, 30, scan.patterns.dtype)
    raw = np.asarray(scan.patterns)
    for index in (3, -1, slice(4, 9), slice(None, None, 7), [2, 3, 4, 20], np.arange(30) % 2 == 0, [5, 5, 1]):
        np.testing.assert_array_equal(lazy[index], raw[index])
    np.testing.assert_array_equal(lazy[2:4, 1:3, 5], raw[2:4, 1:3, 5])
    np.testing.assert_array_equal(lazy[2, 1:3], raw[2, 1:3])
    part = loaded.subset([7, 2, 9])
    assert isinstance(part.patterns, LazyPatterns)
    np.testing.assert_array_equal(part.subset([2, 0]).counts(), scan.counts([9, 7]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[5], raw[5])


@pytest.mark.parametrize("format", HDF5)
def test_the_file_is_closed_with_the_scan(scan, tmp_path, format):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    loaded = load_scan(path)
    with h5py.File(path, "a"):  # nothing holds it open before it is read
        pass
    loaded.counts([0])
    loaded.patterns.close()
    with h5py.File(path, "a"):
        pass
    np.testing.assert_array_equal(loaded.counts([1]), scan.counts([1]))
    del loaded
    gc.collect()
    with h5py.File(path, "a"):
        pass


@pytest.mark.parametrize("format", HDF5)
def test_h5py_sees_what_the_format_says(scan, tmp_path, format):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    with h5py.File(path) as file:
        if format == "ptychodus-hdf5":
            np.testing.assert_array_equal(file["patterns"], scan.patterns)
            pixel = file["object"].attrs["pixel_width_m"]
            np.testing.assert_allclose(file["probe_position_x_m"] / pixel, scan.positions[:, 1])
            return
        np.testing.assert_array_equal(file["entry_1/data_1/data"], scan.patterns)
        translation = file["entry_1/data_1/translation"]
        assert translation.attrs["units"] == "m"
        np.testing.assert_allclose(translation[:, :2] / scan.object_pixel_size, scan.positions[:, ::-1])
        np.testing.assert_array_equal(file["entry_1/instrument_1/detector_1/mask"][()] == 0, scan.mask)
        if format == "nexus":
            assert file["entry_1/definition"][()] == b"NXcxi_ptycho"
            assert file["entry_1/instrument_1/detector_1"].attrs["NX_class"] == "NXdetector"


def test_amplitudes_are_counts_in_detector_formats(scan, tmp_path):
    amplitude = scan.replace(patterns=np.sqrt(scan.patterns).astype(np.float32), measurement="amplitude")
    lost = save_scan(amplitude, tmp_path / "scan.cxi")
    assert lost[0] == "The amplitudes are stored as counts, their squares."
    with h5py.File(tmp_path / "scan.cxi") as file:
        np.testing.assert_allclose(file["entry_1/data_1/data"], scan.patterns, rtol=1e-6)
    loaded = load_scan(tmp_path / "scan.cxi")
    assert_same(loaded, amplitude)
    counts = load_scan(tmp_path / "scan.cxi", measurement="counts")
    np.testing.assert_allclose(counts.counts(), scan.counts(), rtol=1e-6)


@pytest.mark.parametrize("format", ["cxi", "nexus", "ptychodus-hdf5", "ptychodus-npz"])
def test_formats_of_metres_need_the_pixel(format, scan, tmp_path):
    lengthless = scan.replace(wavelength=None)
    with pytest.raises(DataError, match="the scan does not know the object's pixel; give it with --pixel-size"):
        save_scan(lengthless, tmp_path / "scan", format=format)
    assert not os.listdir(tmp_path)
    save_scan(lengthless.replace(pixel_size=1e-8), tmp_path / "scan", format=format)
    assert_same(load_scan(tmp_path / "scan"), lengthless.replace(pixel_size=1e-8))


@pytest.mark.parametrize(
    ("format", "place", "factor"),
    [
        ("cxi", "entry_1/sample_1/geometry_1/translation", 2.0),
        ("cxi", "entry_1/instrument_1/detector_1/distance", 0.5),
        ("ptychodus-hdf5", "probe_position_y_m", 2.0),
    ],
)
def test_what_another_program_changes_counts(format, place, factor, scan, tmp_path, caplog):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    with h5py.File(path, "a") as file:
        file[place][...] = file[place][()] * factor
    loaded = load_scan(path)
    np.testing.assert_allclose(loaded.positions[:, 0], scan.positions[:, 0] * 2)
    assert "does not agree" in caplog.text


def test_stated_lengths_count_before_the_files(scan, tmp_path):
    save_scan(scan, tmp_path / "scan.cxi")
    loaded = load_scan(tmp_path / "scan.cxi", pixel_size=scan.object_pixel_size / 2)
    np.testing.assert_allclose(loaded.positions, scan.positions * 2)


def test_replacing_a_folder_or_a_file(scan, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "scan.zarr"
    save_scan(scan, path)
    save_scan(scan.replace(name="second"), path, overwrite=True)
    assert load_scan(path).name == "second"
    with pytest.raises(OutputError, match="exists already"):
        save_scan(scan, path)
    with pytest.raises(OutputError, match="no file replaces a folder"):
        save_scan(scan, path, format="cxi", overwrite=True)
    (tmp_path / "file.zarr").write_text("mine")
    save_scan(scan, tmp_path / "file.zarr", overwrite=True)
    assert load_scan(tmp_path / "file.zarr").name == scan.name
    assert sorted(os.listdir(tmp_path)) == ["file.zarr", "scan.zarr"]


def test_a_full_disk_leaves_the_old_and_nothing_else(scan, tmp_path, format, monkeypatch):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    before = load_scan(path).fingerprint()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device; nothing was left behind"):
        save_scan(scan.replace(name="other"), path, overwrite=True)
    assert load_scan(path).fingerprint() == before
    assert os.listdir(tmp_path) == [path.name]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def interrupted():
        with appears_whole(tmp_path / "a") as partial:
            partial.mkdir()
            (partial / "b").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(OutputError, match="there is no folder"), appears_whole(tmp_path / "none" / "a"):
        pass
    assert not os.listdir(tmp_path)


def test_metadata_must_be_json(scan, tmp_path, format):
    with pytest.raises(DataError, match="metadata: not everything in it can be written as JSON"):
        save_scan(scan.replace(metadata={"a": object()}), tmp_path / "scan", format=format)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("format", ["ptychopinn-npz", "ptychodus-npz"])
def test_many_patterns_are_stored_to_be_mapped(scan, tmp_path, format, monkeypatch):
    for module in (npz_module, ptychopinn_npz):
        monkeypatch.setattr(module, "MAP_FROM_BYTES", 1000)
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(scan, path)
    loaded = load_scan(path)
    assert isinstance(loaded.patterns, LazyPatterns)
    assert_same(loaded, scan)
