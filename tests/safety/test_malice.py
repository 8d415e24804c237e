"""Files that mean harm, fed to every loader: each is refused with one sentence, nothing runs, nothing is written."""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import os
import pickle
import re
import socket
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho.config import TrainingConfig, load_config
from ptycho.data import load_scan
from ptycho.errors import ConfigError, DataError
from ptycho.model import safe_archive
from ptycho.model.importers.plain_pickle import read_plain_pickle
from ptycho.model.safe_archive import SafeArchive
from tests.model.test_bundle import resealed
from tests.safety.samples import LOADERS, MODELS, SCANS

ROOT = Path(__file__).parents[2]
ZIPS = [name for name, loader in LOADERS.items() if loader.family == "zip"]
ARRAYS = [name for name in ZIPS if name not in MODELS]
HDF5 = [name for name, loader in LOADERS.items() if loader.family == "hdf5"]


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch '{self.folder}/ran'",)


@pytest.fixture
def refused(tmp_path, watch):
    """Load a file that must be refused: by a sentence about it, in its own folder, with nothing beside it."""
    home = tmp_path / "home"
    home.mkdir()

    def check(sample, content, match="."):
        target = home / sample.path.name
        target.write_bytes(content)
        with watch.watching(), pytest.raises(DataError, match=match) as refusal:
            sample.loader.load(target)
        assert "\n" not in str(refusal.value)
        assert sorted(path.name for path in tmp_path.rglob("*")) == sorted({"home", target.name})

    check.folder = tmp_path
    return check


def outcome(sample, path, watch):
    """The digest of what a file gives, or None where it is refused by one sentence; nothing runs in either case."""
    with watch.watching():
        try:
            return sample.loader.load(path)
        except DataError as error:
            refusal = str(error)
    assert refusal
    assert "\n" not in refusal
    return None


