"""HDF5 files that link to others: honest layouts are read, and nothing is read outside the folders that are trusted."""

import os
import pickle
import socket

import h5py
import numpy as np
import pytest
from h5py import h5s

from ptycho.data import load_scan
from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.errors import DataError
from tests.data.test_formats_foreign import cxi

SHAPE = (6, 8, 8)
DATA = "entry_1/instrument_1/detector_1/data"
SECRET = 7777
SERIES = {"%b": "secret%b.h5", "%b%b": "%b%b.h5", "%%": "100%%.h5"}


@pytest.fixture
def patterns():
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.uint16)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def master(path):
    """A CXI file without patterns."""
    with h5py.File(path, "w") as file:
        for key, values in cxi(None, np.zeros((6, 2))).items():
            if values is not None:
                file[key] = values
    return path


def detector(path, values, name="data", **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=values, **how)
    return path


def linked(path, target, name="/data"):
    with h5py.File(path, "a") as file:
        file[DATA] = h5py.ExternalLink(str(target), name)
    return path


def virtual(path, target, name="data", shape=SHAPE, dtype=np.uint16, dataset=DATA):
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(target), name, shape)
        file.create_virtual_dataset(dataset, layout)
    return path


def endless(path, target, name="data", frames=2, source=None, dataset=DATA):
    """A virtual dataset of a series of sources, numbered by ``%b``."""
    with h5py.File(path, "a") as file:
        space = h5s.create_simple((frames, 8, 8), (h5s.UNLIMITED, 8, 8))
        space.select_hyperslab((0, 0, 0), (h5s.UNLIMITED, 1, 1), (frames, 1, 1), (frames, 8, 8))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        source = source or h5s.create_simple((frames, 8, 8))
        properties.set_virtual(space, os.fsencode(str(target)), name.encode(), source)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        h5py.h5d.create(file.id, dataset.encode(), h5py.h5t.NATIVE_UINT16, space, properties, links)
    return path


def raw(path, target, dataset=DATA, shape=SHAPE, dtype=np.uint16):
    with h5py.File(path, "a") as file:
        file.create_dataset(dataset, shape, dtype, external=[(str(target), 0, h5py.h5f.UNLIMITED)])
    return path


def read(path, **given):
    return load_scan(path, **given).patterns[:]


class TestHonestLayouts:
    def test_beside_below_and_through_a_link(self, home, patterns, tmp_path):
        detector(home / "det.h5", patterns)
        detector(home / "frames" / "det.h5", patterns + 1)
        beside = linked(master(home / "a.cxi"), "det.h5")
        np.testing.assert_array_equal(read(beside), patterns)
        np.testing.assert_array_equal(read(linked(master(home / "b.cxi"), "frames/det.h5")), patterns + 1)
        np.testing.assert_array_equal(read(linked(master(home / "c.cxi"), home / "det.h5")), patterns)
        np.testing.assert_array_equal(read(virtual(master(home / "d.cxi"), "det.h5")), patterns)
        (tmp_path / "mine").mkdir()
        for name in ("a.cxi", "d.cxi"):
            (tmp_path / "mine" / name).symlink_to(home / name)
            np.testing.assert_array_equal(read(tmp_path / "mine" / name), patterns)
        (tmp_path / "folder").symlink_to(home)
        np.testing.assert_array_equal(read(tmp_path / "folder" / "a.cxi"), patterns)

    @pytest.mark.parametrize("link", [linked, virtual])
    @pytest.mark.parametrize("absolute", [False, True])
    def test_in_a_sibling_folder_that_is_named(self, link, absolute, home, patterns, tmp_path, monkeypatch):
        target = detector(tmp_path / "raw" / "det.h5", patterns)
        path = link(master(home / "scan.cxi"), target if absolute else "../raw/det.h5")
        with pytest.raises(DataError, match=r"outside the file's folder .* --data-dir"):
            read(path)
        np.testing.assert_array_equal(read(path, data_dirs=[tmp_path / "raw"]), patterns)
        np.testing.assert_array_equal(read(path, data_dirs=str(tmp_path)), patterns)
        monkeypatch.chdir(tmp_path)
        np.testing.assert_array_equal(read(path, data_dirs=["raw"]), patterns)
        monkeypatch.setenv("PTYCHO_DATA_DIRS", os.pathsep.join(["/nonexistent", str(tmp_path / "raw")]))
        np.testing.assert_array_equal(read(path), patterns)
        with pytest.raises(DataError, match="is not a folder"):
            read(path, data_dirs=[tmp_path / "row"])

    def test_moved_files_are_found_only_in_named_folders(self, home, patterns, tmp_path, caplog):
        path = linked(master(home / "scan.cxi"), "/beamline/raw/det.h5")
        detector(home / "det.h5", patterns + 1)
        with pytest.raises(DataError, match=r"or the one where det\.h5 lies now"):
            read(path)
        detector(tmp_path / "raw" / "det.h5", patterns)
        np.testing.assert_array_equal(read(path, data_dirs=[tmp_path / "raw"]), patterns)
        assert "which does not exist" in caplog.text

    def test_an_eiger_master(self, home, patterns):
        with h5py.File(home / "m_master.h5", "w") as file:
            for number in range(3):
                name = f"m_data_{number + 1:06}.h5"
                detector(home / name, patterns[2 * number : 2 * number + 2], "entry/data/data", chunks=(1, 8, 8))
                file[f"entry/data/data_{number + 1:06}"] = h5py.ExternalLink(name, "entry/data/data")
        with Hdf5File(home / "m_master.h5") as h5:
            lazy = h5.patterns(*(f"entry/data/data_{number:06}" for number in (1, 2, 3)))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[:], patterns)

    def test_raw_data_in_a_named_folder(self, home, patterns, tmp_path):
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "det.raw").write_bytes(b"head" + patterns.tobytes())
        path = master(home / "scan.cxi")
        with h5py.File(path, "a") as file:
            name = "../raw/det.raw"
            file.create_dataset(DATA, SHAPE, np.uint16, external=[(name, 4, 300), (name, 304, h5py.h5f.UNLIMITED)])
        with pytest.raises(DataError, match="not named as trusted"):
            read(path)
        np.testing.assert_array_equal(read(path, data_dirs=[tmp_path / "raw"]), patterns)
        scan = load_scan(path, data_dirs=[tmp_path / "raw"])
        np.testing.assert_array_equal(scan.patterns[4], patterns[4])
        (tmp_path / "raw" / "det.raw").write_bytes(patterns.tobytes()[:500])
        with pytest.raises(DataError, match="end before"):
            read(path, data_dirs=[tmp_path / "raw"])


