"""`view` reads a scan as it was read for the result, without following what a result says of files and commands."""

import os

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.workflows.result_files import read_provenance
from ptycho.workflows.scans import ScanOptions, names_of_files, reading_of, recorded_reading


def test_a_record_gives_the_same_options():
    options = ScanOptions(bin=2, crop=32, wavelength=1e-10, region="0:5,:", fftshift=True)
    assert reading_of(recorded_reading(options), {}) == (options, {})
    assert recorded_reading(ScanOptions()) == {"options": {}, "files": {}}


def test_files_are_left_out_and_listed(tmp_path):
    assert {"patterns_file", "data_dirs"} <= names_of_files()
    options = ScanOptions(crop=32, patterns_file=tmp_path / "p.h5", data_dirs=(tmp_path, tmp_path / "b"))
    found, left_out = reading_of(recorded_reading(options), {})
    assert found == ScanOptions(crop=32)
    assert set(left_out) == {"patterns_file", "data_dirs"}
    assert str(tmp_path / "p.h5") in left_out["patterns_file"]
    found, left_out = reading_of(recorded_reading(options), {"patterns_file": tmp_path / "p.h5", "crop": 16})
    assert found == ScanOptions(crop=16, patterns_file=tmp_path / "p.h5")
    assert set(left_out) == {"data_dirs"}


def test_a_file_among_the_options_is_not_followed():
    for name in names_of_files():
        found, _ = reading_of({"options": {name: "/dev/zero", "crop": 32}, "files": {}}, {})
        assert found == ScanOptions(crop=32)


@pytest.mark.parametrize(
    "recorded",
    [
        3,
        "x",
        [],
        {"options": 3},
        {"files": []},
        {"options": {"config": "/dev/zero"}},
        {"options": {"crop": "x"}},
        {"options": {"crop": -1}},
        {"options": {"crop": [1]}},
        {"options": {"orientation": {}}},
        {"options": {"bin": 10**400}},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(recorded):
    with pytest.raises(DataError):
        reading_of(recorded, {})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**5,
        '{"a":' * 10**5,
        '{"a":' * 500 + "1" + "}" * 500,
        "[]",
        "3",
        '{"data": [1]}',
        '{"config": "x"}',
        '{"reading": 3}',
        '{"versions": []}',
        '{"n": ' + "9" * 6000 + "}",
        "\x00",
    ],
    ids=range(11),
)
def test_a_provenance_of_another_form_is_refused(text):
    with pytest.raises(DataError):
        read_provenance(text)


@pytest.mark.parametrize("word", ["--config=/dev/zero", "--patterns_file=/dev/zero", "--help"])
def test_the_command_of_an_earlier_result_is_not_followed(word, monkeypatch):
    from types import SimpleNamespace

    from ptycho.cli import live_page
    from ptycho.cli.options import parse

    call = parse("view", ["result"])
    opened = []
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path))
    result = SimpleNamespace(provenance={"command": f"ptycho run {word} --crop 32"}, object=np.ones(1))
    assert live_page._as_it_was_read(call, result) == ScanOptions()
    assert opened == []
