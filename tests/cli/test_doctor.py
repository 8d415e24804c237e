"""`ptycho doctor`: each trouble that is put into a scan is found and named; a healthy scan has none."""

import json

import numpy as np
import pytest

from ptycho.data import load_scan, save_npz
from ptycho.data.orientation import ORIENTATIONS, reorient
from ptycho.errors import DataError
from ptycho.workflows.doctor import DoctorOptions, diagnose
from ptycho.workflows.doctor_checks import raster_fraction
from ptycho.workflows.doctor_orientation import try_orientations, twin_of
from ptycho.workflows.simulate import SimulationConfig, simulate_scan


@pytest.fixture(scope="module")
def healthy():
    """A hundred patterns at random positions from a focused probe, which is not its own twin."""
    return simulate_scan(SimulationConfig(size=130, N=64, n_positions=90, probe="focused", nphotons=1e5, seed=1))


QUICK = DoctorOptions(orientations=False)


def problems(scan, options=QUICK):
    return " ".join(diagnose(scan, options).problems)


def changed(scan, change):
    patterns = np.array(scan.patterns)
    return scan.replace(patterns=change(patterns))


def test_a_healthy_scan_has_no_problems(healthy):
    diagnosis = diagnose(healthy, DoctorOptions(patterns=60, passes=6))
    assert diagnosis.problems == []
    assert diagnosis.lines()[-1].split() == ["problems", "none", "found"]
    found = diagnosis.orientations
    assert (found.best, found.twin, found.decided) == ("none", None, True)
    assert set(diagnosis.facts) >= {
        "numbers",
        "saturation",
        "pixels",
        "beam",
        "scale",
        "scan",
        "raster",
        "overlap",
        "dose",
        "positions fit",
    }


def test_amplitudes_taken_for_counts(healthy):
    wrong = healthy.replace(patterns=np.sqrt(healthy.patterns).astype(np.float32))
    assert "use --measurement amplitude" in problems(wrong)
    assert "taken for amplitude, but they are whole numbers" in problems(healthy.replace(measurement="amplitude"))
    right = wrong.replace(measurement="amplitude")
    assert "--measurement" not in problems(right)
    scaled = healthy.replace(patterns=healthy.counts() * 0.37)
    assert "neither whole numbers" in diagnose(scaled, QUICK).facts["numbers"]


def test_saturation(healthy):
    level = int(np.quantile(healthy.patterns, 0.999))
    assert f"saturated: exactly {level} counts" in problems(changed(healthy, lambda p: np.minimum(p, level)))
    full = changed(healthy, lambda p: np.minimum(p, 255))
    assert "the most that 8 bits hold" in problems(full)
    assert "saturated" not in problems(healthy)


def test_hot_and_dead_pixels(healthy):
    middle = np.unravel_index(np.argmax(np.sum(healthy.patterns, axis=0)), (64, 64))

    def spoil(patterns):
        patterns[:, middle[0], middle[1]] = 0
        patterns[:, 3, 5] = 5000
        return patterns

    wrong = changed(healthy, spoil)
    diagnosis = diagnose(wrong, QUICK)
    assert diagnosis.facts["pixels"] == "1 dead, 1 hot, 0 masked"
    assert f"never count although their neighbours do, e.g. {tuple(map(int, middle))}" in " ".join(diagnosis.problems)
    mask = np.ones((64, 64), bool)
    mask[3, 5] = mask[middle] = False
    assert diagnose(wrong.replace(mask=mask), QUICK).facts["pixels"] == "0 dead, 0 hot, 2 masked"


def test_frozen_frames(healthy):
    def freeze(patterns):
        patterns[10:14] = patterns[10]
        return patterns

    assert "3 patterns are exact copies" in problems(changed(healthy, freeze))


def test_beam_and_fftshift(healthy):
    assert "--beam-centre 40,26" in problems(changed(healthy, lambda p: np.roll(p, (8, -6), (1, 2))))
    unshifted = changed(healthy, lambda p: np.fft.ifftshift(p, axes=(1, 2)))
    diagnosis = diagnose(unshifted, DoctorOptions(patterns=60, passes=6))
    assert "use --fftshift" in " ".join(diagnosis.problems)
    assert diagnosis.orientations.best == "none"
    assert "not fftshifted" in diagnose(healthy, QUICK).facts["beam"]


def test_probe_on_other_pixels(healthy):
    coarse = np.zeros_like(healthy.probe)
    coarse[:, 24:40, 24:40] = healthy.probe[:, ::4, ::4]
    assert "times as wide as the probe's far field" in problems(healthy.replace(probe=coarse))
    assert "sampled too coarsely" in problems(healthy.replace(probe=np.ones_like(healthy.probe)))


def test_positions(healthy):
    positions = healthy.positions.copy()
    positions[5:8] = positions[4]
    assert "4 positions coincide" in problems(healthy.replace(positions=positions))
    assert "probably in metres" in problems(healthy.replace(positions=positions * 1e-8))
    assert "All positions are the same" in problems(healthy.replace(positions=np.zeros_like(positions)))
    assert "overlap by 0% of the probe's diameter" in problems(healthy.replace(positions=positions * 20))


