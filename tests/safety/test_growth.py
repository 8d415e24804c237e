"""Small files that would build much: refused by bounds that are the same on every machine, in little memory."""

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from ptycho.config import TrainingConfig, load_config
from ptycho.data.readers.limits import physical_memory
from ptycho.errors import ConfigError, DataError
from ptycho.model.importers.plain_pickle import read_plain_pickle
from ptycho.model.importers.torch_models import read_state
from ptycho.model.safe_archive import SafeArchive
from tests.model.test_bundle import resealed
from tests.safety.samples import write_bundle

MIB = 1 << 20


def text(content):
    return b"X" + struct.pack("<I", len(content)) + content


def doubled(kind, times, arguments=2):
    """Text that a call joins to itself again and again; the pickle grows by a few bytes each time."""
    steps = b"".join(
        b"cpathlib\n%s\n(" % kind + b"h" + bytes([i]) + (b"h" + bytes([i])) * (arguments - 1) + b"tRq" + bytes([i + 1])
        for i in range(times)
    )
    return b"\x80\x02" + text(b"x" * 100) + b"q\x00" + steps + b"."


def laughs(begin, end, times=30):
    """A container that holds the last one twice, and so on."""
    steps = b"".join(b"(" + (b"h" + bytes([i])) * 2 + end + b"q" + bytes([i + 1]) for i in range(times))
    return b"\x80\x02" + begin + b"q\x00" + steps


BOMBS = {
    "path": doubled(b"PosixPath", 40),
    "windows": doubled(b"WindowsPath", 40),
    "many": doubled(b"Path", 6, 200),
    "sets": b"\x80\x04" + b"\x8f" * 400_000 + b"0" * 399_999 + b".",
    "lists": b"\x80\x04" + b"]" * 2_000_000 + b".",
    "references": b"\x80\x04]q\x00(" + b"h\x00" * 400_000 + b"e.",
    "encoded": b"\x80\x04("
    + text(b"a" * MIB)
    + b"q\x00"
    + b"c_codecs\nencode\n(h\x00"
    + text(b"latin1")
    + b"tR"
    + b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 50
    + b"l.",
    "a dtype": laughs(b"]", b"l") + b"cnumpy\ndtype\n(h\x1eI0\nI1\ntR.",
    "a codec": laughs(b"]", b"l") + b"c_codecs\nencode\n(" + text(b"a") + b"h\x1etR.",
    "a function": laughs(b")", b"t") + b"cdill._dill\n_create_array\n(h\x1e)Nltt.",
    "a long number": b"\x80\x02I" + b"9" * 6000 + b"\n.",
    "a long code": b"\x80\x02cnumpy\ndtype\n(" + text(b"f4," * MIB) + b"I0\nI1\ntR.",
}


class TestPickles:
    @pytest.mark.parametrize("pickled", BOMBS.values(), ids=BOMBS)
    def test_are_refused_before_they_grow(self, pickled):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DataError) as refusal:
            read_plain_pickle(pickled, "params.dill")
        assert len(str(refusal.value)) < 500
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024

    def test_honest_settings_pass(self):
        rng = np.random.default_rng(0)
        told = {f"name {i}": [i, str(i), {"a": (1.0, None)}] for i in range(2000)}
        told |= {"probe": rng.normal(size=(256, 256)).astype(np.complex64), "long": "x" * 10**5}
        for protocol in range(2, 6):
            read = read_plain_pickle(pickle.dumps(told, protocol), "params.dill")
            np.testing.assert_array_equal(read.pop("probe"), told["probe"])
            assert read == {name: value for name, value in told.items() if name != "probe"}

    def test_tensors_that_share_one_storage(self):
        torch = pytest.importorskip("torch")
        stored, target = torch.zeros(MIB), io.BytesIO()
        torch.save({f"layer{i}": stored for i in range(100)}, target)
        with pytest.raises(DataError, match=r"builds 4\d\d MB of tensors from 4.19 MB"):
            read_state(target.getvalue(), "model.pth")
        torch.save({"one": stored, "other": stored}, target := io.BytesIO())
        assert set(read_state(target.getvalue(), "model.pth")) == {"one", "other"}


MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode, done.stderr, sep="\\n")
"""
"""Runs a command and prints the most memory that it took, its code and its errors."""


def zeros(path, members, size, name="{}.npy"):
    """An archive of members that are all zeros; they are compressed once, since that takes a while."""
    content = bytes(size)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed, checksum = packer.compress(content) + packer.flush(), zlib.crc32(content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(members):
            archive.writestr(name.format(number), packed)
            info = archive.filelist[-1]
            info.compress_type, info.CRC, info.file_size = zipfile.ZIP_DEFLATED, checksum, size
            at = archive.fp.tell()
            archive.fp.seek(info.header_offset)
            archive.fp.write(info.FileHeader())
            archive.fp.seek(at)
    return path


class TestArchives:
    @pytest.mark.parametrize(("members", "size"), [(60, 60), (3, 63), (400, 1)])
    def test_the_sum_of_all_members_counts(self, members, size, tmp_path):
        path = zeros(tmp_path / "wts.h5.zip", members, size * MIB)
        with pytest.raises(DataError, match=r"claims to hold .* of the file, which is refused"):
            SafeArchive(path)

    def test_whatever_memory_the_machine_has(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ptycho.data.readers.limits.physical_memory", lambda: 1 << 50)
        assert physical_memory() < 1 << 50
        with pytest.raises(DataError, match="which is refused"):
            SafeArchive(zeros(tmp_path / "wts.h5.zip", 60, 60 * MIB))

    @pytest.mark.parametrize("command", ["info", "import"])
    @pytest.mark.parametrize("kind", ["zeros", "text"])
    def test_the_command_takes_little_memory(self, command, kind, tmp_path):
        path = tmp_path / "wts.h5.zip"
        if kind == "zeros":
            zeros(path, 60, 60 * MIB, "diffraction_to_obj/{}")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("diffraction_to_obj/params.dill", BOMBS["path"])
            archive.writestr("diffraction_to_obj/model.keras", b"")
        words = [sys.executable, "-m", "ptycho", "bundle", command, str(path), "--out", str(tmp_path / "new")]
        words = words[: 6 if command == "info" else None]
        done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
        peak, code, *err = done.stdout.splitlines()
        assert int(code) == 2, err
        assert len([line for line in err if line]) == 1
        assert int(peak) < 500 * 1024

    def test_honest_bundles_pass(self, tmp_path):
        path = resealed(write_bundle(tmp_path), tmp_path / "large.zip", {"autoencoder/model.pth": bytes(20 * MIB)})
        with SafeArchive(path) as archive:
            assert archive.sizes()["autoencoder/model.pth"] == 20 * MIB
        (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(100 * MIB))
        with zipfile.ZipFile(tmp_path / "noise.zip", "w", zipfile.ZIP_STORED) as archive:
            archive.write(tmp_path / "noise")
        SafeArchive(tmp_path / "noise.zip").__exit__()


YAMLS = {
    "merge keys": "a0: &a0 {"
    + ", ".join(f"k{i}: 1" for i in range(10))
    + "}\n"
    + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)),
    "decimal": "nepochs: " + "9" * 6000,
    "hexadecimal": "nepochs: 0x" + "f" * 6000,
    "octal": "nepochs: 0" + "7" * 6000,
    "sexagesimal": "nepochs: " + "1:" * 3000 + "1",
    "a date": "nepochs: 2001-99-99",
    "a time": "nepochs: 2001-01-01T99:99:99Z",
    "a tag of another kind": "nepochs: !!int twelve",
    "an empty number": "nepochs: !!float ''",
    "a binary": "nepochs: !!binary 'é'",
    "a key that is a list": "? [a, b]\n: 1",
    "a key that is a number": f"{'9' * 3000}: 1",
    "a huge key": f"0x{'f' * 6000}: 1",
    "a long name": "n" * 6000 + ": 1",
    "a long value": "nepochs: " + "n" * 6000,
    "a long word": "backend: " + "n" * 6000,
    "depth": "nepochs: " + "[" * 400 + "]" * 400,
    "deep mappings": "".join("  " * i + "model:\n" for i in range(300)),
    "a list": "nepochs: [1, 2]",
    "a model of another kind": "model: " + "[1, 2]",
    "a large file": "# " + "x" * (2 * MIB),
    "surrogates": 'backend: "\\ud800"',
    "not text": "nepochs: \x00",
}


class TestSettings:
    @pytest.mark.parametrize(
        "text",
        [text for text in YAMLS.values() if not text.startswith("backend")],  # whose backends are looked up later
    )
    def test_yaml_ends_in_a_sentence(self, text, tmp_path):
        (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as refusal:
            load_config(TrainingConfig, tmp_path / "settings.yaml")
        assert len(str(refusal.value)) < 1000

    @pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
    def test_through_the_command(self, text, ptycho, tmp_path):
        (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
        done = ptycho("train", "scan.npz", "--config", tmp_path / "settings.yaml")
        assert done.code == 2, done
        assert len(done.err.splitlines()) == 1, done.err

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/tty", "/proc/self/mem", ".", "n" * 6000])
    def test_what_is_no_file(self, name, ptycho):
        done = ptycho("train", "scan.npz", f"--config={name}")
        assert done.code == 2, done
        assert len(done.err.splitlines()) == 1, done.err

    def test_sharing_within_reason_passes(self, tmp_path):
        (tmp_path / "s.yaml").write_text(json.dumps({"nepochs": 3}) + "\n")
        assert load_config(TrainingConfig, tmp_path / "s.yaml").nepochs == 3
        (tmp_path / "m.yaml").write_text("model: &m {N: 128}\n<<: *m\nnepochs: 4\n")
        assert load_config(TrainingConfig, tmp_path / "m.yaml").model.N == 128
