"""PtychoPINN's named steps: signatures, inputs in any form, orientation, what is returned and written."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho import params
from ptycho.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.data import Container, Scan, save_npz
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import Bundle
from ptycho.workflows import components
from ptycho.workflows.components import (
    as_scan,
    load_inference_bundle,
    reassemble_cdi_image,
    run_cdi_example,
    save_outputs,
    train_cdi_model,
)
from ptycho.workflows.inference import Stitched
from ptycho.workflows.simulate import SimulationConfig, simulate_scan

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=100, positions="raster", step=6, jitter=1, nphotons=1e5))


@pytest.fixture(scope="module")
def halves(scan):
    return scan.split("rows")


def small(**changes):
    config = TrainingConfig(
        model=ModelConfig(n_filters_scale=1, start_iterations=3), nepochs=2, n_groups=16, batch_size=8, seed=4
    )
    for name, value in changes.items():
        setattr(config.model if hasattr(config.model, name) else config, name, value)
    return config


@pytest.fixture(scope="module")
def trained(halves):
    return run_cdi_example(*halves, small(), M=20, do_stitching=True)


def rawdata(scan, **changes):
    """A scan as PtychoPINN's RawData has it."""
    fields = {
        "diff3d": scan.amplitude(),
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        "probeGuess": scan.probe[0],
        "objectGuess": scan.object,
        "scan_index": np.zeros(len(scan), int),
    }
    return SimpleNamespace(**(fields | changes))


def test_signatures_are_ptychopinns():
    def names(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]

    none = inspect.Parameter.empty
    orientation = [("flip_x", False), ("flip_y", False), ("transpose", False), ("M", 20)]
    assert names(run_cdi_example) == [
        ("train_data", none),
        ("test_data", none),
        ("config", none),
        *orientation,
        ("do_stitching", False),
    ]
    assert names(train_cdi_model) == [("train_data", none), ("test_data", none), ("config", none)]
    assert names(reassemble_cdi_image) == [("test_data", none), ("config", none), *orientation, ("coord_scale", 1.0)]
    assert names(load_inference_bundle) == [("model_dir", none)]
    assert [name for name, _ in names(save_outputs)] == ["amplitude", "phase", "results", "output_prefix"]


def test_what_a_run_returns(trained, halves):
    amplitude, phase, results = trained
    # M + 2 p, p the largest distance from the mean position, rounded up to even.
    test = halves[1]
    reach = int(np.ceil(np.abs(test.positions - test.positions.mean(axis=0)).max()))
    side = 20 + 2 * (reach + reach % 2)
    assert amplitude.shape == phase.shape == (side, side)
    assert np.all(amplitude >= 0)
    assert np.abs(phase).max() <= np.pi
    assert {"history", "train_container", "test_container", "bundle"} <= set(results)
    assert {"recon_amp", "recon_phase", "weight", "global_offsets"} <= set(results)
    assert len(results["history"]["loss"]) == 2
    assert results["history"]["train_loss"] == results["history"]["loss"]
    assert isinstance(results["bundle"], Bundle)
    assert isinstance(results["train_container"], Container)
    assert results["train_container"].X.shape == (16, 64, 64, 1)
    assert len(results["test_container"]) == len(halves[1])
    assert results["global_offsets"].shape == (len(halves[1]), 1, 2, 1)
    np.testing.assert_allclose(results["global_offsets"][:, 0, 0, 0], halves[1].positions[:, 1])


def test_the_image_is_the_object(trained, halves):
    """Where patches overlap, amplitude and phase follow the true object around the mean position."""
    amplitude, phase, results = trained
    test = halves[1]
    half = amplitude.shape[0] // 2
    rows, columns = np.nonzero(results["weight"] > 0.5 * results["weight"].max())
    place = test.positions.mean(axis=0) - half
    true = test.object[(rows + round(place[0])), (columns + round(place[1]))]
    found = (amplitude * np.exp(1j * phase))[rows, columns]
    overlap = abs(np.vdot(found, true)) / (np.linalg.norm(found) * np.linalg.norm(true))
    assert overlap > 0.98
    assert np.corrcoef(np.abs(found), np.abs(true))[0, 1] > 0.8
    assert np.all(amplitude[results["weight"] == 0] == 1)


