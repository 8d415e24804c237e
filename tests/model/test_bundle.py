"""The bundle: exact round trip; damage, strangers and full disks are told, and no code in a file is run."""

import errno
import hashlib
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import DataError, OutputError
from ptycho.files import RECORD
from ptycho.model.bundle import BUNDLE_NAME, Bundle, load_bundle, save_bundle


@pytest.fixture
def bundle():
    rng = np.random.default_rng(0)
    params = {
        "encoder/block0/conv0/kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32),
        "probe/real": np.asfortranarray(rng.normal(size=(2, 8, 8)).astype(np.float32)),
        "probe/imag": rng.normal(size=(2, 8, 8)).astype(np.float32),
        "log_scale": np.asarray(1.5, np.float32),
    }
    config = TrainingConfig(model=ModelConfig(N=128, gridsize=2), nepochs=7, gradient_clip=0.5, lr_schedule="cosine")
    return Bundle(params, config, 12.5, 1e6, 78, {"loss": [3.0, 0.1 + 0.2]}, {"model.pth": b"native"})


def rewritten(source, target, change):
    """The archive with some members changed (bytes), or dropped (None)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def json_of(path, name="manifest.json"):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(name))


def resealed(source, target, members, **stated):
    """The bundle with other members or manifest and checksums that fit, as somebody who means harm would make it."""
    manifest = {**json_of(source), **stated}
    manifest["sha256"] |= {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    changed = {**members, "manifest.json": json.dumps(manifest).encode()}
    return rewritten(source, target, lambda name, data: changed.get(name, data))


class TestRoundTrip:
    def test_is_exact(self, bundle, tmp_path):
        path = save_bundle(bundle, tmp_path)
        assert path == tmp_path / BUNDLE_NAME
        for place in (path, tmp_path):
            back = load_bundle(place)
            assert set(back.params) == set(bundle.params)
            for name, values in bundle.params.items():
                np.testing.assert_array_equal(back.params[name], values)
                assert back.params[name].dtype == values.dtype
                assert back.params[name].shape == values.shape
            assert back.config == bundle.config
            assert (back.intensity_scale, back.nphotons, back.group_canvas_side) == (12.5, 1e6, 78)
            assert back.history == bundle.history
            np.testing.assert_array_equal(back.probe, bundle.probe)

    def test_probe_is_in_root_photons(self, bundle):
        wanted = (bundle.params["probe/real"] + 1j * bundle.params["probe/imag"]) * np.exp(1.5)
        np.testing.assert_allclose(bundle.probe, wanted, rtol=1e-6)
        assert bundle.probe.dtype == np.complex64

    def test_members_and_manifest(self, bundle, tmp_path):
        with zipfile.ZipFile(save_bundle(bundle, tmp_path)) as archive:
            names = set(archive.namelist())
            manifest = json.loads(archive.read("manifest.json"))
            legacy = pickle.loads(archive.read("diffraction_to_obj/params.dill"))
        for model in ("autoencoder", "diffraction_to_obj"):
            assert {f"{model}/params.dill", f"{model}/model.pth"} <= names
        assert manifest["backend"] == "pytorch"
        assert set(manifest["sha256"]) == names - {"manifest.json"}
        assert "numpy" in manifest["versions"]
        assert legacy["intensity_scale"] == 12.5
        assert legacy["N"] == 128

    def test_a_new_bundle_replaces_the_old(self, bundle, tmp_path):
        save_bundle(bundle, tmp_path)
        bundle.group_canvas_side = 99
        with pytest.raises(OutputError, match="exists already"):
            save_bundle(bundle, tmp_path)
        save_bundle(bundle, tmp_path, overwrite=True)
        assert load_bundle(tmp_path).group_canvas_side == 99
        assert sorted(os.listdir(tmp_path)) == [RECORD, BUNDLE_NAME]


class TestDamage:
    @pytest.mark.parametrize(
        "member",
        ["config.json", "units.json", "weights.safetensors", "autoencoder/params.dill", "autoencoder/model.pth"],
    )
    def test_a_changed_member(self, bundle, tmp_path, member):
        path = save_bundle(bundle, tmp_path / "good")
        bad = rewritten(path, tmp_path / "bad.zip", lambda n, d: d[:-1] + b"x" if n == member else d)
        with pytest.raises(DataError, match=f"{member} does not match its checksum"):
            load_bundle(bad)

    def test_a_member_without_a_checksum(self, bundle, tmp_path):
        path = save_bundle(bundle, tmp_path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("more.bin", b"smuggled")
        with pytest.raises(DataError, match=r"more\.bin does not match its checksum"):
            load_bundle(path)

    @pytest.mark.parametrize(
        ("member", "content"),
        [
            ("units.json", b"[]"),
            ("units.json", b"["),
            ("units.json", b"{}"),
            ("units.json", b"[" * 100_000),
            ("units.json", b'{"intensity_scale": NaN, "nphotons": 1, "side": 8}'),
            ("units.json", b'{"intensity_scale": 1, "nphotons": 1, "side": 1e999}'),
            ("units.json", b'{"intensity_scale": 1, "nphotons": 1, "side": 8, "history": [1]}'),
            ("units.json", b'{"intensity_scale": 1, "nphotons": -1, "side": 8}'),
            ("config.json", b"[]"),
            ("config.json", b'{"nepochs": {}}'),
            ("config.json", b'{"model": 3}'),
            ("config.json", b'{"unknown": 3}'),
            ("weights.safetensors", b""),
            ("weights.safetensors", b"\xff" * 64),
            ("weights.safetensors", safetensors.numpy.save({"log_scale": np.zeros((), np.float32)})),
            ("weights.safetensors", safetensors.numpy.save({"probe/real": np.zeros((1, 8, 8), np.int64)})),
        ],
    )
    def test_contents_that_make_no_model(self, bundle, tmp_path, member, content):
        path = save_bundle(bundle, tmp_path / "good")
        with pytest.raises(DataError, match="bad"):
            load_bundle(resealed(path, tmp_path / "bad.zip", {member: content}))

    @pytest.mark.parametrize("member", ["manifest.json", "config.json", "units.json", "weights.safetensors"])
    def test_a_missing_member(self, bundle, tmp_path, member):
        path = save_bundle(bundle, tmp_path / "good")
        bad = rewritten(path, tmp_path / "bad.zip", lambda n, d: None if n == member else d)
        with pytest.raises(DataError, match=member):
            load_bundle(bad)

    @pytest.mark.parametrize("keep", [0, 1, 50, 1000, 0.5, 0.99])
    def test_cut_short(self, bundle, tmp_path, keep):
        path = save_bundle(bundle, tmp_path)
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
        with pytest.raises(DataError, match="not a readable bundle"):
            load_bundle(path)

    def test_any_flipped_byte_is_told_or_harmless(self, bundle, tmp_path):
        path = save_bundle(bundle, tmp_path)
        data = path.read_bytes()
        told = 0
        for at in range(0, len(data), 41):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
            try:
                back = load_bundle(path)
            except DataError:
                told += 1
                continue
            np.testing.assert_array_equal(back.params["probe/real"], bundle.params["probe/real"])
            assert back.config == bundle.config
        assert told > 5

    @pytest.mark.parametrize("content", [b"", b"not a zip", b"\x89HDF\r\n\x1a\n" + bytes(100)])
    def test_not_a_zip(self, tmp_path, content):
        path = tmp_path / "wts.zip"
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable bundle"):
            load_bundle(path)

    @pytest.mark.parametrize("manifest", [b"[]", b"{}", b"{", b'{"format_version": 99}', b'{"format_version": 1}'])
    def test_strange_manifests(self, bundle, tmp_path, manifest):
        path = save_bundle(bundle, tmp_path / "good")
        bad = rewritten(path, tmp_path / "bad.zip", lambda n, d: manifest if n == "manifest.json" else d)
        with pytest.raises(DataError):
            load_bundle(bad)

    def test_missing(self, tmp_path):
        for place in (tmp_path, tmp_path / "absent.zip"):
            with pytest.raises(DataError, match="there is no such file"):
                load_bundle(place)


class TestSafety:
    def test_nothing_is_unpickled(self, bundle, tmp_path, monkeypatch):
        marker = tmp_path / "ran"

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        path = save_bundle(bundle, tmp_path / "good")
        trap = pickle.dumps(Trap())
        traps = {name: trap for name in json_of(path)["sha256"] if name.endswith((".dill", ".pth"))}
        assert len(traps) == 4
        bad = resealed(path, tmp_path / "trap.zip", traps)

        def refuse(*args, **kwargs):
            raise AssertionError("unpickled")

        monkeypatch.setattr(pickle, "loads", refuse)
        monkeypatch.setattr(pickle, "load", refuse)
        load_bundle(bad)
        assert not marker.exists()

    def test_a_full_disk_leaves_the_old_one(self, bundle, tmp_path, monkeypatch):
        path = save_bundle(bundle, tmp_path)
        before = path.read_bytes()
        write = zipfile.ZipFile.writestr

        def full(self, name, data):
            if name == "weights.safetensors":
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, name, data)

        monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
        bundle.group_canvas_side = 1
        with pytest.raises(OutputError, match="No space left on device"):
            save_bundle(bundle, path, overwrite=True)
        assert path.read_bytes() == before
        assert sorted(os.listdir(tmp_path)) == [RECORD, BUNDLE_NAME]

    def test_a_file_in_the_way_of_the_folder(self, bundle, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="could not be written"):
            save_bundle(bundle, tmp_path / "file" / "deeper")
        assert (tmp_path / "file").read_text() == "mine"
