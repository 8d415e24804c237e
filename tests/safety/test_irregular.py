"""What is no regular file, claims that cannot be, and archives that grow: one sentence at once."""

import json
import os
import signal
import socket
import warnings
import zipfile

import h5py
import numpy as np
import pytest

from ptycho.config import TrainingConfig, load_config
from ptycho.config.regular_files import open_regular, read_regular
from ptycho.data import load_scan
from ptycho.data.readers.limits import MemoryBudget, json_object
from ptycho.data.readers.npz import NpzArchive
from ptycho.errors import ConfigError, DataError
from ptycho.model.safe_archive import SafeArchive
from tests.safety.samples import LOADERS
from tests.safety.test_malice import rewritten

KINDS = ["pipe", "socket", "device", "link to a pipe", "link to itself"]


@pytest.fixture(autouse=True)
def hurry():
    """End a test that waits for the other end of a pipe."""

    def late(*_):
        raise TimeoutError("it waits for something that never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def put(kind, path):
    """Something that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path.with_name("p"))
        path.symlink_to("p")
    return path


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2", "scan.h5", "scan.cxi", "scan.zarr", "scan"])
def test_as_a_scan(kind, name, tmp_path):
    with pytest.raises(DataError) as refusal:
        load_scan(put(kind, tmp_path / name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
@pytest.mark.parametrize("name", [name for name in LOADERS if not name.startswith(("checkpoint", "tike", "ptych"))])
def test_as_what_a_loader_reads(kind, name, tmp_path):
    loader = LOADERS[name]
    ending = {"result hdf5": ".h5", "cxi": ".cxi", "nexus": ".nxs", "zarr": ".zarr"}.get(name, ".npz")
    with pytest.raises(DataError) as refusal:
        loader.load(put(kind, tmp_path / ("wts.h5.zip" if loader.family == "zip" else f"file{ending}")))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [*KINDS, "folder"])
def test_as_a_configuration(kind, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(TrainingConfig, put(kind, tmp_path / "settings.yaml"))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("name", ["patterns", "positions/.zarray", "patterns/.zarray", ".zgroup", ".zattrs", "0.0.0"])
def test_inside_a_store(kind, name, sample, tmp_path, monkeypatch):
    whole = sample("zarr")
    files = {str(path.relative_to(whole.path)): path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    store = tmp_path / "s.zarr"
    for file, content in files.items():
        (store / file).parent.mkdir(parents=True, exist_ok=True)
        (store / file).write_bytes(content)
    if name == "0.0.0":
        name = next(file for file in sorted(files) if file.startswith("patterns/") and not file.endswith("array"))
    elif not (store / name).exists():
        pytest.skip("the other version of Zarr")
    if kind == "folder" and name.startswith("patterns/") and not name.endswith("array"):
        pytest.skip("a chunk that is missing is one of zeros")
    if name == "patterns":
        for path in (store / name).iterdir():
            path.unlink()
        (store / name).rmdir()
    else:
        (store / name).unlink()
    monkeypatch.chdir((store / name).parent)  # a socket's name is short
    put(kind, (store / name).relative_to((store / name).parent))
    if kind == "folder":
        with pytest.raises(DataError):
            load_scan(store).patterns[:]
    else:
        with pytest.raises(DataError, match=r"a file was expected|is a link|is a directory|no format"):
            load_scan(store)


def test_a_regular_file_is_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    with open_regular(tmp_path / "b") as stream:
        assert stream.read() == b"12345"
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "a", 4)
    with pytest.raises(OSError, match="no file can have this name"):
        open_regular("a\0b")


class TestMetadata:
    @pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 900, '{"a": ' + "[" * 80 + "]" * 80 + "}", "1" * 6000, ""])
    def test_of_no_description(self, text):
        with pytest.raises(DataError) as refusal:
            json_object(text, "a file")
        assert len(str(refusal.value)) < 400

    @pytest.mark.parametrize(
        "change",
        [
            {"chunks": [0, 16, 16]},
            {"chunks": [0, 0, 0]},
            {"chunks": []},
            {"chunks": [16]},
            {"chunks": [1 << 40, 1 << 20, 1 << 20]},
            {"shape": [1 << 50, 16, 16]},
            {"shape": [16] * 100},
            {"shape": [1e400, 16, 16]},
            {"shape": [None, {}, "x"]},
            {"dtype": "n" * 6000},
            {"dtype": [["a", "<f4"]]},
            {"dtype": "(" * 500},
            {"filters": 3},
            {"compressor": {"id": "n" * 6000}},
            {"compressor": {"id": "blosc", "cname": "n" * 6000}},
        ],
        ids=lambda change: json.dumps(change)[:40],
    )
    def test_of_a_store(self, change, sample, tmp_path):
        pytest.importorskip("zarr")
        import shutil

        whole = sample("zarr")
        store = tmp_path / "s.zarr"
        shutil.copytree(whole.path, store)
        described = store / "patterns" / ".zarray"
        described.write_text(json.dumps({**json.loads(described.read_text()), **change}))
        with pytest.raises(DataError) as refusal:
            load_scan(store).patterns[:]
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 900

    @pytest.mark.parametrize("name", ["n" * 6000, "\x1b]0;x\x07" * 800])
    def test_long_names(self, name, sample, tmp_path):
        for kind in ("ptychopinn-npz", "result npz", "bundle"):
            whole = sample(kind)
            path = tmp_path / whole.path.name
            path.write_bytes(rewritten(whole.whole, lambda _, data: data, [(name + ".npy", b"no array")]))
            with pytest.raises(DataError) as refusal:
                whole.loader.load(path)
            assert "\n" not in str(refusal.value)
        path = tmp_path / "scan.cxi"
        path.write_bytes(sample("cxi").whole)
        with h5py.File(path, "a") as file:
            data = "entry_1/instrument_1/detector_1/data"
            del file[data], file["entry_1/data_1"]
            file[data] = h5py.SoftLink("/" + name)
        with pytest.raises(DataError) as refusal:
            load_scan(path)
        assert len(str(refusal.value)) < 900


class TestGrowth:
    @pytest.mark.parametrize("kind", ["result npz", "ptychopinn-npz", "bundle", "import torch"])
    def test_many_members_are_a_bomb_together(self, kind, sample, tmp_path):
        """Every member is below the bound of a single one."""
        whole, zeros = sample(kind), bytes(60 << 20)
        path = tmp_path / whole.path.name
        extra = [(f"part{number}.npy", zeros) for number in range(6)]
        path.write_bytes(rewritten(whole.whole, lambda _, data: data, extra))
        with pytest.raises(DataError, match="claims to hold"):
            whole.loader.load(path)

    def test_arrays_in_hdf5_are_a_bomb_together(self, sample, tmp_path):
        path = tmp_path / "reconstruction.h5"
        path.write_bytes(sample("result hdf5").whole)
        with h5py.File(path, "a") as file:
            for number in range(6):
                file.create_dataset(f"z{number}", (60 << 17,), "f8", chunks=(1 << 17,), compression="gzip")
        with pytest.raises(DataError, match="all arrays together claims to hold"):
            LOADERS["result hdf5"].load(path)

    def test_budgets_count_everything(self):
        budget = MemoryBudget("a file", 1000)
        for _ in range(3):
            budget.take(80 << 20)
        with pytest.raises(DataError, match="claims to hold 336 MB in 1 kB"):
            budget.take(80 << 20)
        MemoryBudget("a large file", 1 << 28).take(1 << 30)

    def test_duplicate_arrays(self, sample, tmp_path):
        for kind in ("ptychopinn-npz", "ptychodus-npz", "tike-npz", "result npz"):
            whole = sample(kind)
            path = tmp_path / whole.path.name
            with zipfile.ZipFile(whole.path) as archive:
                name = archive.namelist()[0]
                data = archive.read(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                path.write_bytes(rewritten(whole.whole, lambda _, data: data, [(name, data)]))
            with pytest.raises(DataError, match="has two arrays"):
                whole.loader.load(path)

    def test_honest_archives_may_be_compressed(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", a=np.random.default_rng(0).poisson(0.01, (40, 1024, 1024)).astype("f8"))
        assert NpzArchive(tmp_path / "a.npz").array("a").shape == (40, 1024, 1024)

    def test_nested_archives_are_closed_when_refused(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(DataError, match="not a readable bundle"):
            SafeArchive(tmp_path / "a.zip")