def test_raster_pathology():
    rows, columns = np.meshgrid(np.arange(12.0), np.arange(15.0), indexing="ij")
    grid = 7 * np.stack([rows.ravel(), columns.ravel()], axis=-1)
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    skew = np.array([[1.0, 0.5], [0.0, 0.9]])
    for raster in (grid, grid @ turn, grid @ skew, grid + rng.normal(0, 0.05, grid.shape)):
        assert raster_fraction(raster) > 0.95
    angle = np.arange(180) * 2.399963
    spiral = 5 * np.sqrt(np.arange(180))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    for irregular in (grid + rng.uniform(-1.5, 1.5, grid.shape), spiral, rng.uniform(0, 80, (180, 2))):
        assert raster_fraction(irregular) < 0.5
    config = SimulationConfig(size=130, N=64, positions="raster", step=9, nphotons=1e5, probe="focused")
    assert "raster pathology" in problems(simulate_scan(config))


def test_low_dose(healthy):
    rng = np.random.default_rng(0)
    dim = changed(healthy, lambda p: rng.binomial(p.astype(np.int64), 1e-4))
    assert "too few for a sharp picture" in problems(dim)
    assert "Every pattern is dark" in problems(changed(healthy, lambda p: p * 0))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_of_the_measured_scan_is_recognised(scan_file, orientation):
    scan = load_scan(scan_file)
    given = scan.replace(positions=reorient(scan.positions, orientation))
    found = try_orientations(given, patterns=40, passes=4)
    assert found.decided
    assert found.twin is None
    np.testing.assert_allclose(reorient(given.positions, found.best), scan.positions, atol=1e-9)


def test_a_symmetrical_probe_has_a_twin_and_no_probe_decides_nothing():
    made = simulate_scan(SimulationConfig(size=130, N=64, n_positions=90, nphotons=1e5))
    found = try_orientations(made, patterns=60, passes=5)
    assert (found.best, found.twin, found.decided) == ("none", "flip-both", True)
    wrong = made.replace(positions=reorient(made.positions, "transpose-flip-rows"))
    diagnosis = diagnose(wrong, DoctorOptions(patterns=60, passes=5))
    assert {diagnosis.orientations.best, diagnosis.orientations.twin} == {
        "transpose-flip-rows",
        "transpose-flip-columns",
    }
    assert "use --orientation transpose-flip-" in " ".join(diagnosis.problems)
    assert all(twin_of(twin_of(name)) == name != twin_of(name) for name in ORIENTATIONS)
    with pytest.raises(DataError, match="5 patterns are too few to try orientations"):
        try_orientations(made.subset(np.arange(5)))


def test_without_a_probe_the_doctor_admits_it(healthy):
    dim = healthy.replace(probe=None, positions=np.random.default_rng(0).permutation(healthy.positions))
    diagnosis = diagnose(dim, DoctorOptions(patterns=40, passes=3))
    assert not diagnosis.orientations.decided
    assert "cannot be told apart (there is no probe in the file)" in " ".join(diagnosis.problems)
    assert "guessed from the mean pattern" in diagnosis.facts["overlap"]


def test_the_command_says_and_draws_it(ptycho, healthy, tmp_path):
    save_npz(healthy.replace(positions=reorient(healthy.positions, "transpose")), tmp_path / "wrong.npz")
    outcome = ptycho("doctor", tmp_path / "wrong.npz", "--patterns", 60, "--passes", 6, "--out", "look")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert "use --orientation transpose" in outcome.out
    assert sum(line.startswith("orientation ") for line in outcome.out.splitlines()) == 8
    report = json.loads((ptycho.folder / "look" / "doctor.json").read_text())
    assert report["orientations"]["best"] == "transpose"
    assert report["problems"]
    assert (ptycho.folder / "look" / "doctor.png").read_bytes().startswith(b"\x89PNG")
    advised = ("doctor", tmp_path / "wrong.npz", "--patterns", 60, "--passes", 6, "--orientation", "transpose")
    outcome = ptycho(*advised)
    assert "none found" in outcome.out
    outcome = ptycho(*advised, "--orientations", "false")
    assert "orientation " not in outcome.out


def test_bad_input_is_refused(refused, ptycho, write_npz, healthy):
    (ptycho.folder / "out").mkdir()
    (ptycho.folder / "out" / "doctor.png").write_text("precious")
    save_npz(healthy, ptycho.folder / "scan.npz")
    assert "doctor.png exists already" in refused("doctor", "scan.npz", "--out", "out")
    assert "'ptycho doctor' needs SCAN" in refused("doctor")
    assert "does not exist" in refused("doctor", "none.npz")
    assert "xcoords" in refused("doctor", write_npz(without="xcoords"))
    assert "passes = 0 is not possible" in refused("doctor", "scan.npz", "--passes", 0)


def test_the_measured_scan_is_healthy(ptycho, scan_file):
    outcome = ptycho("doctor", scan_file, "--patterns", 40, "--passes", 4)
    assert outcome.code == 0, outcome
    assert "none found" in outcome.out