class TestVirtualDatasets:
    """What HDF5 itself would read, as long as everything is there."""

    def compare(self, path, name="v"):
        with h5py.File(path) as file:
            expected = file[name][()]
        with Hdf5File(path) as h5:
            np.testing.assert_array_equal(h5.array(name), expected)
            lazy = h5.patterns(name)
        assert lazy.dtype == expected.dtype
        np.testing.assert_array_equal(lazy[:], expected)
        np.testing.assert_array_equal(lazy[[4, 1, 3]], expected[[4, 1, 3]])
        np.testing.assert_array_equal(lazy.cut(slice(1, 7), slice(2, 5))[2], expected[2, 1:7, 2:5])
        return expected

    @pytest.mark.parametrize("kind", ["interleaved", "modules", "frames", "listed", "clipped", "nested", "below"])
    def test_as_hdf5_reads_them(self, kind, home, patterns):
        for number in range(3):
            detector(home / f"s{number}.h5", patterns + 100 * number)
        detector(home / "flat.h5", patterns[0])
        detector(home / "large.h5", patterns.astype(np.int32) * 1000 - 5000)
        layout = h5py.VirtualLayout((18, 9, 20), np.uint16)
        sources = [h5py.VirtualSource(f"s{number}.h5", "data", SHAPE) for number in range(3)]
        for number, source in enumerate(sources):
            if kind == "interleaved":
                layout[number::3, :8, 2:10] = source
            elif kind == "modules":
                layout[:6, :8, number * 6 : number * 6 + 4] = source[:, :, 2:6]
            elif kind == "frames":
                layout[2 * number, :8, :8] = h5py.VirtualSource("flat.h5", "data", (8, 8))
            elif kind == "listed":
                layout[[3 * number, 3 * number + 1], :8, :8] = source[4:6]
            elif kind == "clipped":
                layout[6 * number : 6 * number + 6, :8, :8] = h5py.VirtualSource("large.h5", "data", SHAPE)
            elif kind == "below":
                layout[number, :4, :4] = source[3, ::2, 1::2]
            else:
                layout[6 * number : 6 * number + 6, :8, :8] = h5py.VirtualSource(".", f"part{number}", SHAPE)
        with h5py.File(home / "v.h5", "w") as file:
            if kind == "nested":
                for number in range(3):
                    inner = h5py.VirtualLayout(SHAPE, np.uint16)
                    inner[::2] = sources[number][3:]
                    file.create_virtual_dataset(f"part{number}", inner, fillvalue=9)
            file.create_virtual_dataset("v", layout, fillvalue=3)
        expected = self.compare(home / "v.h5")
        assert len(np.unique(expected)) > 10

    @pytest.mark.parametrize("name", ["f%b.h5", "f%%%b.h5", "deep/f%b-%b.h5"])
    def test_series(self, name, home, patterns):
        for number in range(3):
            file = name.replace("%b", str(number)).replace("%%", "%")
            detector(home / file, patterns[2 * number : 2 * number + 2])
        np.testing.assert_array_equal(self.compare(endless(home / "v.h5", name, dataset="v")), patterns)

    def test_a_growing_source(self, home, patterns):
        detector(home / "s.h5", patterns, maxshape=(None, 8, 8))
        with h5py.File(home / "v.h5", "w") as file:
            layout = h5py.VirtualLayout((1, 8, 8), np.uint16, maxshape=(None, 8, 8))
            source = h5py.VirtualSource("s.h5", "data", (1, 8, 8), maxshape=(None, 8, 8))
            layout[0 : h5s.UNLIMITED] = source[0 : h5s.UNLIMITED]
            file.create_virtual_dataset("v", layout)
        np.testing.assert_array_equal(self.compare(home / "v.h5"), patterns)

    def test_more_sources_than_a_process_may_open(self, home, patterns):
        with h5py.File(home / "v.h5", "w") as file:
            layout = h5py.VirtualLayout((150, 8, 8), np.uint16)
            for number in range(150):
                detector(home / f"f{number}.h5", patterns[number % 6] + number)
                layout[number] = h5py.VirtualSource(f"f{number}.h5", "data", (8, 8))
            file.create_virtual_dataset("v", layout)
        self.compare(home / "v.h5")

    def test_a_missing_part_is_no_zeros(self, home, patterns):
        detector(home / "s.h5", patterns)
        path = virtual(master(home / "scan.cxi"), "s.h5")
        scan = load_scan(path)
        (home / "s.h5").unlink()
        with pytest.raises(DataError, match=r"s\.h5"):
            scan.patterns[:]
        with pytest.raises(DataError, match=r"s\.h5, which is not there"):
            load_scan(path)

    def test_parts_that_multiply_are_refused(self, home):
        with h5py.File(home / "v.h5", "w") as file:
            file["v4"] = np.ones((64, 64, 64), np.uint16)
            for depth in range(4):
                layout = h5py.VirtualLayout((64, 64, 64), np.uint16)
                for _ in range(40):
                    layout[...] = h5py.VirtualSource(".", f"v{depth + 1}", (64, 64, 64))
                file.create_virtual_dataset(f"v{depth}", layout)
        with Hdf5File(home / "v.h5") as h5, pytest.raises(DataError, match=r"overlap again and again|deep"):
            h5.array("v0")


