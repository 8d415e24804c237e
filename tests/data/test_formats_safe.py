"""Files that lie, are damaged, or mean harm: each is refused with a sentence, nothing runs, nothing outside is read."""

import bz2
import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

from ptycho.data import load_scan, save_scan
from ptycho.data.readers import limits
from ptycho.data.readers import npz as npz_module
from ptycho.errors import DataError
from tests.data.test_formats_foreign import cxi
from tests.data.test_formats_roundtrip import ENDINGS
from tests.support import simulated_scan

FILES = [format for format in ENDINGS if format != "zarr"]


@pytest.fixture(scope="module")
def small():
    return simulated_scan(M=5, N=8)


@pytest.fixture
def container(tmp_path):
    """A CXI file without patterns, in a folder of its own beside one with a secret."""
    (tmp_path / "own").mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.full((6, 8, 8), 7, np.uint16)
    (tmp_path / "secret.raw").write_bytes(np.full((6, 8, 8), 7, np.uint16).tobytes())

    def write(name="scan.cxi"):
        path = tmp_path / "own" / name
        with h5py.File(path, "w") as file:
            for key, values in cxi(None, np.zeros((6, 2))).items():
                if values is not None:
                    file[key] = values
        return path

    return write


DATA = "entry_1/instrument_1/detector_1/data"


@pytest.mark.parametrize("absolute", [False, True])
def test_links_out_of_the_folder_are_not_followed(container, tmp_path, absolute):
    path = container()
    target = str(tmp_path / "secret.h5") if absolute else "../secret.h5"
    with h5py.File(path, "a") as file:
        file[DATA] = h5py.ExternalLink(target, "/data")
    with pytest.raises(DataError, match=r"secret\.h5.*is (outside the file's folder|not there)"):
        load_scan(path)
    with h5py.File(path, "a") as file:
        del file[DATA]
        layout = h5py.VirtualLayout((6, 8, 8), np.uint16)
        layout[:] = h5py.VirtualSource(target, "data", (6, 8, 8))
        file.create_virtual_dataset(DATA, layout)
    with pytest.raises(DataError, match=r"secret\.h5.*is (outside the file's folder|not there)"):
        load_scan(path)


def test_links_in_circles_end(container):
    path = container()
    with h5py.File(path, "a") as file:
        file[DATA] = h5py.SoftLink(f"/{DATA}")
    with pytest.raises(DataError, match="go in circles"):
        load_scan(path)
    with h5py.File(path, "a") as file:
        del file[DATA]
        file[DATA] = h5py.ExternalLink("scan.cxi", f"/{DATA}")
    with pytest.raises(DataError, match="go in circles"):
        load_scan(path)
    with h5py.File(path, "a") as file:
        del file[DATA]
        layout = h5py.VirtualLayout((6, 8, 8), np.uint16)
        layout[:] = h5py.VirtualSource(".", f"/{DATA}", (6, 8, 8))
        file.create_virtual_dataset(DATA, layout)
    with pytest.raises(DataError, match="refers to itself"):
        load_scan(path)


def test_claims_in_hdf5_are_not_believed(container):
    path = container()
    with h5py.File(path, "a") as file:
        file.create_dataset(DATA, (10**7, 512, 512), np.uint16, chunks=(1, 512, 512), compression="gzip")
    with pytest.raises(DataError, match=r"claims to hold 5.24 TB in .*, which is refused"):
        load_scan(path)
    with h5py.File(path, "a") as file:
        del file[DATA]
        file.create_dataset(DATA, (10**3, 512, 10**6), np.uint32, chunks=(1, 512, 10**6))
        file["entry_1/instrument_1/detector_1/mask"] = np.zeros((8, 8), np.uint8)
    with pytest.raises(DataError, match=r"claims to hold|stored in pieces of 2.05 GB"):
        load_scan(path)


