"""Training and reconstruction in one: truth, halves, units and mask of the result."""

import numpy as np
import pytest

from ptycho.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.pinn import PtychoPINN
from ptycho.workflows.evaluate import evaluate_result, metric_lines
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.run import open_bundle, reconstruct_scan, run_scan, save_training, train_scan
from ptycho.workflows.simulate import SimulationConfig, simulate_scan

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=100, positions="raster", step=6, jitter=1, nphotons=1e5))


@pytest.fixture(scope="module")
def bundle(scan):
    config = TrainingConfig(
        model=ModelConfig(n_filters_scale=1, start_iterations=3), nepochs=1, n_groups=16, batch_size=8
    )
    return train_scan(scan, config)


def measured(scan):
    """The scan as if nobody knew the object."""
    return scan.replace(object=None, object_origin=None, metadata={})


def test_a_simulated_scan_is_compared_with_its_object(scan, bundle):
    result = reconstruct_scan(scan, bundle)
    assert {"r_factor", "ssim_amplitude", "psnr_phase", "frc_n_rings", "n_patterns", "seconds"} <= set(result.metrics)
    rows, columns = (round(value) for value in result.origin)
    height, width = result.object.shape
    np.testing.assert_allclose(result.truth, scan.object[rows : rows + height, columns : columns + width], atol=1e-5)
    assert result.metrics["ssim_amplitude"] == evaluate_result(result, scan).metrics["ssim_amplitude"]
    lines = metric_lines(result.metrics)
    assert lines[0] == f"R-factor {result.metrics['r_factor']:.3f}"
    assert lines[1].startswith(f"R-factor {result.metrics['r_factor_estimate']:.3f} of the physics estimate alone")
    assert any("against the reference" in line for line in lines)


def test_the_truth_follows_a_broken_origin(scan, bundle):
    moved = scan.replace(object_origin=(-0.5, 0.25), positions=scan.positions + np.array([-0.5, 0.25]))
    result = reconstruct_scan(moved, bundle)
    offset = np.subtract(result.origin, (-0.5, 0.25))
    low = np.floor(offset).astype(int)
    part = offset - low
    inner = [slice(start + 1, start + 41) for start in low]
    down, right = ([slice(s.start + (axis == k), s.stop + (axis == k)) for k, s in enumerate(inner)] for axis in (0, 1))
    both = [slice(s.start + 1, s.stop + 1) for s in inner]
    expected = (1 - part[0]) * ((1 - part[1]) * scan.object[*inner] + part[1] * scan.object[*right])
    expected += part[0] * ((1 - part[1]) * scan.object[*down] + part[1] * scan.object[*both])
    np.testing.assert_allclose(result.truth[1:41, 1:41], expected, atol=1e-5)


def test_a_measured_scan_is_compared_with_itself(scan, bundle):
    result = reconstruct_scan(measured(scan), bundle, split_frc=True)
    assert set(result.frc) == {"complex", "amplitude", "phase"}
    assert result.metrics["frc_rings_0.5_amplitude"] > 0
    assert "ssim_amplitude" not in result.metrics
    assert result.truth is None
    assert any("between two halves" in line for line in metric_lines(result.metrics))
    assert reconstruct_scan(measured(scan), bundle).frc == {}


def test_too_few_patterns_have_no_halves(scan, bundle, caplog):
    result = reconstruct_scan(measured(scan).subset(slice(0, 20)), bundle, split_frc=True)
    assert result.frc == {}
    assert "too few to compare two halves" in caplog.text


def test_predicted_patterns_are_in_the_photons_of_the_scan(scan, bundle):
    """Ten times the dose: the model keeps its units, the result says the scan's."""
    brighter = measured(scan).replace(patterns=scan.patterns * 10)
    result = reconstruct_scan(brighter, bundle)
    assert np.square(result.measured).sum() == pytest.approx(
        10 * np.square(scan.amplitude([0, 16, 32, 48])).sum(), rel=0.1
    )
    assert np.square(result.predicted).sum() == pytest.approx(np.square(result.measured).sum(), rel=0.1)


def test_the_mask_goes_with_the_result(scan, bundle):
    mask = np.ones((64, 64), bool)
    mask[:, 3] = False
    result = reconstruct_scan(measured(scan).replace(mask=mask), bundle)
    np.testing.assert_array_equal(result.mask, mask)
    assert np.all(result.measured[:, :, 3] == 0)


def test_inference_settings(scan, bundle):
    result = reconstruct_scan(scan, bundle, InferenceConfig(n_subsample=30, seed=2, batch_size=7))
    assert len(result.positions) == 30
    whole = reconstruct_scan(scan, bundle, InferenceConfig(batch_size=5))
    again = reconstruct_scan(scan, bundle, InferenceConfig(batch_size=64))
    np.testing.assert_allclose(whole.object, again.object, atol=2e-4)
    with pytest.raises(ConfigError, match="batch_size"):
        reconstruct_scan(scan, bundle, InferenceConfig(batch_size=0))


@pytest.mark.parametrize("batch_size", [1, 7, 63, 100])
def test_every_batch_has_one_size(scan, bundle, monkeypatch, batch_size):
    """Nothing is compiled for a smaller last one; what fills it up is laid nowhere."""
    sizes, told = [], []
    correction = PtychoPINN.correction

    def watched(model, params, batch):
        sizes.append({name: len(values) for name, values in batch.items()})
        return correction(model, params, batch)

    monkeypatch.setattr(PtychoPINN, "correction", watched)
    made = reconstruct(scan, bundle, "numpy", batch_size, progress=lambda done, total: told.append((done, total)))
    assert len({size for batch in sizes for size in batch.values()}) == 1
    assert sizes[0]["X"] <= batch_size
    assert len(sizes) == len(told) == -(-len(scan) // batch_size)
    assert told[-1] == (len(scan), len(scan))
    whole = reconstruct(scan, bundle, "numpy", len(scan))
    np.testing.assert_allclose(made.weight, whole.weight, rtol=1e-5)
    np.testing.assert_allclose(made.object, whole.object, atol=2e-4)


def test_another_scan_may_be_the_target(scan):
    first, second = scan.split("rows")
    config = TrainingConfig(model=ModelConfig(n_filters_scale=1, start_iterations=1), nepochs=1, n_groups=8, seed=5)
    seen = []
    labels = []

    def counters(label):
        labels.append(label)
        return lambda done, total: None

    result, bundle = run_scan(first, config, second, epochs=lambda *told: seen.append(told), counters=counters)
    assert len(result.positions) == len(second)
    assert [told[:2] for told in seen] == [(1, 1)]
    assert labels[:2] == ["estimate", "reconstruct"]
    assert result.history == bundle.history
    assert result.provenance["seed"] == 5
    assert result.metrics["seconds"] > 0


def test_a_training_is_kept_with_its_settings(bundle, tmp_path):
    save_training(bundle, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ptychopinn.json", "config.yaml", "wts.h5.zip"]
    again = open_bundle(tmp_path)
    assert again.config == bundle.config
    np.testing.assert_array_equal(again.probe, bundle.probe)
