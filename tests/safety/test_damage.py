"""Every loader, on files cut short at every percent and with a byte flipped: a sentence, or the same content."""

import random
import subprocess
import sys

import pytest

from ptycho.data.readers.registry import available_readers
from ptycho.errors import DataError
from tests.safety.samples import LOADERS, SCANS

FILES = [name for name in LOADERS if name != "zarr"]
UNCHECKED = ("ptychoshelves", "ptyd")
"""HDF5 as other programs write it has no checksums; this library's HDF5 files have them everywhere that is read."""

# A damaged field may look like one that is left out, or like one that this library finds odd; it says so in the log.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def test_every_reader_has_a_sample():
    assert set(available_readers()) <= {name.removesuffix(".bz2") for name in SCANS}


def outcome(whole, content, folder, watch):
    """The digest of what a file of this content gives, or None where it is refused by one sentence."""
    target = folder / whole.path.name
    target.write_bytes(content)
    return read(whole, target, watch)


def read(whole, target, watch):
    """The digest of what a file gives, or None where it is refused by one sentence; nothing else happens."""
    with watch.watching():
        try:
            return whole.loader.load(target)
        except DataError as error:
            refusal = str(error)
    assert refusal
    assert "\n" not in refusal
    return None


@pytest.mark.parametrize("name", FILES)
def test_cut_short_at_every_percent(name, sample, tmp_path, watch):
    whole = sample(name)
    for percent in range(100):
        part = whole.whole[: len(whole.whole) * percent // 100]
        assert outcome(whole, part, tmp_path, watch) is None, percent


def places(size, count=60):
    """Where a byte is flipped: the beginning, the end, and anywhere."""
    rng = random.Random(size)
    return sorted({*range(0, min(size, 64), 5), *range(max(0, size - 400), size, 9), *rng.sample(range(size), count)})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("bits", [0xFF, 0x01])
def test_one_flipped_byte_is_told_or_changes_nothing(name, bits, sample, tmp_path, watch):
    """Of files without checksums: is told or read."""
    whole, told = sample(name), 0
    for at in places(len(whole.whole)):
        content = bytearray(whole.whole)
        content[at] ^= bits
        loaded = outcome(whole, content, tmp_path, watch)
        told += loaded is None
        assert loaded in (None, whole.good) or name in UNCHECKED, at
    assert told > 10


@pytest.mark.parametrize("bits", [0xFF, 0x01])
def test_one_flipped_byte_in_a_store(bits, sample, tmp_path, watch):
    """Of the pieces of its arrays: is told. Its descriptions are plain text that people edit, and have no checksums."""
    whole = sample("zarr")
    files = {str(path.relative_to(whole.path)): path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}
    store = tmp_path / whole.path.name
    for name, content in files.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)
    assert whole.loader.load(store) == whole.good
    for name, content in files.items():
        for at in range(0, len(content), max(1, len(content) // 20)):
            changed = bytearray(content)
            changed[at] ^= bits
            (store / name).write_bytes(changed)
            assert read(whole, store, watch) in (None, whole.good) or "/." in f"/{name}", (name, at)
        (store / name).write_bytes(content)


_CRASHES = """
import sys
from pathlib import Path
import h5py
from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.errors import DataError

path, told = Path(sys.argv[1]), 0
with h5py.File(path, "w", libver="v110") as file:
    for number in range(40):
        file[f"dataset{number}"] = number
whole = path.read_bytes()
for at in [place + step for mark in (b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"OHDR")
           for place in range(len(whole)) if whole.startswith(mark, place) for step in range(0, 200, 7)]:
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
    try:
        with Hdf5File(path) as h5:
            assert len(h5.names()) == 40 and h5.groups() == {}
    except DataError:
        told += 1
print(told)
"""


def test_a_large_group_does_not_crash_hdf5(tmp_path):
    """In a process of its own: where the links of a group are damaged, HDF5's own listing ends with the process."""
    done = subprocess.run(
        [sys.executable, "-c", _CRASHES, str(tmp_path / "links.h5")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 100