def rewritten(content, change, extra=(), packing=zipfile.ZIP_DEFLATED):
    """A zip archive with its members changed: a function of name and bytes that gives bytes, or None to drop it."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w", packing) as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
        for info, data in extra:
            new.writestr(info, data)
    return target.getvalue()


def names(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.namelist()


class TestWatch:
    """The watch sees what it should, or the other tests would prove nothing."""

    @pytest.mark.parametrize(
        ("act", "seen"),
        [
            (lambda folder: os.system("true"), "os.system"),
            (lambda folder: subprocess.run(["true"], check=True), "subprocess.Popen"),
            (lambda folder: pickle.loads(pickle.dumps(os.getcwd)), "pickle.find_class"),
            (lambda folder: (folder / "new").write_text("x"), "open"),
            (lambda folder: os.mkdir(folder / "new"), "os.mkdir"),
            (lambda folder: socket.create_connection(("127.0.0.1", 9), timeout=1), "socket.connect"),
        ],
        ids=["system", "process", "pickle", "write", "folder", "network"],
    )
    def test_sees(self, act, seen, tmp_path, watch):
        with pytest.raises(AssertionError, match=seen), watch.watching(), contextlib.suppress(OSError):
            act(tmp_path)

    def test_lets_reading_pass(self, sample, watch):
        made = sample("ptychopinn-npz")
        with watch.watching():
            made.loader.load(made.path)


class TestPickles:
    def test_the_trap_works(self, tmp_path):
        pickle.loads(pickle.dumps(Trap(tmp_path)))
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ARRAYS)
    def test_in_every_array_of_an_npz(self, name, sample, tmp_path, watch):
        """What is not needed stays unread; so does a single object, as numpy writes None, in the place of a field."""
        whole = sample(name)
        for member in names(whole.whole):
            for shape in ((), (1,)):
                trap = np.empty(shape, object)
                trap[...] = Trap(tmp_path)
                target = io.BytesIO()
                np.save(target, trap, allow_pickle=True)
                content = rewritten(whole.whole, lambda n, data, m=member, t=target: t.getvalue() if n == m else data)
                path = tmp_path / whole.path.name
                path.write_bytes(content)
                loaded = outcome(whole, path, watch)
                assert loaded in (None, whole.good) or shape == (), member
        assert not (tmp_path / "ran").exists()

    def test_in_every_native_file_of_a_bundle(self, sample, tmp_path, watch):
        whole, trap = sample("bundle"), pickle.dumps(Trap(tmp_path))
        traps = {name: trap for name in names(whole.whole) if name.endswith((".dill", ".pth"))}
        assert len(traps) == 4
        path = resealed(whole.path, tmp_path / "wts.h5.zip", traps)
        with watch.watching():
            LOADERS["bundle"].load(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ["import torch", "import keras"])
    def test_in_the_settings_of_an_archive(self, name, sample, refused):
        whole = sample(name)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            trap = pickle.dumps({"N": 64, "gridsize": 1, "probe": Trap(refused.folder)}, protocol)
            content = rewritten(whole.whole, lambda n, data, t=trap: t if n.endswith("params.dill") else data)
            refused(whole, content, "asks to call (posix|nt).system, which can run code")

    @pytest.mark.parametrize("name", ["import torch", "import keras"])
    def test_beside_the_settings_of_an_archive_are_not_read(self, name, sample, tmp_path, watch):
        whole, trap = sample(name), pickle.dumps(Trap(tmp_path))
        unread = ("manifest.dill", "custom_objects.dill")
        path = tmp_path / whole.path.name
        path.write_bytes(rewritten(whole.whole, lambda n, data: trap if n.endswith(unread) else data))
        with watch.watching():
            assert whole.loader.load(path) == whole.good

    def test_in_a_torch_file(self, sample, refused):
        whole = sample("import torch")

        def change(name, data):
            if not name.endswith("model.pth"):
                return data
            trap = pickle.dumps(Trap(refused.folder), 2)
            return rewritten(data, lambda n, part: trap if n.endswith("data.pkl") else part)

        refused(whole, rewritten(whole.whole, change), "asks to call (posix|nt).system")

    @pytest.mark.parametrize(
        "pickled",
        [
            b"cos\nsystem\n(S'touch ran'\ntR.",
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            b"(S'touch ran'\nios\nsystem\n.",
            b"\x80\x02cos\nsystem\n)\x81.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
            b"\x80\x02\x82\x01.",
            b"cdill._dill\n_load_type\n(S'FunctionType'\ntR.",
            b"cdill._dill\n_create_array\n(cbuiltins\neval\n)(I1\n)Nltt.",
            b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n)S'b'\ntR(I1\n(I1\ntcos\nsystem\nI00\nS''\ntb.",
            b"ctensorflow.python.framework.ops\nconvert_to_tensor\n(cos\nsystem\ntR.",
            b"(lp0\n(dp1\nS'__class__'\ncos\nsystem\nsbh0\n.",
        ],
    )
    def test_of_many_kinds_are_plain_data_or_refused(self, pickled, watch):
        with watch.watching(), pytest.raises(DataError):
            read_plain_pickle(pickled, "params.dill")

    def test_attributes_of_containers_are_left_out(self):
        assert read_plain_pickle(b"(dcos\nsystem\nb.", "params.dill") == {}

    def test_that_grow_are_refused(self):
        grown = b"\x80\x04(" + b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00"
        grown += b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 200 + b"l."
        with pytest.raises(DataError, match="builds far more than it holds"):
            read_plain_pickle(grown, "params.dill")
        with pytest.raises(DataError, match="damaged, or holds more"):
            read_plain_pickle(b"\x80\x04" + b"]" * 200 + b"a" * 199 + b".", "params.dill")
        laughs = (
            b"\x80\x04]\x94"
            + b"".join(b"]\x94(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(45))
            + b"."
        )
        assert len(read_plain_pickle(laughs, "params.dill")) == 2
        keys = b"\x80\x04)\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(90))
        with pytest.raises(DataError, match="tuple as a key"):
            read_plain_pickle(b"\x80\x04}" + keys[2:] + b"K\x01s.", "params.dill")


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


class TestZips:
    @pytest.mark.parametrize("name", ZIPS)
    @pytest.mark.parametrize(
        "member",
        [
            "../evil.npy",
            "/tmp/evil.npy",
            "a/../../evil.npy",
            "C:\\evil.npy",
            "..\\evil.npy",
            "a//b.npy",
            "./a.npy",
            link("l.npy"),
        ],
        ids=str,
    )
    def test_names_that_leave_the_archive(self, name, member, sample, refused):
        whole = sample(name)
        refused(
            whole,
            rewritten(whole.whole, lambda _, data: data, [(member, b"/etc/passwd")]),
            "which is refused|is refused",
        )

    @pytest.mark.parametrize("name", ["bundle", "import torch", "import keras"])
    def test_two_members_of_one_name(self, name, sample, refused):
        whole, first = sample(name), names(sample(name).whole)[0]
        with pytest.warns(UserWarning, match="Duplicate name"):
            content = rewritten(whole.whole, lambda _, data: data, [(first, b"{}")])
        refused(whole, content, "is there twice")

    @pytest.mark.parametrize("name", ZIPS)
    def test_bombs(self, name, sample, refused):
        """Every member in turn claims to be of many gigabytes, and its data would go on so long."""
        whole = sample(name)
        for member in names(whole.whole)[:6]:
            refused(whole, claiming(whole.whole, member, 0xFFFFFFF0))

    @pytest.mark.parametrize("name", ["import torch", "import keras"])
    def test_bombs_within(self, name, sample, refused, monkeypatch):
        monkeypatch.setattr(safe_archive, "_SUSPICIOUS_FROM", 1 << 20)
        whole, zeros = sample(name), bytes(8 << 20)

        def change(member, data):
            return rewritten(data, lambda *_: zeros) if member.endswith((".pth", ".keras")) else data

        refused(whole, rewritten(whole.whole, change), "claims to hold 8.39 MB in .* of the file, which is refused")

    def test_more_than_the_directory_says(self, tmp_path):
        """What a member holds beyond what it claims is not unpacked; the checksum tells."""
        packed = zlib.compress(bytes(64 << 20), 9)[2:-4]
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("manifest.json", packed)
        content = bytearray(path.read_bytes())
        for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            content[content.find(signature) + method] = zipfile.ZIP_DEFLATED
        path.write_bytes(content)
        with SafeArchive(path) as archive, pytest.raises(DataError, match="damaged"):
            archive.read("manifest.json")

    @pytest.mark.parametrize("name", ZIPS)
    def test_encryption(self, name, sample, refused):
        whole = sample(name)
        content = bytearray(whole.whole)
        content[content.find(b"PK\x01\x02") + 8] |= 1
        refused(whole, content, "is encrypted")


def claiming(content, member, size):
    """An archive whose directory says that a member unpacks to so many bytes."""
    changed, at = bytearray(content), -1
    while (at := changed.find(b"PK\x01\x02", at + 1)) >= 0:
        length = struct.unpack_from("<H", changed, at + 28)[0]
        if changed[at + 46 : at + 46 + length] == member.encode():
            struct.pack_into("<I", changed, at + 24, size)
            return bytes(changed)
    raise AssertionError(member)


class TestHdf5:
    @staticmethod
    def changed(whole, folder, change):
        """The sample with one of its datasets after the other changed: (name, bytes)."""
        with h5py.File(whole.path) as file:
            found = []
            file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in found:
            path = folder / "changed.h5"
            path.write_bytes(whole.whole)
            with h5py.File(path, "r+") as file:
                change(file, name)
            content = path.read_bytes()
            path.unlink()
            yield name, content

    @pytest.fixture
    def secret(self, tmp_path_factory):
        """A file outside with 64 numbers that are nowhere else."""
        folder = tmp_path_factory.mktemp("secret")
        path = folder / "secret.h5"
        with h5py.File(path, "w") as file:
            file["x"] = np.full(2048, 7777.25)
        (folder / "secret.raw").write_bytes(b"the password  " * 2000)
        return path

    @pytest.mark.parametrize("name", HDF5)
    @pytest.mark.parametrize("kind", ["link", "raw", "virtual"])
    def test_nothing_outside_is_read(self, name, kind, secret, sample, tmp_path, watch):
        whole = sample(name)

        def change(file, dataset):
            shape, dtype = file[dataset].shape, file[dataset].dtype
            del file[dataset]
            if kind == "link":
                file[dataset] = h5py.ExternalLink(str(secret), "x")
            elif kind == "raw":
                plain = "S28" if dtype.kind == "O" else dtype
                place = [(str(secret.with_suffix(".raw")), 0, h5py.h5f.UNLIMITED)]
                file.create_dataset(dataset, shape, plain, external=place)
            else:
                layout = h5py.VirtualLayout(shape or (1,), np.float64)
                layout[...] = (
                    h5py.VirtualSource(str(secret), "x", (2048,))[: layout.shape[0]]
                    if len(layout.shape) == 1
                    else (h5py.VirtualSource(str(secret), "x", layout.shape))
                )
                file.create_virtual_dataset(dataset, layout)

        refusals = 0
        for _, content in self.changed(whole, tmp_path, change):
            path = tmp_path / whole.path.name
            path.write_bytes(content)
            if outcome(whole, path, watch) is None:
                refusals += 1
                continue
            loaded = loaded_bytes(whole, path)
            assert b"the password" not in loaded
            assert np.float64(7777.25).tobytes() not in loaded
        assert refusals >= 2

    @pytest.mark.parametrize("name", HDF5)
    def test_bombs(self, name, sample, tmp_path, watch):
        whole, refusals = sample(name), 0

        def change(file, dataset):
            rank, dtype = max(1, file[dataset].ndim), file[dataset].dtype
            del file[dataset]
            shape = (1 << 40, *[1 << 4] * (rank - 1))
            file.create_dataset(dataset, shape, dtype, chunks=(1 << 10, *shape[1:]), compression="gzip")

        for _, content in self.changed(whole, tmp_path, change):
            path = tmp_path / whole.path.name
            path.write_bytes(content)
            refusals += outcome(whole, path, watch) is None
        assert refusals >= 2


def loaded_bytes(whole, path):
    """All that loading gives, as bytes."""
    if whole.name not in SCANS:
        from ptycho.workflows.results import load_reconstruction

        values = vars(load_reconstruction(path)).values()
    else:
        scan = load_scan(path, format=whole.name, measurement="counts")
        values = [getattr(scan, name) for name in scan.__dataclass_fields__]
    return b"".join(
        value.encode() if isinstance(value, str) else np.asarray(value).tobytes()
        for value in values
        if not isinstance(value, dict)
    )


class TestConfigurations:
    @pytest.mark.parametrize(
        "text",
        [
            "!!python/object/apply:os.system ['touch ran']",
            "nepochs: !!python/object/apply:os.system ['touch ran']",
            "nepochs: !!python/name:os.system",
            "? !!python/object/new:os.system ['touch ran']\n: 1",
        ],
    )
    def test_objects_in_yaml(self, text, tmp_path, watch):
        (tmp_path / "settings.yaml").write_text(text)
        with watch.watching(), pytest.raises(ConfigError, match="not valid YAML"):
            load_config(TrainingConfig, tmp_path / "settings.yaml")

    @pytest.mark.parametrize(
        "text",
        [
            "\n".join(
                ["nepochs:", " - &a0 [x, x]", *(f" - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))]
            ),
            "nepochs: &a [*a]",
            "nepochs: " + "[" * 5000,
        ],
        ids=["laughs", "itself", "depth"],
    )
    def test_yaml_that_grows(self, text, tmp_path, watch):
        (tmp_path / "settings.yaml").write_text(text)
        with watch.watching(), pytest.raises(ConfigError, match=r"more than 100000 values|nested too deeply|not valid"):
            load_config(TrainingConfig, tmp_path / "settings.yaml")


class TestCheckpoints:
    def test_traps_are_refused_unread(self, sample, refused):
        torch = pytest.importorskip("torch")
        whole, target = sample("checkpoint"), io.BytesIO()
        torch.save({"state_dict": {}, "ptychopinn": Trap(refused.folder)}, target)
        refused(whole, target.getvalue(), "not a checkpoint that can be read without running code in it")

    def test_nothing_in_the_library_reads_more_than_weights(self):
        """Neither by PyTorch nor by Lightning, whose own default is to run what a checkpoint says."""
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / "shims").rglob("*.py")]
        calls = [
            call for text in sources for call in re.findall(r"torch\.load\([^)]*\)|load_from_checkpoint\([^)]*\)", text)
        ]
        assert calls
        assert all("weights_only=True" in call or "cls, checkpoint_path" in call for call in calls), calls
        resumed = [text for text in sources if "ckpt_path=" in text]
        assert all("weights_only=True" in text or "plugins=[CheckpointFiles()]" in text for text in resumed)
        files = importlib.import_module("ptycho_torch.persistence").CheckpointFiles
        assert "super().load_checkpoint(path, map_location, weights_only=True)" in inspect.getsource(files)


class TestManifests:
    @pytest.mark.parametrize("member", ["manifest.json", "config.json", "units.json"])
    @pytest.mark.parametrize(
        "text",
        [
            b"[" * 10**5,
            b'{"a":' * 10**5,
            b'{"side": 1' + b"0" * 10**5 + b"}",
            b'{"side": "' + b"9" * 10**4 + b'"}',
            b'{"sha256": 3, "format_version": 1}',
        ],
        ids=["lists", "objects", "a number", "a text", "another type"],
    )
    def test_deep_nests_and_endless_numbers(self, member, text, sample, refused):
        whole = sample("bundle")

        def change(name, data):
            if name == member:
                return text
            if name != "manifest.json":
                return data
            manifest = json.loads(data)
            manifest["sha256"][member] = hashlib.sha256(text).hexdigest()
            return json.dumps(manifest).encode()

        refused(whole, rewritten(whole.whole, change))
