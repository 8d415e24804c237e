"""Iterative engines through the real command: from scratch, from a result, after a network."""

import subprocess
import time

import numpy as np
import pytest

from ptycho.data import load_scan, save_npz
from ptycho.workflows.results import RESULT_FILES, load_reconstruction
from ptycho.workflows.simulate import SimulationConfig, simulate_scan
from tests.cli.conftest import COMMAND

QUICK = ("--n_filters_scale", 1, "--nepochs", 1, "--n_groups", 16, "--batch_size", 8, "--start_iterations", 2)


@pytest.fixture
def done(ptycho):
    """Run a command that must succeed without a word on standard error."""

    def run(*words, **options):
        outcome = ptycho(*words, **options)
        assert outcome.code == 0, outcome.err
        assert outcome.err == ""
        return outcome

    run.folder = ptycho.folder
    return run


@pytest.fixture(scope="session")
def measured_path(simulation, tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "measured.npz"
    save_npz(simulation.replace(object=None, object_origin=None, metadata={}), path)
    return path


@pytest.mark.parametrize("engine", ["rpie", "epie"])
def test_reconstruct_without_a_network(done, measured_path, engine):
    outcome = done("reconstruct", measured_path, "--engine", engine, "--epochs", 8, "--out", "result", "--frc")
    assert 0 < float(outcome.figure("R-factor")) < 0.3
    assert float(outcome.figure("seconds")) > 0
    assert "for 8 epochs" in outcome.figure("engine")
    assert "between two halves of the scan" in outcome.figure("FRC")
    assert {path.name for path in (done.folder / "result").iterdir()} == {".ptychopinn.json", *RESULT_FILES}
    result = load_reconstruction(done.folder / "result")
    assert f"{result.metrics['r_factor']:.3f}" == outcome.figure("R-factor")
    assert len(result.history["r_factor"]) == 8
    assert result.provenance["config"]["engine"] == engine
    assert result.provenance["data"]["sha256"] == load_scan(measured_path).fingerprint()
    assert np.isfinite(result.object).all()


def test_epochs_alone_mean_the_default_engine(done, scan_path):
    done("reconstruct", scan_path, "--epochs", 2, "--out", "result")
    assert load_reconstruction(done.folder / "result").provenance["config"]["engine"] == "rpie"


def test_refine_a_result_whose_scan_it_names(done, measured_path):
    first = done("reconstruct", measured_path, "--epochs", 2, "--out", "first")
    outcome = done("refine", "first", "--epochs", 6, "--out", "second", "--modes", 2)
    assert float(outcome.figure("R-factor")) < float(first.figure("R-factor"))
    assert f"R-factor {first.figure('R-factor')} before the refinement" in outcome.out
    result = load_reconstruction(done.folder / "second")
    assert f"{result.metrics['r_factor_before']:.3f}" == first.figure("R-factor")
    assert result.metrics["seconds_before"] > 0
    assert result.probe.shape[0] == 2
    assert result.provenance["refined_from"]["command"].startswith("ptycho reconstruct")
    report = (done.folder / "second" / "report.html").read_text(encoding="utf-8")
    assert "Before the refinement" in report
    assert "Engine" in report


def test_refining_goes_on_where_the_result_is(done, scan_path):
    done("reconstruct", scan_path, "--epochs", 12, "--full_batch_epochs", 0, "--out", "first")
    done("refine", "first", scan_path, "--epochs", 1, "--full_batch_epochs", 0, "--out", "second")
    first, second = (load_reconstruction(done.folder / name) for name in ("first", "second"))
    assert second.history["r_factor"][0] < 1.2 * first.history["r_factor"][-1]


def test_positions_are_corrected_and_reported(done, simulation, tmp_path):
    rng = np.random.default_rng(0)
    wrong = simulation.positions + rng.normal(0, 0.7, simulation.positions.shape)
    save_npz(simulation.replace(positions=wrong), tmp_path / "wrong.npz")
    words = ("reconstruct", tmp_path / "wrong.npz", "--epochs", 25)
    kept = done(*words, "--out", "kept")
    moved = done(*words, "--out", "moved", "--correct_positions", "gradient", "--positions_from", 3)
    assert float(moved.figure("R-factor")) < float(kept.figure("R-factor"))
    assert "pixels RMS" in moved.figure("positions")
    result = load_reconstruction(done.folder / "moved")
    assert result.metrics["position_shift_rms"] > 0.1


def test_a_killed_reconstruction_goes_on(done, ptycho, scan_path):
    words = ["reconstruct", str(scan_path), "--epochs", "100000", "--out", "result"]
    process = subprocess.Popen([*COMMAND, *words], cwd=ptycho.folder, stderr=subprocess.DEVNULL)
    state = ptycho.folder / "result" / "engine-state.npz"
    for _ in range(400):
        if state.is_file():
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert state.is_file()
    refusal = ptycho("reconstruct", scan_path, "--epochs", 3, "--out", "result")
    assert refusal.code == 2
    assert "another scan or other settings" in refusal.err
    done("reconstruct", scan_path, "--epochs", 3, "--out", "result", "--force")
    assert not state.exists()


def test_slices(done, ptycho):
    options = {"size": 72, "N": 32, "probe": "focused", "positions": "raster", "step": 6, "phase": 0.5}
    known = {"wavelength": 1e-10, "pixel_size": 1e-8}
    scan = simulate_scan(SimulationConfig(**options, **known, slices=2, slice_spacing=2e-5))
    save_npz(scan.replace(metadata={}, **dict.fromkeys(known)), done.folder / "scan.npz")
    words = ["reconstruct", "scan.npz", "--epochs", 20, "--slices", 2, "--slice_spacing", 2e-5, "--out", "first"]
    refusal = ptycho(*words)
    assert refusal.code == 2
    assert "slices = 2 needs the scan's wavelength and the object's pixel size, in metres" in refusal.err
    assert not (done.folder / "first").exists()
    lengths = [word for name, length in known.items() for word in (f"--{name}", length)]
    first = done(*words, *lengths, "--momentum", 0.5)
    again = done("refine", "first", "--epochs", 2, "--out", "again", *lengths)  # with the slices of the result
    assert float(again.figure("R-factor")) < 1.3 * float(first.figure("R-factor")) < 0.1
    result = load_reconstruction(done.folder / "again")
    assert result.slices.shape == (2, *result.object.shape)
    assert result.slice_spacing == 2e-5


class TestAfterANetwork:
    pytest.importorskip("torch")

    def test_run_and_refine(self, done, measured_path):
        outcome = done("run", measured_path, "--out", "result", *QUICK, "--refine", 4)
        result, network = (load_reconstruction(done.folder / name) for name in ("result", "result/network"))
        assert result.metrics["r_factor"] < result.metrics["r_factor_before"]
        assert result.metrics["r_factor_before"] == network.metrics["r_factor"]
        assert "before the refinement" in outcome.out
        assert "frc_rings_half_bit_complex_before" in result.metrics
        assert {"loss", "r_factor"} <= set(result.history)
        assert result.provenance["refined_from"]["config"]["nepochs"] == 1
        again = done("refine", "result/network", "--epochs", 4, "--out", "again")
        assert again.figure("R-factor") == outcome.figure("R-factor")


class TestBadInput:
    def test_a_bundle_and_an_engine(self, refused, scan_path):
        assert "without a network" in refused("reconstruct", scan_path, "model", "--engine", "rpie")

    def test_an_unknown_engine(self, refused, scan_path):
        assert "engine = magic" in refused("reconstruct", scan_path, "--engine", "magic")

    def test_what_the_engine_after_a_network_cannot_do_is_refused_before_the_training(self, refused, scan_path):
        assert "slices = 2 needs slice_spacing" in refused("run", scan_path, "--refine", 2, "--slices", 2)

    def test_no_result(self, refused):
        assert "needs RESULT" in refused("refine")
        assert "nowhere" in refused("refine", "nowhere")

    def test_another_scan(self, ptycho, done, scan_path, write_npz):
        done("reconstruct", scan_path, "--epochs", 1, "--out", "result")
        few = ptycho("refine", "result", write_npz(), "--out", "other")
        assert few.code == 2
        assert "9" in few.err
        cropped = ptycho("refine", "result", scan_path, "--crop", 32, "--out", "other")
        assert cropped.code == 2
        assert "32 x 32" in cropped.err

    def test_a_scan_that_went_away(self, ptycho, done, simulation, tmp_path):
        save_npz(simulation, tmp_path / "scan.npz")
        done("reconstruct", tmp_path / "scan.npz", "--epochs", 1, "--out", "result")
        (tmp_path / "scan.npz").unlink()
        gone = ptycho("refine", "result", "--out", "other")
        assert gone.code == 2
        assert "not there any more" in gone.err