def test_without_stitching_there_is_no_image(halves):
    amplitude, phase, results = run_cdi_example(halves[0], None, small(nepochs=1, start_iterations=None))
    assert amplitude is None
    assert phase is None
    assert results["test_container"] is None
    assert "recon_amp" not in results


def test_gridsize_two_groups_and_stitches(halves):
    config = small(gridsize=2, nepochs=1, n_groups=8, batch_size=4)
    amplitude, _, results = run_cdi_example(*halves, config, do_stitching=True)
    assert results["train_container"].X.shape == (8, 64, 64, 4)
    assert results["test_container"].X.shape == (len(halves[1]), 64, 64, 4)
    assert np.isfinite(amplitude).all()


def test_a_run_publishes_its_settings(trained):
    assert params.get("N") == 64
    assert params.get("n_groups") == 16 or params.get("n_groups") == 8
    assert params.get("probe.trainable") is False


def test_settings_changed_in_the_dictionary_change_nothing(halves, monkeypatch):
    """The dictionary is written for outsiders and read by nobody."""
    config = small(nepochs=1, start_iterations=None)
    first = train_cdi_model(halves[0], None, config)
    for key in list(params.cfg):
        monkeypatch.setitem(params.cfg, key, "nonsense")
    monkeypatch.setattr(components, "train_scan", _without_publishing)
    again = train_cdi_model(halves[0], None, config)
    assert first["history"]["loss"] == again["history"]["loss"]


def _without_publishing(scan, config):
    from ptycho.workflows.train import train

    return train(scan, config)


@pytest.fixture
def stitched_positions(monkeypatch):
    """Replace the inference by one that knows the answer: a dot in every patch, off its centre."""
    seen = []

    def stitch(scan, bundle, **options):
        from ptycho.physics import reassemble

        patch = np.ones((64, 64), np.complex64)
        patch[32 + 2, 32 + 5] = 3j
        seen.append((scan.positions, options))
        patches = np.broadcast_to(patch, (len(scan), 64, 64))
        placed = reassemble(patches, scan.positions, options["window"], crop=options["crop"])
        return Stitched(placed.object, placed.weight, placed.origin, scan.probe, None)

    monkeypatch.setattr(components, "stitch", stitch)
    return seen


@pytest.fixture
def corner():
    """Three positions at integer pixels that no flip maps onto each other; x, y are column, row."""
    rng = np.random.default_rng(0)
    return Scan(
        patterns=rng.poisson(3, (3, 64, 64)),
        measurement="counts",
        positions=np.array([[0.0, 0.0], [0.0, 30.0], [60.0, 0.0]]),
        probe=np.ones((64, 64), np.complex64),
    )


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_orientation_is_ptychopinns(stitched_positions, corner, flip_x, flip_y, transpose):
    """Patches are transposed, offsets [x, y] change sign, and each patch is placed at +(offset - mean)."""
    amplitude, phase, results = reassemble_cdi_image(
        corner, InferenceConfig(), flip_x, flip_y, transpose, M=16, model=object()
    )
    offsets = corner.positions[:, ::-1] * [-1 if flip_x else 1, -1 if flip_y else 1]
    np.testing.assert_allclose(results["global_offsets"][:, 0, :, 0], offsets)
    centred = offsets - offsets.mean(axis=0)
    half = amplitude.shape[0] // 2
    across, down = (2, 5) if transpose else (5, 2)
    expected = {(half + round(y) + down, half + round(x) + across) for x, y in centred}
    found = {(int(r), int(c)) for r, c in np.argwhere(np.isclose(amplitude * np.exp(1j * phase), 3j))}
    assert found == expected
    options = stitched_positions[0][1]
    assert (options["window"], options["crop"]) == ("crop", 16)


