"""A mapped file that is truncated while it is read ends in the library's error, not in SIGBUS."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ptycho.data import load_scan, scan_from_arrays
from ptycho.data.lazy import ArraySource
from ptycho.data.mapped import read_mapped
from ptycho.data.readers import npz
from ptycho.errors import DataError
from tests.safety.test_kills import ENVIRONMENT

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="reads mapped files by preadv")
M, N = 300, 32
_rng = np.random.default_rng(0)
PATTERNS = _rng.integers(1, 1000, (M, N, N)).astype(np.uint16)
POSITIONS = _rng.uniform(0, 60, (M, 2))


def write_npz(path, key="diff3d", patterns=PATTERNS, order="C"):
    x, y = POSITIONS.T
    probe = np.ones((N, N), np.complex64)
    np.savez(path, xcoords=x, ycoords=y, probeGuess=probe, **{key: np.asarray(patterns, order=order)})
    return path


def write_tike(path):
    patterns = np.fft.ifftshift(PATTERNS, axes=(-2, -1))
    np.savez(path, data=patterns, scan=POSITIONS.astype(np.float32), probe=np.ones((1, 1, N, N), np.complex64))
    return path


@pytest.fixture
def always_mapped(monkeypatch):
    monkeypatch.setattr(npz, "MAP_FROM_BYTES", 1)


def opened(kind, folder):
    """A scan of a mapped file, and the file."""
    if kind == "npy":
        np.save(folder / "p.npy", PATTERNS)
        mapped = np.load(folder / "p.npy", mmap_mode="r")
        return scan_from_arrays(mapped, POSITIONS, measurement="counts"), folder / "p.npy"
    if kind == "raw":
        PATTERNS.tofile(folder / "p.raw")
        mapped = np.memmap(folder / "p.raw", np.uint16, "r", 0, PATTERNS.shape)
        return scan_from_arrays(mapped, POSITIONS, measurement="counts"), folder / "p.raw"
    path = folder / "scan.npz"
    (write_tike if kind == "tike" else write_npz)(path)
    return load_scan(path, measurement="counts"), path


@pytest.mark.parametrize("kind", ["npz", "tike", "npy", "raw"])
@pytest.mark.parametrize("left", [0, 0.3, 0.9])
def test_a_truncated_file(kind, left, tmp_path, always_mapped):
    scan, path = opened(kind, tmp_path)
    np.testing.assert_array_equal(scan.patterns[[7, 3, 250]], PATTERNS[[7, 3, 250]])
    os.truncate(path, int(left * path.stat().st_size))
    with pytest.raises(DataError, match=r"p\.npy|p\.raw|scan\.npz.* was truncated while it was read"):
        scan.patterns[:]


@pytest.mark.parametrize(
    "window", [(), (slice(4, 20), slice(3, 30)), (slice(None), slice(5, 9)), (slice(31, 32), slice(0, 1))]
)
@pytest.mark.parametrize("shape", ["(M, N, N)", "(N, N, M)", "fortran"])
def test_values_are_those_of_the_map(window, shape, tmp_path, monkeypatch):
    stored = np.moveaxis(PATTERNS, 0, 2) if shape == "(N, N, M)" else PATTERNS
    np.save(tmp_path / "p.npy", np.asarray(stored, order="F" if shape == "fortran" else "C"))
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    view = np.moveaxis(mapped, 2, 0) if shape == "(N, N, M)" else mapped
    for most in (2**22, 1000, 1):  # in one piece, frame by frame, element by element
        monkeypatch.setattr("ptycho.data.mapped._AT_ONCE_BYTES", most)
        some = slice(3, 17)
        np.testing.assert_array_equal(ArraySource(view).read((some, *window)), PATTERNS[(some, *window)])
    np.testing.assert_array_equal(read_mapped(view[5:40:7, ::-1]), PATTERNS[5:40:7, ::-1])


@pytest.mark.parametrize("key", ["diff3d", "diffraction"])
def test_older_layouts(key, tmp_path, always_mapped):
    patterns = np.moveaxis(PATTERNS, 0, 2) if key == "diffraction" else PATTERNS
    scan = load_scan(write_npz(tmp_path / "scan.npz", key, patterns), measurement="counts")
    np.testing.assert_array_equal(scan.patterns[:], PATTERNS)


def test_changes_in_memory_are_kept(tmp_path):
    """A map opened as copy-on-write differs from its file."""
    np.save(tmp_path / "p.npy", PATTERNS)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="c")
    mapped[3] = 7
    assert (ArraySource(mapped).read((slice(3, 4),)) == 7).all()


def test_a_command(tmp_path):
    """The real one, whose scan is truncated between two of its reads."""
    write_npz(tmp_path / "scan.npz")
    program = f"""
import os, sys
from ptycho.cli import main
from ptycho.data import lazy
from ptycho.data.readers import npz
npz.MAP_FROM_BYTES, read = 1, lazy.ArraySource.read
def truncated(self, part):
    os.truncate({str(tmp_path / "scan.npz")!r}, 100_000)
    return read(self, part)
lazy.ArraySource.read = truncated
sys.exit(main(["inspect", {str(tmp_path / "scan.npz")!r}, "--measurement", "counts"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "was truncated while it was read" in done.stderr
