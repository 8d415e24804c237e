"""Saving a reconstruction whole or not at all, and loading it back exactly, without a pickle."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from ptycho.data import Scan
from ptycho.errors import DataError, OutputError
from ptycho.evaluation import FRC
from ptycho.files import RECORD
from ptycho.workflows import results
from ptycho.workflows.results import (
    RESULT_FILES,
    Reconstruction,
    load_reconstruction,
    provenance,
    save_reconstruction,
)

PNG = b"\x89PNG\r\n\x1a\n"


def reconstruction(**changes):
    rng = np.random.default_rng(0)
    weight = np.zeros((40, 48), dtype=np.float32)
    weight[5:35, 6:44] = 3
    image = np.where(weight > 0, rng.uniform(0.5, 1, weight.shape) * np.exp(1j * rng.normal(0, 0.2, weight.shape)), 1)
    curve = FRC(np.asarray([0.25, 0.5]), np.asarray([0.9, 0.1]), np.asarray([8.0, 16.0]))
    values = {
        "object": image,
        "weight": weight,
        "origin": (-3.0, 4.0),
        "positions": rng.uniform(5, 30, (7, 2)),
        "probe": np.ones((2, 16, 16)) * (1 + 2j),
        "pixel_size": 2e-8,
        "history": {"loss": [3.0, 1.0], "val_loss": [4.0, float("nan")]},
        "provenance": {"seed": 3, "config": {"N": 16}, "data": {"name": "test scan"}},
        "metrics": {"r_factor": 0.2, "psnr_phase": float("inf"), "frc_rings_0.5_phase": 4},
        "frc": {"complex": curve, "phase": curve},
        "measured": rng.uniform(0, 3, (2, 16, 16)),
        "predicted": rng.uniform(0, 3, (2, 16, 16)),
        "truth": image,
        "mask": rng.uniform(size=(16, 16)) > 0.1,
    }
    return Reconstruction(**{**values, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A reconstruction and the folder that it was saved in."""
    folder = tmp_path_factory.mktemp("results") / "deep" / "out"
    result = reconstruction()
    paths = save_reconstruction(result, folder)
    assert paths == {name: folder / name for name in RESULT_FILES}
    return result, folder


@pytest.fixture
def plain_pictures(monkeypatch):
    """Saving without drawing, for tests that are about files."""
    monkeypatch.setattr(
        "ptycho.workflows.report.draw_pictures",
        lambda result: dict.fromkeys(("amplitude", "phase", "complex", "probe", "positions"), PNG),
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(loaded, result):
    for name in ("object", "weight", "positions", "probe", "measured", "predicted", "truth", "mask"):
        expected = getattr(result, name)
        if expected is None:
            assert getattr(loaded, name) is None
            continue
        np.testing.assert_array_equal(getattr(loaded, name), expected, err_msg=name)
        assert getattr(loaded, name).dtype == expected.dtype
    assert loaded.origin == result.origin
    assert loaded.pixel_size == result.pixel_size
    assert loaded.metrics == result.metrics
    assert loaded.provenance == result.provenance
    assert loaded.history.keys() == result.history.keys()
    for name, values in result.history.items():
        np.testing.assert_array_equal(loaded.history[name], values)
    assert loaded.frc.keys() == result.frc.keys()
    for name, curve in result.frc.items():
        np.testing.assert_array_equal(loaded.frc[name].correlation, curve.correlation)
        np.testing.assert_array_equal(loaded.frc[name].half_bit, curve.half_bit)
        assert loaded.frc[name].pixel_size == result.pixel_size


@pytest.mark.parametrize("source", ["", "reconstruction.h5", "reconstruction.npz"])
def test_round_trip_is_exact(saved, source):
    result, folder = saved
    assert_same(load_reconstruction(folder / source), result)


def test_round_trip_of_the_bare_minimum(tmp_path, plain_pictures):
    result = reconstruction(
        pixel_size=None,
        history={},
        provenance={},
        metrics={},
        frc={},
        measured=None,
        predicted=None,
        truth=None,
        mask=None,
    )
    save_reconstruction(result, tmp_path / "out")
    for source in ("reconstruction.h5", "reconstruction.npz"):
        assert_same(load_reconstruction(tmp_path / "out" / source), result)


def test_everything_promised_is_written_and_nothing_else(saved):
    _, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORD, *RESULT_FILES])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]
    for name in ("amplitude", "phase", "complex", "probe"):
        assert (folder / f"{name}.png").read_bytes().startswith(PNG)


