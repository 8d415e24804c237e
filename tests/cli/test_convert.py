"""`ptycho convert`: from any format to any other, whole or not at all."""

import os
import sys
import zipfile

import h5py
import numpy as np
import pytest

from ptycho.data import load_scan
from tests.cli.test_bad_input import limited_files
from tests.data.test_files import assert_same

GEOMETRY = ("--wavelength", "1e-10", "--distance", "1.5", "--detector-pixel-size", "75e-6")


def test_around_through_every_format(ptycho, scan_path, simulation):
    pytest.importorskip("zarr")
    outcome = ptycho("convert", scan_path, "a.cxi", *GEOMETRY)
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert f"patterns {len(simulation)} of 64 x 64, counts" in outcome.out
    assert outcome.figure("format") == "cxi"
    assert outcome.figure("saved") == "a.cxi"
    for source, target in (("a.cxi", "b.nxs"), ("b.nxs", "c.h5"), ("c.h5", "d.zarr"), ("d.zarr", "e.npz")):
        outcome = ptycho("convert", source, target)
        assert outcome.code == 0, outcome
    last = load_scan(ptycho.folder / "e.npz")
    expected = simulation.replace(wavelength=1e-10, distance=1.5, detector_pixel_size=75e-6)
    assert_same(last, expected.replace(name=last.name))
    assert sorted(os.listdir(ptycho.folder)) == ["a.cxi", "b.nxs", "c.h5", "d.zarr", "e.npz"]


def test_what_is_lost_is_said(ptycho, scan_path):
    outcome = ptycho("convert", scan_path, "a.cxi", "--pixel-size", "1e-8")
    assert "note Wavelength, distance or detector pixel are not known" in outcome.out
    assert "note Scan numbers and metadata are kept where only this library looks." in outcome.out


def test_amplitudes_for_ptychopinn(ptycho, scan_path, simulation):
    assert ptycho("convert", scan_path, "a.npz", "--write-as", "amplitude").code == 0
    with np.load(ptycho.folder / "a.npz") as file:
        np.testing.assert_allclose(file["diff3d"] ** 2, simulation.counts(), rtol=1e-5)
    assert ptycho("convert", "a.npz", "b.npz", "--write-as", "counts").code == 0
    np.testing.assert_allclose(load_scan(ptycho.folder / "b.npz").counts(), simulation.counts(), rtol=1e-5)


def test_reading_options_apply(ptycho, scan_path, simulation):
    outcome = ptycho("convert", scan_path, "a.npz", "--crop", 32, "--orientation", "transpose")
    assert outcome.code == 0, outcome
    np.testing.assert_allclose(load_scan(ptycho.folder / "a.npz").positions, simulation.positions[:, ::-1] / 2)


def test_the_format_may_be_named(ptycho, scan_path):
    assert ptycho("convert", scan_path, "a.npz", "--to", "ptychodus-npz", "--pixel_size", "1e-8").code == 0
    assert load_scan(ptycho.folder / "a.npz", format="ptychodus-npz").pixel_size == 1e-8


def test_force_replaces_and_nothing_else_does(ptycho, refused, scan_path):
    (ptycho.folder / "a.npz").write_text("precious")
    assert "a.npz exists already" in refused("convert", scan_path, "a.npz")
    assert (ptycho.folder / "a.npz").read_text() == "precious"
    assert ptycho("convert", scan_path, "a.npz", "--force").code == 0
    assert len(load_scan(ptycho.folder / "a.npz")) == len(load_scan(scan_path))


def test_a_file_may_become_itself(ptycho, scan_path):
    assert ptycho("convert", scan_path, "a.h5", *GEOMETRY).code == 0
    before = load_scan(ptycho.folder / "a.h5").fingerprint()
    assert ptycho("convert", "a.h5", "a.h5", "--force").code == 0
    assert load_scan(ptycho.folder / "a.h5").fingerprint() == before


