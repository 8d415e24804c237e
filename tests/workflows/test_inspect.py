"""What an inspection says about good and bad scans."""

import re

import numpy as np
import pytest

from ptycho.data import Scan
from ptycho.errors import OutputError
from ptycho.workflows.inspect import draw_inspection, inspect_scan
from ptycho.workflows.simulate import SimulationConfig, simulate_scan


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=120, N=64, positions="raster", step=6, jitter=1, nphotons=1e5))


def test_a_good_scan_has_no_problems(scan):
    found = inspect_scan(scan)
    assert found.problems == []
    assert found.numbers["counts_mean"] == pytest.approx(1e5, rel=0.01)
    assert found.numbers["spacing"] == pytest.approx(6, abs=1.5)
    assert found.numbers["probe_power"] == pytest.approx((np.abs(scan.probe) ** 2).sum(), rel=1e-5)
    # A blurred disc of 0.34 x 64 pixels diameter.
    assert found.numbers["probe_diameter"] == pytest.approx(0.34 * 64, rel=0.1)
    assert found.numbers["overlap"] == pytest.approx(1 - found.numbers["spacing"] / found.numbers["probe_diameter"])
    np.testing.assert_allclose(found.mean_counts, scan.counts().mean(axis=0), rtol=1e-5)
    text = "\n".join(found.lines())
    assert "64 x 64, uint32, counts" in text
    assert "problems" in text
    assert "none found" in text


def test_numbers_do_not_depend_on_chunks(scan, monkeypatch):
    whole = inspect_scan(scan)
    monkeypatch.setattr("ptycho.data.scan._CHUNK_BYTES", 64 * 64 * 4 * 7)
    pieces = inspect_scan(scan)
    assert pieces.numbers == pytest.approx(whole.numbers)


def damaged(scan, kind):
    counts = scan.patterns.astype(np.float64)
    if kind == "fftshifted":
        return scan.replace(patterns=np.fft.fftshift(counts, axes=(1, 2)))
    if kind == "off centre":
        return scan.replace(patterns=np.roll(counts, 5, axis=1))
    if kind == "hot pixel":
        counts[:, 3, 60] = 500
        return scan.replace(patterns=counts)
    if kind == "saturated":
        return scan.replace(patterns=np.minimum(counts, 200))
    if kind == "scaled":
        return scan.replace(patterns=counts * 0.37)
    if kind == "integer amplitudes":
        return scan.replace(measurement="amplitude")
    if kind == "dark":
        counts[4] = 0
        return scan.replace(patterns=counts)
    if kind == "duplicates":
        positions = scan.positions.copy()
        positions[1] = positions[0]
        return scan.replace(positions=positions)
    if kind == "no overlap":
        return scan.replace(positions=scan.positions * 4, object=None, object_origin=None)
    if kind == "no probe":
        return scan.replace(probe=None)
    if kind == "low dose":
        return scan.replace(patterns=(counts / 200).round())
    return scan.replace(probe=np.roll(scan.probe, 12, axis=1))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fftshifted", "zero frequency at .0, 0."),
        ("off centre", r"\+5\.\d rows"),
        ("hot pixel", r"1 pixels outshine .*\(3, 60\)"),
        ("saturated", "maximum of 200 counts: the detector seems saturated"),
        ("scaled", "no whole numbers"),
        ("integer amplitudes", "--measurement counts"),
        ("dark", "1 patterns hold no photon"),
        ("duplicates", "2 positions coincide"),
        ("no overlap", "overlap by [01]?[0-9]%"),
        ("no probe", "There is no probe"),
        ("low dose", "photons on average"),
        ("probe off centre", r"The probe lies 12\.\d pixels off"),
    ],
)
def test_problems_are_named(scan, kind, words):
    problems = inspect_scan(damaged(scan, kind)).problems
    assert any(re.search(words, problem) for problem in problems), problems


def test_a_masked_hot_pixel_is_no_problem(scan):
    mask = np.ones((64, 64), bool)
    mask[3, 60] = False
    found = inspect_scan(damaged(scan, "hot pixel").replace(mask=mask))
    assert found.problems == []
    assert found.numbers["bad_pixels"] == 1


def test_a_size_without_network():
    patterns = np.random.default_rng(0).poisson(5, (9, 96, 96)).astype(np.uint16)
    scan = Scan(patterns=patterns, measurement="counts", positions=np.random.default_rng(1).uniform(0, 9, (9, 2)))
    assert any("not 96: use --crop 64" in problem for problem in inspect_scan(scan).problems)


def test_picture(scan, tmp_path):
    draw_inspection(scan, inspect_scan(scan), tmp_path / "scan.png")
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    without = scan.replace(probe=None)
    draw_inspection(without, inspect_scan(without), tmp_path / "scan.png", overwrite=True)
    with pytest.raises(OutputError):
        draw_inspection(scan, inspect_scan(scan), tmp_path / "absent" / "scan.png")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.png"]


def test_measured_scan(scan_file):
    from ptycho.data import load_scan

    found = inspect_scan(load_scan(scan_file))
    assert found.problems == []
    assert found.numbers["counts_mean"] == pytest.approx(4.61e5, rel=1e-3)
    assert found.numbers["pixel_max"] == 963
    assert found.numbers["zeros"] == pytest.approx(0.52, abs=0.01)
    assert found.numbers["spacing"] == pytest.approx(9.0, abs=0.1)