def test_hdf5_states_units_and_layout(saved):
    result, folder = saved
    with h5py.File(folder / "reconstruction.h5") as file:
        assert file.attrs["format"] == "ptychopinn-reconstruction"
        assert file.attrs["format_version"] == 1
        units = {name: file[name].attrs["units"] for name in ("object", "positions", "probe", "pixel_size", "origin")}
        assert units == {
            "object": "dimensionless",
            "positions": "pixel",
            "probe": "sqrt(photon)",
            "pixel_size": "metre",
            "origin": "pixel",
        }
        assert file["frc/complex/frequency"].attrs["units"] == "cycles/pixel"
        assert file["object"].attrs["axes"] == "row, column"
        assert file["object"].dtype == np.complex64
        assert json.loads(file["provenance"].asstr()[()])["config"] == {"N": 16}
        assert file["metrics/r_factor"][()] == result.metrics["r_factor"]


def test_npz_is_plain_arrays_and_the_same_bytes_each_time(saved, tmp_path, plain_pictures):
    result, folder = saved
    with np.load(folder / "reconstruction.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fcibU" for name in archive.files)
    save_reconstruction(result, tmp_path / "again")
    first, second = ((f / "reconstruction.npz").read_bytes() for f in (folder, tmp_path / "again"))
    assert first == second


def test_tiffs_are_float_with_nan_where_nothing_is_known(saved):
    result, folder = saved
    covered = result.weight > 0
    with tifffile.TiffFile(folder / "amplitude.tif") as tiff:
        amplitude = tiff.asarray()
        assert amplitude.dtype == np.float32
        np.testing.assert_allclose(amplitude[covered], np.abs(result.object)[covered], rtol=1e-6)
        assert np.all(np.isnan(amplitude[~covered]))
        tags = tiff.pages[0].tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == pytest.approx(0.01 / 2e-8)
        assert json.loads(tags["ImageDescription"].value)["pixel_size_m"] == 2e-8
    phase = tifffile.imread(folder / "phase.tif")
    assert abs(np.nanmean(phase)) < 0.05
    difference = np.angle(result.object)[covered] - phase[covered]
    assert np.std(difference) < 0.1  # a plane, and a gentle one


