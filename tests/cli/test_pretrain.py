"""`ptycho pretrain`, and a training from its bundle, through the real command."""

import numpy as np
import pytest

from ptycho.cli import main
from ptycho.data import load_scan, save_npz
from ptycho.model.bundle import BUNDLE_NAME, load_bundle
from ptycho.workflows.r_factor import scan_r_factor
from ptycho.workflows.results import load_reconstruction
from ptycho.workflows.simulate import SimulationConfig, simulate_scan

QUICK = ("--batch_size", 8, "--device", "cpu", "--quiet")
PRETRAIN = ("--n_filters_scale", 1, "--start_iterations", 0, "--n_groups", 48, "--n_objects", 4, "--nepochs", 4)


@pytest.fixture
def next_scan(tmp_path):
    """Another object under the same beam."""
    path = tmp_path / "next.npz"
    save_npz(
        simulate_scan(
            SimulationConfig(size=96, N=64, positions="raster", step=7, jitter=1, nphotons=1e5, object="lines", seed=5)
        ),
        path,
    )
    return path


def test_a_new_scan_needs_no_training_or_little(ptycho, refused, scan_path, next_scan):
    pytest.importorskip("lightning")
    made = ptycho("pretrain", scan_path, *QUICK, *PRETRAIN, "--learning_rate", 3e-3, "--out", "pre")
    assert (made.code, made.err) == (0, "")
    pretrained = load_bundle(ptycho.folder / "pre")
    told = pretrained.manifest["simulated"]
    assert (told["objects"], told["n_objects"], told["scan"]) == ("mixed", 4, "simulated dead leaves")

    zero_shot = ptycho("reconstruct", next_scan, "pre", "--out", "zero", "--quiet")
    assert (zero_shot.code, zero_shot.err) == (0, "")
    result = load_reconstruction(ptycho.folder / "zero")
    assert result.provenance["simulated"] == told
    found = scan_r_factor(result, result.probe, load_scan(next_scan))
    result.object = np.ones_like(result.object)
    assert found < 0.8 * scan_r_factor(result, result.probe, load_scan(next_scan))

    words = ("train", next_scan, *QUICK, "--from", "pre", "--nepochs", 1)
    tuned = ptycho(*words, "--out", "tuned")
    assert (tuned.code, tuned.err) == (0, "")
    bundle = load_bundle(ptycho.folder / "tuned")
    assert bundle.config.model == pretrained.config.model
    origin = bundle.manifest["started_from"]
    assert (origin["file"], origin["simulated"]) == ("pre", told)
    assert origin["weights_sha256"] == pretrained.manifest["sha256"]["weights.safetensors"]
    assert refused(*words, "--n_filters_scale", 2, "--out", "no") == (
        "ptycho: n_filters_scale: 2 given, and the model in pre has 1; leave it out, or train without --from."
    )


def test_what_is_refused(refused, scan_path):
    assert "n_objects" in refused("pretrain", scan_path, "--n_objects", 0, "--out", "no")
    assert "there is no such file" in refused("run", scan_path, "--from", "nothing", "--out", "no")


def test_a_folder_in_use_is_refused_before_anything_is_simulated(monkeypatch, tmp_path, scan_path, capsys):
    pytest.importorskip("lightning")
    (tmp_path / BUNDLE_NAME).touch()
    monkeypatch.setattr("ptycho.workflows.pretrain.simulated_like", lambda *_: pytest.fail("simulated"))
    assert main(["pretrain", str(scan_path), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"ptycho: {tmp_path / BUNDLE_NAME} exists already: choose another --out, or replace it with --force.\n"
    )