def test_coord_scale_spreads_the_positions(stitched_positions, corner):
    single, _, _ = reassemble_cdi_image(corner, InferenceConfig(), M=16, model=object())
    double, _, results = reassemble_cdi_image(corner, InferenceConfig(), M=16, coord_scale=2.0, model=object())
    assert single.shape == (16 + 2 * 40, 16 + 2 * 40)
    assert double.shape == (16 + 2 * 80, 16 + 2 * 80)
    np.testing.assert_allclose(results["global_offsets"][:, 0, ::-1, 0], corner.positions * 2)
    with pytest.raises(ConfigError, match="coord_scale = 0"):
        reassemble_cdi_image(corner, InferenceConfig(), coord_scale=0.0, model=object())


def test_turned_positions_and_a_given_object_contradict(halves):
    config = small(model_type="supervised")
    with pytest.raises(ConfigError, match="flip_x, flip_y and transpose"):
        run_cdi_example(*halves, config, flip_x=True)


def test_forms_of_data(scan, tmp_path):
    assert as_scan(scan) is scan
    save_npz(scan, tmp_path / "scan.npz")
    assert as_scan(tmp_path / "scan.npz").fingerprint() == scan.fingerprint()
    assert as_scan(str(tmp_path / "scan.npz")).measurement == "counts"
    for form in (rawdata(scan), vars(rawdata(scan))):
        found = as_scan(form)
        assert found.measurement == "amplitude"
        np.testing.assert_allclose(found.counts(), scan.counts(), rtol=1e-5)
        np.testing.assert_array_equal(found.positions, scan.positions)
        np.testing.assert_array_equal(found.probe, scan.probe)
    whole = as_scan(rawdata(scan, diff3d=scan.patterns, objectGuess=None, probeGuess=scan.probe))
    assert whole.measurement == "counts"
    assert whole.object is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diff3d": None}, "has no diff3d: expected a Scan"),
        ({"xcoords": None}, "has no xcoords"),
        ({"xcoords": np.zeros(3)}, "xcoords has 3 values"),
        ({"diff3d": np.ones((3, 8))}, "patterns"),
    ],
)
def test_data_that_are_no_scan(scan, change, message):
    with pytest.raises(DataError, match=message):
        as_scan(rawdata(scan, **change))


def test_other_things_are_no_data():
    with pytest.raises(DataError, match="int has no diff3d"):
        as_scan(3)


def test_amplitudes_train_as_well_as_counts(halves):
    config = small(nepochs=1, nphotons=halves[0].mean_total_counts())
    counts = train_cdi_model(halves[0], None, config)["history"]["loss"]
    amplitudes = train_cdi_model(rawdata(halves[0]), None, config)["history"]["loss"]
    assert amplitudes == pytest.approx(counts, rel=1e-4)


def test_outputs_are_written_and_the_bundle_comes_back(trained, halves, tmp_path):
    amplitude, phase, results = trained
    save_outputs(amplitude[..., None], phase, results, tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [
        ".ptychopinn.json",
        "history.json",
        "reconstructed_amplitude.png",
        "reconstructed_phase.png",
        "wts.h5.zip",
    ]
    assert json.loads((tmp_path / "out" / "history.json").read_text())["history"]["loss"] == results["history"]["loss"]
    params.cfg.pop("intensity_scale", None)
    bundle, config = load_inference_bundle(tmp_path / "out")
    assert config["N"] == 64
    assert config["object.big"] is True
    assert config["intensity_scale"] == params.get("intensity_scale") == bundle.intensity_scale
    inference = InferenceConfig(model_path=tmp_path / "out", seed=4)
    again, _, _ = reassemble_cdi_image(halves[1], inference, M=20)
    np.testing.assert_allclose(again, amplitude, rtol=1e-4, atol=1e-4)


def test_nothing_to_write(tmp_path):
    save_outputs(None, None, {}, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        save_outputs(None, None, {}, tmp_path / "file")


def test_a_folder_without_bundle(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load_inference_bundle(tmp_path / "absent")
    with pytest.raises(DataError, match=r"wts\.h5\.zip"):
        load_inference_bundle(tmp_path)
