"""`ptycho train`, `reconstruct`, `run`, `evaluate` and `demo` through the real command."""

import json
import sys

import pytest
import yaml

from ptycho.config import ModelConfig, TrainingConfig, load_config
from ptycho.data import load_scan, save_npz
from ptycho.model.bundle import load_bundle
from ptycho.workflows.evaluate import EVALUATION_FILES
from ptycho.workflows.results import RESULT_FILES, load_reconstruction
from tests.cli.test_bad_input import limited_files

pytest.importorskip("torch")

QUICK = ("--n_filters_scale", 1, "--nepochs", 1, "--n_groups", 16, "--batch_size", 8, "--start_iterations", 2)
FIGURES = ("R-factor", "FRC", "seconds", "saved")


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
    """The simulated scan as a measurement would be: without its object and without word of its making."""
    path = tmp_path_factory.mktemp("measured") / "measured.npz"
    save_npz(simulation.replace(object=None, object_origin=None, metadata={}), path)
    return path


def test_run_says_its_figures_and_writes_everything(done, ptycho, measured_path):
    outcome = done("run", measured_path, "--out", "result", *QUICK, "--seed", 3)
    for name in FIGURES:
        assert outcome.figure(name)
    assert 0 < float(outcome.figure("R-factor")) < 1
    assert "between two halves of the scan" in outcome.figure("FRC")
    out = done.folder / "result"
    assert {*RESULT_FILES, "wts.h5.zip", "config.yaml"} <= {path.name for path in out.iterdir()}
    result = load_reconstruction(out)
    assert f"{result.metrics['r_factor']:.3f}" == outcome.figure("R-factor")
    assert set(result.frc) == {"complex", "amplitude", "phase"}
    assert result.provenance["command"].startswith("ptycho run ")
    assert "--seed 3" in result.provenance["command"]
    assert result.provenance["data"]["sha256"] == load_scan(measured_path).fingerprint()
    assert result.predicted.shape == result.measured.shape == (4, 64, 64)
    assert result.predicted.sum() == pytest.approx(result.measured.sum(), rel=0.2)
    config = load_config(TrainingConfig, out / "config.yaml")
    assert (config.seed, config.nepochs, config.model.N, config.model.n_filters_scale) == (3, 1, 64, 1)
    assert load_bundle(out).config == config
    again = done("run", "--config", "result/config.yaml", "--out", "again")
    assert again.figure("R-factor") == outcome.figure("R-factor")
    refusal = ptycho("run", measured_path, "--out", "result", *QUICK)
    assert refusal.code == 2
    assert "result/reconstruction.h5 exists already" in refusal.err


def test_train_then_reconstruct_elsewhere(done, scan_path, measured_path):
    trained = done("train", scan_path, "--out", "model", *QUICK)
    assert float(trained.figure("loss"))
    assert trained.figure("saved") == "model/wts.h5.zip"
    assert "reconstruction.h5" not in {path.name for path in (done.folder / "model").iterdir()}
    by_torch = done("reconstruct", measured_path, "model", "--out", "one")
    by_numpy = done("reconstruct", measured_path, "model/wts.h5.zip", "--out", "two", "--backend", "numpy")
    assert float(by_numpy.figure("R-factor")) == pytest.approx(float(by_torch.figure("R-factor")), abs=0.002)
    compared = done("evaluate", "one", "two", "--out", "compared")
    figures = json.loads((done.folder / "compared" / "evaluation.json").read_text())
    assert figures["ssim_amplitude"] > 0.999
    assert "SSIM 1 amplitude, 1 phase" in compared.out
    assert sorted(path.name for path in (done.folder / "compared").iterdir()) == [".ptychopinn.json", *EVALUATION_FILES]


def test_evaluate_against_the_truth(done, scan_path):
    done("run", scan_path, "--out", "result", *QUICK)
    outcome = done("evaluate", "result", scan_path)
    for name in ("SSIM", "PSNR", "MAE", "FRC"):
        assert outcome.figure(name)
    result = load_reconstruction(done.folder / "result")
    assert result.truth is not None
    assert f"SSIM {result.metrics['ssim_amplitude']:.3g} amplitude" in outcome.out


def test_a_test_file_is_what_is_reconstructed(done, simulation, tmp_path):
    first, second = simulation.split("rows")
    save_npz(first, tmp_path / "train.npz")
    save_npz(second, tmp_path / "test.npz")
    done("run", tmp_path / "train.npz", "--test_data_file", tmp_path / "test.npz", "--out", "result", *QUICK)
    result = load_reconstruction(done.folder / "result")
    assert len(result.positions) == len(second)
    assert result.provenance["data"]["sha256"] == second.fingerprint()


def test_flags_win_over_yaml_over_defaults(done, scan_path):
    settings = {"train_data_file": str(scan_path), "model": {"n_filters_scale": 1, "start_iterations": 1}, "nepochs": 2}
    settings |= {"n_groups": 8, "batch_size": 8, "output_dir": "from_yaml", "probe_trainable": True}
    (done.folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    done("train", "--config", "settings.yaml", "--nepochs", 1, "--probe_trainable", "false", "--gradient_clip", "none")
    config = load_bundle(done.folder / "from_yaml").config
    assert (config.nepochs, config.n_groups, config.probe_trainable, config.gradient_clip) == (1, 8, False, None)
    assert config.model == ModelConfig(n_filters_scale=1, start_iterations=1)
    assert config.learning_rate == 1e-3


def test_demo(done):
    outcome = done("demo", "--out", "demo", *QUICK, "--size", 112, "--step", 8)
    for name in ("R-factor", "FRC", "SSIM", "PSNR", "seconds"):
        assert outcome.figure(name)
    assert "against the reference" in outcome.figure("FRC")
    assert {*RESULT_FILES, "scan.npz", "wts.h5.zip"} <= {path.name for path in (done.folder / "demo").iterdir()}


def test_a_bundle_for_another_size(done, refused, scan_path, write_npz):
    done("train", scan_path, "--out", "model", *QUICK)
    sentence = refused("reconstruct", write_npz(size=128), "model", "--out", "result")
    assert "128 x 128" in sentence
    assert "--crop 64" in sentence


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", None])
def test_a_bundle_that_is_none(refused, scan_path, tmp_path, content):
    if content is not None:
        (tmp_path / "wts.h5.zip").write_bytes(content)
    assert "wts.h5.zip" in refused("reconstruct", scan_path, tmp_path, "--out", "result")


def test_a_reconstruction_that_is_none(refused, scan_path, tmp_path):
    assert str(tmp_path) in refused("evaluate", tmp_path, scan_path)
    assert "is a scan" in refused("evaluate", scan_path, scan_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk_after_the_work(refused, scan_path, done):
    done("train", scan_path, "--out", "model", *QUICK)
    before = (done.folder / "model" / "wts.h5.zip").read_bytes()
    sentence = refused("reconstruct", scan_path, "model", "--out", "result", preparation=limited_files())
    assert "result" in sentence
    refused(
        "train", scan_path, "--out", "model", *QUICK, "--checkpoint", "false", "--force", preparation=limited_files()
    )
    assert (done.folder / "model" / "wts.h5.zip").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_full_disk_during_training(refused, scan_path):
    sentence = refused("run", scan_path, "--out", "result", *QUICK, preparation=limited_files())
    assert "The training cannot be kept in result: File too large" in sentence
