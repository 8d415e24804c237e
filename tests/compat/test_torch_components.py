"""PtychoPINN's named steps and containers on PyTorch: the pairs of `ptycho.workflows.components`."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from ptycho import params
from ptycho.config import TrainingConfig
from ptycho.data import Container
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.files import RECORD
from ptycho.loader import load
from ptycho.model.bundle import load_bundle
from ptycho.raw_data import RawData
from ptycho.workflows import components as plain
from tests.compat.conftest import small

torch = pytest.importorskip("torch")

from ptycho_torch import model_manager  # noqa: E402
from ptycho_torch.data_container_bridge import PtychoDataContainerTorch  # noqa: E402
from ptycho_torch.raw_data_bridge import RawDataTorch  # noqa: E402
from ptycho_torch.workflows import components  # noqa: E402


@pytest.fixture(scope="module")
def run(scan, tmp_path_factory):
    """One run of the whole: training, stitching, and what is on the disk."""
    folder = tmp_path_factory.mktemp("run")
    halves = scan.split("rows")
    config = small(output_dir=folder / "out", nepochs=2)
    return (*components.run_cdi_example_torch(*halves, config, M=16, do_stitching=True), config, halves)


def same_parameters(function, twin, extra=()):
    def listed(f):
        return [(p.name, p.default, p.kind) for p in inspect.signature(f).parameters.values() if p.name not in extra]

    return listed(function) == listed(twin)


def test_signatures_are_those_of_the_pair():
    assert same_parameters(components.run_cdi_example_torch, plain.run_cdi_example)
    assert same_parameters(components.train_cdi_model_torch, plain.train_cdi_model)
    assert same_parameters(components._reassemble_cdi_image_torch, plain.reassemble_cdi_image, {"train_results"})
    names = inspect.signature(components.load_inference_bundle_torch).parameters
    assert [(p.name, p.default) for p in names.values()] == [
        ("bundle_dir", inspect.Parameter.empty),
        ("model_name", "diffraction_to_obj"),
    ]
    assert list(inspect.signature(components._ensure_container).parameters) == ["data", "config"]
    assert list(inspect.signature(components._train_with_lightning).parameters) == [
        "train_container",
        "test_container",
        "config",
    ]


def test_results_are_those_of_the_pair(run):
    amplitude, phase, results, config, halves = run
    other = plain.run_cdi_example(*halves, config, M=16, do_stitching=True)
    assert set(results) == set(other[2])
    np.testing.assert_allclose(results["history"]["loss"], other[2]["history"]["loss"], rtol=1e-5)
    np.testing.assert_allclose(amplitude, other[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(1j * phase), np.exp(1j * other[1]), rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(results["global_offsets"], other[2]["global_offsets"])
    for name in ("train_container", "test_container"):
        mine, core = results[name], other[2][name]
        assert isinstance(mine, PtychoDataContainerTorch)
        assert isinstance(core, Container)
        for array in ("X", "local_offsets", "global_offsets", "coords_nominal", "coords_true", "coords", "nn_indices"):
            found = getattr(mine, array)
            assert isinstance(found, torch.Tensor)
            np.testing.assert_allclose(found, getattr(core, array), rtol=1e-5, atol=1e-5)
        assert len(mine) == len(core)


def test_a_run_keeps_its_model(run):
    _, _, results, config, _ = run
    assert [path.name for path in config.output_dir.iterdir() if path.name != RECORD] == ["wts.h5.zip"]
    stored = load_bundle(config.output_dir)
    assert stored.intensity_scale == results["intensity_scale"]
    assert stored.config.backend == "pytorch"
    for name, values in results["bundle"].params.items():
        np.testing.assert_array_equal(stored.params[name], values)


def test_without_a_folder_nothing_is_kept(scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amplitude, phase, results = components.run_cdi_example_torch(scan, None, small(output_dir=None))
    assert amplitude is phase is results["test_container"] is None
    assert "recon_amp" not in results
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_before_the_training(scan, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(components, "train_cdi_model_torch", lambda *_: pytest.fail("trained"))
    with pytest.raises(OutputError, match="cannot be written to"):
        components.run_cdi_example_torch(scan, None, small(output_dir=tmp_path / "file" / "out"))


def test_pytorch_computes_whatever_the_configuration_names(run, scan):
    results = components.train_cdi_model_torch(scan, None, small(backend="tensorflow"))
    assert results["bundle"].config.backend == "pytorch"
    assert params.get("backend") == "pytorch"


def test_turned_positions(run):
    _, _, results, config, halves = run
    turned = components._reassemble_cdi_image_torch(
        halves[1], config, True, False, True, 16, 2.0, train_results={"models": results["models"]}
    )
    expected = plain.reassemble_cdi_image(halves[1], config, True, False, True, 16, 2.0, model=results["bundle"])
    np.testing.assert_allclose(turned[0], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(turned[2]["global_offsets"], expected[2]["global_offsets"])
    with pytest.raises(ConfigError, match="train_results hold no model"):
        components._reassemble_cdi_image_torch(halves[1], config, train_results={})
    stored = components._reassemble_cdi_image_torch(halves[1], config, True, False, True, 16, 2.0)
    np.testing.assert_allclose(stored[0], expected[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="flip_x, flip_y and transpose"):
        components.run_cdi_example_torch(*halves, small(model_type="supervised", output_dir=None), flip_y=True)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_data_of_every_kind_become_tensors(scan, raw, gridsize):
    config = small(gridsize)
    arrays = (raw.xcoords, raw.ycoords, raw.diff3d, raw.probeGuess, raw.scan_index, raw.objectGuess)
    grouped = raw.generate_grouped_data(64, nsamples=16, seed=4, gridsize=gridsize)
    box = load(lambda: grouped, raw.probeGuess)
    forms = [scan, raw, RawDataTorch(*arrays, config), vars(raw), box]
    found = [components._ensure_container(data, config) for data in forms]
    for one in found:
        assert one.X.shape == (16, 64, 64, gridsize**2)
        assert (one.X.dtype, one.Y.dtype, one.probe.dtype) == (torch.float32, torch.complex64, torch.complex64)
        assert (one.nn_indices.dtype, one.local_offsets.dtype, one.global_offsets.dtype) == (
            torch.int32,
            torch.float64,
            torch.float64,
        )
        np.testing.assert_array_equal(one.nn_indices, found[0].nn_indices)
        np.testing.assert_allclose(one.X, found[0].X, rtol=1e-5)
    assert components._ensure_container(found[0], config) is found[0]
    np.testing.assert_array_equal(found[0].nn_indices, plain._container(scan, config, 16).indices)
    with pytest.raises(DataError, match="int has no diff3d"):
        components._ensure_container(3, config)


def test_a_container_trains(scan):
    config = small(2)
    box = components._ensure_container(scan, config)
    results = components._train_with_lightning(box, None, config)
    assert results["train_container"] is box
    assert results["test_container"] is None
    direct = plain.train_cdi_model(scan, None, config)
    np.testing.assert_allclose(results["history"]["loss"], direct["history"]["loss"], rtol=1e-5)
    predicted = results["models"]["diffraction_to_obj"].predict(box)
    assert predicted.shape == (16, 64, 64, 1)


def test_rawdata_torch(raw):
    arrays = (raw.xcoords, raw.ycoords, raw.diff3d, raw.probeGuess, raw.scan_index)
    mine = RawDataTorch(*arrays, raw.objectGuess, small(2, nphotons=5e6))
    assert isinstance(mine, RawData)
    assert params.get("nphotons") == 5e6
    assert params.get("gridsize") == 2
    params.set("gridsize", 3)
    first = mine.generate_grouped_data(64, 4, 5, 7, True)
    assert first["X_full"].shape == (5, 64, 64, 4)
    np.testing.assert_array_equal(first["nn_indices"][:, 0], np.arange(5))
    assert mine.generate_grouped_data(64, nsamples=5, gridsize=1, dataset_path="x")["X_full"].shape[-1] == 1
    assert RawDataTorch(*arrays).generate_grouped_data(64, K=9, nsamples=2)["X_full"].shape[-1] == 9


def test_a_container_of_tensors(raw):
    grouped = raw.generate_grouped_data(64, nsamples=3, gridsize=2)
    box = PtychoDataContainerTorch(grouped, raw.probeGuess)
    np.testing.assert_array_equal(box.X, grouped["X_full"])
    np.testing.assert_allclose(box.Y, grouped["Y"], atol=1e-6)
    np.testing.assert_allclose(box.Y_I, np.abs(grouped["Y"]), rtol=1e-6)
    np.testing.assert_allclose(box.Y_phi, np.angle(grouped["Y"]), rtol=1e-6)
    np.testing.assert_array_equal(box.coords_relative, box.coords_nominal)
    assert box.YY_full is raw.objectGuess
    assert "X (3, 64, 64, 4)" in repr(box)
    assert PtychoDataContainerTorch(grouped, None).probe is None
    with pytest.raises(DataError, match="X_full: not in the grouped data"):
        PtychoDataContainerTorch({}, None)
    with pytest.raises(DataError, match="Y: float32 of shape"):
        PtychoDataContainerTorch(grouped | {"Y": np.abs(grouped["Y"])}, None)


def test_bundles_by_name(run, trained, tmp_path):
    config = small(2)
    model_manager.save_torch_bundle(trained[2]["models"], tmp_path / "wts.h5", config, intensity_scale=4.0)
    params.cfg.clear()
    models, settings = model_manager.load_torch_bundle(tmp_path / "wts.h5")
    assert sorted(models) == ["autoencoder", "diffraction_to_obj"]
    assert settings["intensity_scale"] == params.get("intensity_scale") == 4.0
    assert (settings["gridsize"], settings["object.big"], params.get("N")) == (2, True, 64)
    model, again = components.load_inference_bundle_torch(tmp_path)
    assert again == settings
    assert model.backend == "pytorch"
    other, _ = components.load_inference_bundle_torch(str(tmp_path), "autoencoder")
    box = trained[2]["train_container"]
    np.testing.assert_array_equal(model.predict(box), other.predict(box))
    with pytest.raises(ConfigError, match="model_name: 'encoder' given, one of autoencoder, diffraction_to_obj"):
        components.load_inference_bundle_torch(tmp_path, "encoder")
    with pytest.raises(DataError, match="is no folder"):
        components.load_inference_bundle_torch(tmp_path / "none")
    with pytest.raises(DataError, match="there is no such file"):
        components.load_inference_bundle_torch(tmp_path.parent)
    with pytest.raises(ConfigError, match="models_dict holds nothing"):
        model_manager.save_torch_bundle({}, tmp_path / "none", config)
    with pytest.raises(ConfigError, match="models_dict holds diffraction_to_obj"):
        model_manager.save_torch_bundle({"diffraction_to_obj": "weights"}, tmp_path / "none", config)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_an_untrained_model_is_made_kept_and_read(gridsize, raw, tmp_path):
    given = {"n_filters_scale": 1, "nphotons": 1e5, "object.big": True, "start_iterations": 2, "label": "x"}
    module = model_manager.create_torch_model_with_gridsize(gridsize, 64, given)
    assert isinstance(module, torch.nn.Module)
    assert module.config.model.gridsize == gridsize
    shapes = {name: tuple(values.shape) for name, values in module.state_dict().items()}
    twin = model_manager.create_torch_model_with_gridsize(gridsize, 64, given)
    assert {name: tuple(values.shape) for name, values in twin.state_dict().items()} == shapes
    twin.load_state_dict(module.state_dict())
    model_manager.save_torch_bundle({"diffraction_to_obj": module}, tmp_path / "wts.h5", module.config)
    model, _ = components.load_inference_bundle_torch(tmp_path)
    grouped = raw.generate_grouped_data(64, nsamples=3, gridsize=gridsize)
    assert model.predict(load(lambda: grouped, raw.probeGuess)).shape == (3, 64, 64, 1)
    assert model_manager.create_torch_model_with_gridsize(1, 128).config == TrainingConfig(
        model=type(module.config.model)(N=128)
    )
    with pytest.raises(ConfigError, match="N = 48"):
        model_manager.create_torch_model_with_gridsize(gridsize, 48)