def test_an_earlier_result_is_kept_unless_forced(tmp_path, plain_pictures):
    save_reconstruction(reconstruction(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    newer = reconstruction(pixel_size=None)
    with pytest.raises(OutputError, match=r"reconstruction\.h5 exists already: .*--force"):
        save_reconstruction(newer, tmp_path)
    assert contents(tmp_path) == before
    save_reconstruction(newer, tmp_path, overwrite=True)
    assert load_reconstruction(tmp_path).pixel_size is None
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(contents(tmp_path)) == sorted(["notes.txt", RECORD, *RESULT_FILES])


@pytest.mark.parametrize("writer", ["write_hdf5", "write_npz", "write_tiff", "report"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, plain_pictures, writer, earlier):
    out = tmp_path / "deep" / "out"
    if earlier:
        save_reconstruction(reconstruction(), out)
    before = contents(tmp_path)

    def full(path, *rest):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if writer == "report":
        monkeypatch.setattr(Path, "write_text", lambda path, *rest, **options: full(path))
    else:
        monkeypatch.setattr(results, writer, full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_reconstruction(reconstruction(pixel_size=None), out, overwrite=True)
    assert contents(tmp_path) == before
    assert out.exists() == earlier
    if not earlier:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", range(len(RESULT_FILES)))
@pytest.mark.parametrize("step", ["keep", "move in"])
def test_a_failure_while_moving_in_puts_everything_back(tmp_path, monkeypatch, plain_pictures, at, step):
    save_reconstruction(reconstruction(), tmp_path)
    before = contents(tmp_path)
    name = sorted(RESULT_FILES)[at]

    def failing_at(move):
        def stubborn(source, target, **options):
            if Path(source).name == name and "earlier" not in str(source):
                raise OSError(errno.EIO, "the disk went away")
            return move(source, target, **options)

        return stubborn

    for module, move in ((os, "replace"),) if step == "move in" else ((os, "link"), (shutil, "copy2")):
        monkeypatch.setattr(module, move, failing_at(getattr(module, move)))
    with pytest.raises(OutputError, match="the disk went away"):
        save_reconstruction(reconstruction(pixel_size=None), tmp_path, overwrite=True)
    assert contents(tmp_path) == before


def test_file_systems_without_second_names_will_do(tmp_path, monkeypatch, plain_pictures):
    save_reconstruction(reconstruction(), tmp_path)

    def unsupported(*_, **__):
        raise OSError(errno.EPERM, "not supported")

    monkeypatch.setattr(os, "link", unsupported)
    save_reconstruction(reconstruction(pixel_size=None), tmp_path, overwrite=True)
    assert load_reconstruction(tmp_path).pixel_size is None
    assert set(contents(tmp_path)) == {RECORD, *RESULT_FILES}


def test_a_real_limit_on_file_size_is_reported_in_one_sentence(tmp_path):
    """The operating system refuses to write on: HDF5 and zip must both report it, and leave nothing."""
    pytest.importorskip("resource")
    code = """
import resource, signal, sys
from ptycho.errors import OutputError
from ptycho.workflows.results import Reconstruction, save_reconstruction
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
result = Reconstruction(np.random.default_rng(0).normal(size=(300, 300)) + 1j, np.ones((300, 300)), (0, 0),
                        np.ones((4, 2)), np.ones((1, 16, 16)))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save_reconstruction(result, sys.argv[1])
except OutputError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True, timeout=120
    )
    assert "cannot be saved" in done.stdout
    assert "nothing was left behind" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_is_refused(tmp_path, plain_pictures):
    (tmp_path / "file").write_text("not a folder")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="cannot be saved in"):
            save_reconstruction(reconstruction(), out)
    assert contents(tmp_path) == {"file": b"not a folder"}


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, plain_pictures):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_npz", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_reconstruction(reconstruction(), tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_reconstruction_are_refused(tmp_path, plain_pictures):
    with pytest.raises(DataError, match="does not exist"):
        load_reconstruction(tmp_path / "nothing.h5")
    with pytest.raises(DataError, match=r"holds no reconstruction\.h5"):
        load_reconstruction(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as an HDF5 file"):
        load_reconstruction(tmp_path / "text.h5")
    np.savez(tmp_path / "other.npz", object=np.ones(3))
    with pytest.raises(DataError, match="is not a reconstruction"):
        load_reconstruction(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", object=np.asarray([{"a": 1}], dtype=object), format="ptychopinn-reconstruction")
    with pytest.raises(DataError, match="an array of Python objects, which is refused"):
        load_reconstruction(tmp_path / "pickle.npz")


def test_damaged_and_future_files_are_refused(tmp_path, plain_pictures):
    save_reconstruction(reconstruction(), tmp_path)
    path = tmp_path / "reconstruction.h5"
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(DataError, match="format version 99"):
        load_reconstruction(path)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 1
        del file["probe"]
    with pytest.raises(DataError, match="lacks 'probe'"):
        load_reconstruction(path)
    whole = (tmp_path / "reconstruction.npz").read_bytes()
    (tmp_path / "reconstruction.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_reconstruction(tmp_path / "reconstruction.npz")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("object", np.ones(5), "object: got float64 of shape"),
        ("weight", np.ones((3, 3)), "weight: got shape"),
        ("weight", np.ones((40, 48)) * 1j, "weight: got complex128"),
        ("positions", np.ones((4, 3)), "positions: got shape"),
        ("probe", np.ones((16, 16)), "probe: got"),
        ("truth", np.ones((2, 2)), "truth: got shape"),
        ("measured", np.asarray([[["a"]]]), "measured: got"),
        ("measured", np.ones((2, 8, 8)), "measured: got shape"),
        ("predicted", np.ones((3, 16, 16)), "predicted: got 3 patterns"),
        ("mask", np.ones((8, 8), bool), "mask: got shape"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused(name, value, match):
    with pytest.raises(DataError, match=match):
        reconstruction(**{name: value})


def test_provenance_says_what_where_and_with_what():
    @dataclass
    class Inner:
        width: np.int64

    @dataclass
    class Config:
        inner: Inner
        path: Path
        rate: float

    scan = Scan(np.ones((3, 16, 16), np.uint16), "counts", np.zeros((3, 2)), name="demo")
    origin = provenance(Config(Inner(np.int64(4)), Path("a/b"), float("inf")), scan, 7, "ptycho run demo.npz")
    assert json.loads(json.dumps(origin, allow_nan=False)) == origin
    assert origin["config"] == {"inner": {"width": 4}, "path": "a/b", "rate": "inf"}
    assert origin["data"]["sha256"] == scan.fingerprint()
    assert (origin["data"]["patterns"], origin["data"]["measurement"]) == (3, "counts")
    assert origin["seed"] == 7
    assert origin["command"] == "ptycho run demo.npz"
    assert origin["versions"]["numpy"] == np.__version__
    assert "ptychopinn" in origin["versions"]
    assert origin["created"].endswith("+00:00")
    assert provenance(None, None, None, None)["data"] == {}