@pytest.fixture
def secret(tmp_path):
    """A folder outside with every kind of file that must not be read."""
    folder = tmp_path / "secret"
    for name in ("secret.h5", "secret0.h5", "00.h5", "100%.h5", "det.h5"):
        detector(folder / name, np.full(SHAPE, SECRET, np.uint16))
    raw(folder / "wrapped.h5", folder / "secret.raw", "data")
    (folder / "secret.raw").write_bytes(np.full(SHAPE, SECRET, np.uint16).tobytes())
    return folder


def opened_outside(secret):
    """Which of the secret files was read: their access times are set back first."""
    return [path.name for path in sorted(secret.iterdir()) if path.stat().st_atime > 1000]


@pytest.fixture
def refused(secret):
    """Reading a file must fail by one sentence, without opening any file outside."""
    seen = []

    def check(path, match=r"--data-dir|outside|link|not there|none|refers"):
        for file in secret.iterdir():
            os.utime(file, (1000, 1000))
        with pytest.raises(DataError, match=match) as refusal:
            seen.append(read(path))
        assert "\n" not in str(refusal.value)
        assert not opened_outside(secret)

    return check


class TestHostileLayouts:
    def test_reading_is_seen(self, secret):
        for file in secret.iterdir():
            os.utime(file, (1000, 1000))
        with h5py.File(secret / "secret.h5") as file:
            assert file["data"][0, 0, 0] == SECRET
        if not opened_outside(secret):
            pytest.skip("this file system keeps no access times")
        assert opened_outside(secret) == ["secret.h5"]

    @pytest.mark.parametrize("link", [linked, virtual, raw])
    @pytest.mark.parametrize("way", ["absolute", "relative", "through", "symlink", "folder", "decoy", "dots"])
    def test_ways_out(self, link, way, home, secret, refused):
        file = secret / ("secret.raw" if link is raw else "secret.h5")
        target = {
            "relative": f"../secret/{file.name}",
            "through": f"sub/../../secret/{file.name}",
            "symlink": "here.h5",
            "folder": f"sub/{file.name}",
            "dots": f"./././../home/../secret/{file.name}",
        }.get(way, str(file))
        if way == "symlink":
            (home / "here.h5").symlink_to(file)
        if way == "folder":
            (home / "sub").symlink_to(secret)
        if way == "decoy":
            detector(home / file.name, np.ones(SHAPE, np.uint16))
        refused(link(master(home / "scan.cxi"), target))

    @pytest.mark.parametrize("way", ["absolute", "relative", "symlink", "folder", "dataset", "series of links"])
    def test_series(self, way, home, secret, refused):
        path, name = master(home / "scan.cxi"), "data"
        target = {"absolute": secret / "secret%b.h5", "relative": "../secret/secret%b.h5", "folder": "sub/%b%b.h5"}
        if way == "symlink":
            (home / "f0.h5").symlink_to(secret / "secret.h5")
        if way == "folder":
            (home / "sub").symlink_to(secret)
        if way == "dataset":
            raw(home / "f0.h5", secret / "secret.raw", "d0")
            name = "d%b"
        if way == "series of links":
            virtual(home / "f0.h5", secret / "secret.h5", dataset="data")
        refused(endless(path, target.get(way, "f%b.h5"), name, frames=6))

    @pytest.mark.parametrize("inner", ["link", "virtual", "raw", "series"])
    @pytest.mark.parametrize("outer", [linked, virtual, endless])
    def test_nested(self, outer, inner, home, secret, refused):
        if inner == "link":
            with h5py.File(home / "inner0.h5", "w") as file:
                file["data"] = h5py.ExternalLink(str(secret / "secret.h5"), "data")
        elif inner == "virtual":
            virtual(home / "inner0.h5", secret / "secret.h5", dataset="data")
        elif inner == "raw":
            raw(home / "inner0.h5", secret / "secret.raw", "data")
        else:
            endless(home / "inner0.h5", "../secret/secret%b.h5", frames=6, dataset="data")
        target = "inner%b.h5" if outer is endless else "inner0.h5"
        refused(outer(master(home / "scan.cxi"), target, **({"frames": 6} if outer is endless else {})))

    def test_trust_in_one_folder_is_no_trust_in_another(self, home, secret, tmp_path, refused):
        inner = tmp_path / "raw" / "inner.h5"
        inner.parent.mkdir()
        virtual(inner, secret / "secret.h5", dataset="data")
        path = linked(master(home / "scan.cxi"), "../raw/inner.h5")
        with pytest.raises(DataError, match=r"secret\.h5"):
            read(path, data_dirs=[tmp_path / "raw"])
        (tmp_path / "raw2").symlink_to(tmp_path / "raw")
        refused(linked(master(home / "other.cxi"), tmp_path / "raw2" / "inner.h5"))

    def test_names_in_the_environment_of_hdf5(self, home, secret, refused, monkeypatch):
        monkeypatch.setenv("HDF5_VDS_PREFIX", str(secret))
        monkeypatch.setenv("HDF5_EXT_PREFIX", str(secret))
        monkeypatch.chdir(secret)
        for number, link in enumerate([linked, virtual]):
            refused(link(master(home / f"{number}.cxi"), "secret.h5"))
        refused(raw(master(home / "raw.cxi"), "secret.raw"))

    def test_links_made_after_the_check(self, home, secret, patterns):
        detector(home / "det.h5", patterns)
        scan = load_scan(virtual(master(home / "scan.cxi"), "det.h5"))
        (home / "det.h5").unlink()
        (home / "det.h5").symlink_to(secret / "secret.h5")
        with pytest.raises(DataError, match=r"det\.h5"):
            scan.patterns[:]

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "pipe by a link"])
    @pytest.mark.parametrize("link", [linked, virtual])
    def test_what_is_no_file(self, kind, link, home, refused):
        target = home / "det.h5"
        if kind.startswith("pipe"):
            os.mkfifo(home / "pipe.h5" if kind != "pipe" else target)
        if kind == "pipe by a link":
            target.symlink_to("pipe.h5")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(target))
        elif kind == "folder":
            target.mkdir()
        refused(link(master(home / "scan.cxi"), "/dev/zero" if kind == "device" else "det.h5"), "regular|outside")

    def test_companions_are_no_way_out(self, home, secret, patterns):
        from tests.safety.samples import write_scan

        product = write_scan(".h5", "ptychodus-hdf5")(home)
        with h5py.File(product, "a") as file:
            stack = {name: file[name][()] for name in ("patterns", "indexes") if name in file}
            for name in stack:
                del file[name]
        with h5py.File(secret / "diffraction.h5", "w") as file:
            for name, values in stack.items():
                file[name] = values
        (home / "diffraction.h5").symlink_to(secret / "diffraction.h5")
        with pytest.raises(DataError, match=r"link out of its folder .* --data-dir"):
            load_scan(product)
        assert len(load_scan(product, data_dirs=[secret])) == len(stack["patterns"])
