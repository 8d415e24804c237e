"""A reconstruction is kept whole or not at all, comes back exactly, and is read without a pickle."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.image import imread

from ptycho.config import TrainingConfig
from ptycho.errors import DataError, OutputError
from ptycho.evaluation import fourier_ring_correlation
from ptycho.workflows import result_files
from ptycho.workflows.results import (
    RESULT_FILES,
    Reconstruction,
    _flat,
    load_reconstruction,
    provenance,
    save_reconstruction,
)

SIDE = 40


@pytest.fixture
def plain_pictures(monkeypatch):
    """Pictures that need no drawing, where the test is not about them."""
    names = ("amplitude", "phase", "complex", "probe")
    monkeypatch.setattr("ptycho.workflows.report.draw_pictures", lambda _: dict.fromkeys(names, b"a picture"))


def reconstruction(seed: int = 0, side: int = SIDE, **options) -> Reconstruction:
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(3, side, side)) + 1j * rng.normal(size=(3, side, side))
    rows, cols = np.indices((side, side)) - side / 2
    weight = np.where(np.hypot(rows, cols) < 0.4 * side, 2.0, 0.0)
    values = {
        "object": np.where(weight > 0, 1 + 0.1 * waves[0], 1) * np.exp(0.05j * rows),
        "weight": weight,
        "origin": (-3.25, 7.5),
        "positions": rng.uniform(5, 20, (9, 2)),
        "probe": waves[1:, :8, :8],
        "pixel_size": 9e-9,
        "history": {"loss": [3.0, 1.5, 0.1], "val_loss": [4.0, 2.0, 1.0]},
        "provenance": {"seed": 3, "config": {"N": 8, "tags": ["α", None]}, "command": "ptycho run <x>"},
        "figures": {"r_factor": 0.123456789},
        "measured": np.abs(waves[:2, :8, :8]),
        "predicted": np.abs(waves[1:, :8, :8]),
        "frc": {"phase": fourier_ring_correlation(waves[0].real, waves[1].real, pixel_size=9e-9)},
    }
    return Reconstruction(**(values | options))


def assert_same(ours: Reconstruction, theirs: Reconstruction) -> None:
    for name in ("object", "weight", "positions", "probe", "measured", "predicted"):
        first, second = getattr(ours, name), getattr(theirs, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype, name
            np.testing.assert_array_equal(first, second, err_msg=name)
    for name in ("origin", "pixel_size", "history", "figures", "provenance"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.frc.keys() == theirs.frc.keys()
    for name, curve in ours.frc.items():
        np.testing.assert_array_equal(curve.correlation, theirs.frc[name].correlation)
        np.testing.assert_array_equal(curve.half_bit, theirs.frc[name].half_bit)
        assert curve.pixel_size == theirs.frc[name].pixel_size


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NAMES = st.text("abcdefghij_0.", min_size=1, max_size=8).filter(lambda name: name.strip("."))
NUMBERS = st.floats(allow_nan=False)


@settings(max_examples=20)
@given(
    image=hnp.arrays(np.complex64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    origin=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    pixel_size=st.none() | st.floats(1e-12, 1e-3),
    history=st.dictionaries(NAMES, st.lists(NUMBERS, max_size=4), max_size=3),
    figures=st.dictionaries(NAMES, NUMBERS, max_size=3),
    patterns=st.booleans(),
    kind=st.sampled_from(["h5", "npz"]),
)
def test_any_reconstruction_comes_back_exactly(
    tmp_path_factory, image, origin, pixel_size, history, figures, patterns, kind
):
    ours = reconstruction(
        object=image,
        weight=np.ones(image.shape),
        origin=origin,
        pixel_size=pixel_size,
        history=history,
        frc={},
        figures=figures,
        **({} if patterns else {"measured": None, "predicted": None}),
    )
    path = tmp_path_factory.mktemp("round") / f"reconstruction.{kind}"
    (result_files.write_hdf5 if kind == "h5" else result_files.write_npz)(path, _flat(ours))
    assert_same(load_reconstruction(path), ours)


def test_saved_result_loads_from_folder_and_from_both_files(tmp_path):
    ours, out = reconstruction(), tmp_path / "deep" / "out"
    save_reconstruction(ours, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULT_FILES)
    for name in (".", "reconstruction.h5", "reconstruction.npz"):
        assert_same(load_reconstruction(out / name), ours)
    for name in ("amplitude", "phase", "complex", "probe"):
        assert np.ptp(imread(out / f"{name}.png")[..., :3]) > 0.3


def test_hdf5_says_units_and_axes(tmp_path, plain_pictures):
    save_reconstruction(reconstruction(), tmp_path)
    with h5py.File(tmp_path / "reconstruction.h5") as file:
        assert file["pixel_size"].attrs["units"] == "metre"
        assert file["positions"].attrs["units"] == "pixel"
        assert file["probe"].attrs["units"] == "sqrt(photon)"
        assert file["object"].attrs["axes"] == "row, column"
        assert all("units" in item.attrs for item in file.values() if isinstance(item, h5py.Dataset))


def test_tiffs_are_float_images_with_the_ramp_off_the_phase(tmp_path, plain_pictures):
    rows, cols = np.indices((SIDE, SIDE))
    phase = 0.3 * np.sin(2 * np.pi * rows / 10) * np.sin(2 * np.pi * cols / 10)
    ramp = 1.0 + 0.2 * rows - 0.1 * cols
    weight = np.ones((SIDE, SIDE))
    weight[:2] = 0
    save_reconstruction(
        reconstruction(object=0.7 * np.exp(1j * (phase + ramp)), weight=weight, origin=(0, 0)), tmp_path
    )
    amplitude, shown = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("amplitude", "phase"))
    assert amplitude.dtype == shown.dtype == np.float32
    assert np.all(np.isnan(shown[:2]))
    assert not np.any(np.isnan(shown[2:]))
    np.testing.assert_allclose(amplitude[2:], 0.7, rtol=1e-6)
    difference = shown[2:] - phase[2:]
    assert np.ptp(difference) < 0.05
    with tifffile.TiffFile(tmp_path / "phase.tif") as file:
        across = file.pages[0].tags["XResolution"].value
    assert across[0] / across[1] == pytest.approx(0.01 / 9e-9, rel=1e-3)


def test_earlier_result_is_refused_and_replaced_only_by_force(tmp_path, plain_pictures):
    save_reconstruction(reconstruction(1), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        save_reconstruction(reconstruction(2), tmp_path)
    assert contents(tmp_path) == before
    save_reconstruction(reconstruction(2), tmp_path, force=True)
    assert_same(load_reconstruction(tmp_path), reconstruction(2))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("writer", ["write_hdf5", "write_npz", "write_tiff"])
def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch, plain_pictures, writer, earlier):
    out = tmp_path / "deep" / "out"
    if earlier:
        save_reconstruction(reconstruction(1), out)
    before = contents(tmp_path)

    def full(path, *_args, **_options):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"ptycho.workflows.results.{writer}", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_reconstruction(reconstruction(2), out, force=True)
    assert contents(tmp_path) == before
    assert out.exists() == earlier


@pytest.mark.parametrize("size", [2_000, 12_000, 60_000])
def test_limit_of_the_file_system_leaves_nothing(tmp_path, plain_pictures, size):
    """The kernel itself refuses to let files grow, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(OutputError, match="cannot be saved"):
            save_reconstruction(reconstruction(side=120), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", range(0, 18, 5))
def test_move_that_fails_is_undone(tmp_path, monkeypatch, plain_pictures, broken):
    save_reconstruction(reconstruction(1), tmp_path)
    before = contents(tmp_path)
    real, calls = os.replace, iter(range(1000))

    def replace(source, target, **options):
        if next(calls) == broken:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target, **options)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OutputError, match="Input/output error"):
        save_reconstruction(reconstruction(2), tmp_path, force=True)
    assert contents(tmp_path) == before


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out"):
        save_reconstruction(reconstruction(), tmp_path / "out")