def test_positions_of_a_terabyte_are_not_read(container, monkeypatch):
    path = container()
    monkeypatch.setattr(limits, "physical_memory", lambda: 1000)
    with h5py.File(path, "a") as file:
        file[DATA] = np.zeros((6, 8, 8), np.uint16)
        del file["entry_1/sample_1/geometry_1/translation"]
        file["entry_1/sample_1/geometry_1/translation"] = np.zeros((600, 3))
    with pytest.raises(DataError, match=r"translation claims 14.4 kB, but this machine has 1 kB"):
        load_scan(path)


@pytest.mark.parametrize("kind", [h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype(np.int32), "S5"])
def test_hdf5_objects_are_refused(container, kind):
    path = container()
    with h5py.File(path, "a") as file:
        file[DATA] = np.zeros((6, 8, 8), np.uint16)
        del file["entry_1/sample_1/geometry_1/translation"]
        file.create_dataset("entry_1/sample_1/geometry_1/translation", (6, 3), kind)
    with pytest.raises(DataError, match="numbers are expected"):
        load_scan(path)


def npy(shape, dtype=np.float32, data=b""):
    stream = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


def test_claims_in_npz_are_not_believed(tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("diff3d.npy", npy((10**6, 1024, 1024)))
    with pytest.raises(DataError, match=r"diff3d.npy claims 4.19 TB and holds 0 bytes"):
        load_scan(tmp_path / "scan.npz")


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_SUSPICIOUS_FROM", 10**6)
    zeros = bytes(4 * 2**20)
    with zipfile.ZipFile(tmp_path / "scan.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("diff3d.npy", npy((1, 1024, 1024), data=zeros))
        for name in ("xcoords", "ycoords"):
            archive.writestr(f"{name}.npy", npy((1,), np.float64, bytes(8)))
    with pytest.raises(DataError, match=r"all of it together claims to hold 4.19 MB in .*, which is refused"):
        load_scan(tmp_path / "scan.npz")
    monkeypatch.setattr(npz_module, "_PIECE_BYTES", 2**16)
    (tmp_path / "scan.npz.bz2").write_bytes(bz2.compress(zeros))
    with pytest.raises(DataError, match=r"bz2 claims to hold .* MB in .* bytes of the file, which is refused"):
        load_scan(tmp_path / "scan.npz.bz2")
    monkeypatch.setattr(limits, "physical_memory", lambda: 2**21)
    monkeypatch.setattr(limits, "_SUSPICIOUS_FROM", 2**40)
    for name in ("scan.npz", "scan.npz.bz2"):
        with pytest.raises(DataError, match=r"this machine has 2.1 MB of memory"):
            load_scan(tmp_path / name)


def test_bz2_in_several_streams_is_read(tmp_path, small):
    save_scan(small, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    half = len(whole) // 2
    (tmp_path / "b.npz.bz2").write_bytes(bz2.compress(whole[:half]) + bz2.compress(whole[half:]) + b"padding")
    assert load_scan(tmp_path / "b.npz.bz2").fingerprint() == small.fingerprint()


@pytest.fixture
def zarr_path(tmp_path, small):
    pytest.importorskip("zarr")
    save_scan(small, tmp_path / "scan.zarr")
    return tmp_path / "scan.zarr"


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


ZARR_TROUBLE = [
    ({"filters": [{"id": "pickle", "protocol": 4}]}, "the codec pickle is refused"),
    ({"compressor": {"id": "surprise"}}, "the codec surprise is refused"),
    ({"dtype": "|O"}, "holds object, numbers are expected"),
    ({"dtype": "nonsense"}, "is not described as an array of numbers"),
    ({"shape": [10**9, 8, 8]}, "claims to hold 128 GB in .*, which is refused"),
    ({"shape": [5, 8, 10**6], "chunks": [500, 8, 10**6]}, "stored in pieces of 8 GB"),
    ({"shape": None}, "is not described as an array of numbers"),
    ({"chunks": [-1, 8, 8]}, "numbers are expected"),
]


@pytest.mark.parametrize(("fields", "message"), ZARR_TROUBLE, ids=[message[:20] for _, message in ZARR_TROUBLE])
def test_zarr_is_judged_before_it_is_opened(zarr_path, fields, message):
    change(zarr_path / "patterns" / ".zarray", **fields)
    with pytest.raises(DataError, match=message):
        load_scan(zarr_path)


def test_zarr_version_3_is_judged_too(tmp_path, small):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(tmp_path / "scan.zarr"), mode="w", zarr_format=3)
    for name, values in (("patterns", small.patterns), ("positions", small.positions)):
        group.create_array(name, data=np.asarray(values), shards=None if name == "positions" else (5, 8, 8))
    loaded = load_scan(tmp_path / "scan.zarr")
    np.testing.assert_array_equal(loaded.patterns[:], small.patterns)
    assert loaded.measurement == "counts"
    path = tmp_path / "scan.zarr" / "patterns" / "zarr.json"
    codecs = json.loads(path.read_text())["codecs"]
    codecs[0]["configuration"]["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    change(path, codecs=codecs)
    with pytest.raises(DataError, match="the codec pickle is refused"):
        load_scan(tmp_path / "scan.zarr")


def test_zarr_with_links_or_damage_is_refused(zarr_path, tmp_path):
    chunk = zarr_path / "patterns" / "0.0.0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="patterns cannot be read, the store is damaged"):
        load_scan(zarr_path).counts()
    (tmp_path / "elsewhere").write_bytes(content)
    chunk.unlink()
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link, which is refused"):
        load_scan(zarr_path)
    chunk.unlink()
    (zarr_path / "positions" / ".zarray").write_text("[1")
    with pytest.raises(DataError, match="is not JSON"):
        load_scan(zarr_path)
    (zarr_path / "positions" / ".zarray").write_text("[1]")
    with pytest.raises(DataError, match="a JSON object expected"):
        load_scan(zarr_path)


def test_zarr_that_does_not_say_what_was_measured_asks(tmp_path, small):
    pytest.importorskip("zarr")
    save_scan(small.replace(patterns=small.counts()), tmp_path / "scan.zarr")
    (tmp_path / "scan.zarr" / ".zattrs").unlink()
    with pytest.raises(DataError, match="does not say what was measured; give --measurement counts or amplitude"):
        load_scan(tmp_path / "scan.zarr")
    assert load_scan(tmp_path / "scan.zarr", measurement="amplitude").measurement == "amplitude"


def read_all(path):
    """Load a file and read everything in it; the scan's fingerprint, or None where it was refused."""
    try:
        return load_scan(path).fingerprint()
    except DataError:
        return None


@pytest.mark.parametrize("format", FILES)
def test_a_truncated_file_is_refused_at_any_length(format, tmp_path, small):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(small, path)
    whole = path.read_bytes()
    for length in (*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_all(path) is None, length
    path.write_bytes(whole)
    assert read_all(path) == small.fingerprint()


@pytest.mark.parametrize("format", FILES)
def test_a_damaged_file_ends_in_a_sentence_or_a_scan(format, tmp_path, small):
    path = tmp_path / f"scan.{ENDINGS[format]}"
    save_scan(small, path)
    whole, rng = path.read_bytes(), np.random.default_rng(11)
    refused = 0
    for number in range(80):
        content = bytearray(whole)
        start, length = rng.integers(len(whole)), rng.integers(1, 12)
        content[start : start + length] = rng.bytes(length)
        damaged = tmp_path / f"{number}.{ENDINGS[format]}"
        damaged.write_bytes(content)
        refused += read_all(damaged) is None
    assert refused > 10


def test_nothing_is_written_by_reading(tmp_path, small):
    for format in FILES:
        save_scan(small, tmp_path / f"scan.{ENDINGS[format]}")
    before = {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)}
    for name in before:
        load_scan(tmp_path / name).counts()
    assert {name: os.stat(tmp_path / name).st_mtime_ns for name in os.listdir(tmp_path)} == before