def test_metres_without_a_pixel_ask_for_it(ptycho, refused, scan_path):
    assert "--pixel-size" in refused("convert", scan_path, "a.cxi")
    assert ptycho("convert", scan_path, "a.cxi", *GEOMETRY).code == 0
    with h5py.File(ptycho.folder / "a.cxi", "a") as file:
        del file["entry_1/ptychopinn"], file["entry_1/instrument_1/detector_1/distance"]
        if "ptychodus" in file["entry_1"]:
            del file["entry_1/ptychodus"]
    for command in (("inspect",), ("convert",), ("doctor",), ("run",)):
        words = (*command, "a.cxi", "b.npz") if command == ("convert",) else (*command, "a.cxi")
        sentence = refused(*words)
        assert "the positions are in metres and the object's pixel is not known; give it with --pixel-size" in sentence
    assert ptycho("convert", "a.cxi", "b.npz", "--pixel-size", "3.1e-8").code == 0


BAD = [
    (("a.dat",), "does not say by its ending in which format to write; known are"),
    (("a.npz", "--to", "jpeg"), "format: 'jpeg' given, one of cxi, nexus"),
    (("none/a.npz",), "there is no folder none"),
    (("a.npz", "--pixel-size", "-1"), "pixel_size = -1.0 is not possible"),
    (("a.npz", "--beam-centre", "middle"), "beam_centre = middle is not possible: expected ROW,COLUMN"),
    (("a.npz", "--orientation", "sideways"), "orientation = sideways is not possible"),
    (("a.npz", "--patterns-file", "b.h5"), "unknown option patterns_file; for ptychopinn-npz"),
    (("a.npz", "--write-as", "colour"), "write_as = colour is not possible"),
    ((), "'ptycho convert' needs TARGET"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[message[:25] for _, message in BAD])
def test_bad_words_are_refused(refused, scan_path, words, message):
    assert message in refused("convert", scan_path, *words)


def test_bad_files_are_refused(refused, scan_path, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    whole = scan_path.read_bytes()
    (bad / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (bad / "cut.cxi").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(300))
    (bad / "noise.h5").write_bytes(os.urandom(2000))
    with zipfile.ZipFile(bad / "bomb.npz", "w") as archive:
        archive.writestr(
            "diff3d.npy",
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1024, 1024), }".ljust(117)
            + b"\n",
        )
    with h5py.File(bad / "linked.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = h5py.ExternalLink("/etc/passwd", "/")
    trap = np.empty((1,), object)
    trap[0] = {"a": 1}
    np.savez(bad / "object.npz", xcoords=trap, ycoords=trap, diff3d=trap)
    (bad / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(500))
    (bad / "broken.zarr").mkdir()
    (bad / "broken.zarr" / ".zgroup").write_text("{")
    for path in sorted(bad.iterdir()):
        sentence = refused("convert", path, "a.npz")
        assert path.name in sentence


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform == "win32", reason="root may write anywhere")
def test_a_folder_without_permission(refused, ptycho, scan_path):
    locked = ptycho.folder / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot be written: Permission denied" in refused("convert", scan_path, locked / "a.npz")


def test_a_full_disk_leaves_nothing(refused, scan_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs Linux")
    for name in ("a.npz", "a.h5", "a.cxi", "a.nxs"):
        sentence = refused("convert", scan_path, name, *GEOMETRY, preparation=limited_files(20_000))
        assert f"{name} cannot be written" in sentence


def test_a_kill_leaves_the_old_file_whole(ptycho, scan_path):
    """The target is replaced by a rename at the end, so a kill at any moment leaves the old or the new."""
    import subprocess
    import time

    from tests.cli.conftest import COMMAND, ROOT

    target = ptycho.folder / "a.h5"
    assert ptycho("convert", scan_path, target, *GEOMETRY).code == 0
    before = target.read_bytes()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shims'}"}
    for delay in (0.4, 0.7, 0.9):
        words = [*COMMAND, "convert", str(scan_path), str(target), "--force", *GEOMETRY]
        running = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        running.kill()
        running.wait()
        assert target.read_bytes() == before