def test_pickles_are_never_read(tmp_path, plain_pictures):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    save_reconstruction(reconstruction(), tmp_path)
    with np.load(tmp_path / "reconstruction.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    trap = np.empty((), dtype=object)
    trap[()] = Trap()
    np.savez(tmp_path / "trap.npz", **(arrays | {"object": trap}))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npz", "bare.npz"):
        with pytest.raises(DataError, match=name):
            load_reconstruction(tmp_path / name)


@pytest.mark.parametrize("name", ["reconstruction.h5", "reconstruction.npz"])
def test_damaged_and_foreign_files_are_refused(tmp_path, plain_pictures, name):
    save_reconstruction(reconstruction(), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=name):
        load_reconstruction(tmp_path / name)
    np.savez(tmp_path / "other.npz", object=np.ones((3, 3)))
    for other in ("other.npz", "absent.h5"):
        with pytest.raises(DataError, match=other):
            load_reconstruction(tmp_path / other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no"):
        load_reconstruction(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("object", np.ones(5)),
        ("weight", np.ones((SIDE, SIDE + 1))),
        ("positions", np.ones((4, 3))),
        ("probe", np.ones((8, 8))),
        ("measured", np.ones((8, 8))),
    ],
)
def test_arrays_that_do_not_belong_together_are_named(name, value):
    with pytest.raises(DataError, match=name):
        reconstruction(**{name: value})


def test_provenance_is_plain_and_follows_the_data(small_scan):
    config = TrainingConfig(train_data_file=Path("scan.npz"))
    origin = provenance(config, small_scan, 7, "ptycho run scan.npz")
    assert json.loads(json.dumps(origin)) == origin
    assert origin["data"]["sha256"] == small_scan.fingerprint()
    assert origin["seed"] == 7
    assert origin["config"]["train_data_file"] == "scan.npz"
    assert origin["versions"]["numpy"] == np.__version__
    changed = small_scan.replace(positions=small_scan.positions + 0.01)
    assert provenance(config, changed, 7, "")["data"]["sha256"] != origin["data"]["sha256"]
