"""PtychoPINN's saving and loading: the model that was trained last, archives by name."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho import model_manager, params
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import load_bundle
from ptycho.workflows.components import load_inference_bundle, train_cdi_model
from tests.compat.conftest import small


def test_the_last_trained_model_is_saved(scan, tmp_path):
    pytest.importorskip("torch")
    results = train_cdi_model(scan, None, small())
    assert params.get("intensity_scale") == results["intensity_scale"]
    model_manager.save(tmp_path / "out")
    stored = load_bundle(tmp_path / "out" / "wts.h5.zip")
    for name, values in results["bundle"].params.items():
        np.testing.assert_array_equal(stored.params[name], values)
    params.set("h5_path", "other")
    model_manager.save(str(tmp_path))
    assert load_bundle(tmp_path / "other.zip").intensity_scale == results["intensity_scale"]


def test_nothing_trained_is_nothing_saved(tmp_path):
    with pytest.raises(DataError, match="No model was trained in this process"):
        model_manager.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("")
    params.set("trained_model", trained[1]["bundle"])
    with pytest.raises(OutputError, match="could not be written"):
        model_manager.save(tmp_path / "file")


def test_archives_by_name(trained, tmp_path):
    manager = model_manager.ModelManager
    manager.save_multiple_models(trained[2]["models"], tmp_path / "wts.h5", {}, 7.5)
    params.cfg.pop("intensity_scale", None)
    models = manager.load_multiple_models(tmp_path / "wts.h5")
    assert sorted(models) == ["autoencoder", "diffraction_to_obj"]
    assert models["autoencoder"].intensity_scale == params.get("intensity_scale") == 7.5
    assert params.get("gridsize") == 2
    assert list(manager.load_multiple_models(str(tmp_path / "wts.h5"), ["diffraction_to_obj"])) == [
        "diffraction_to_obj"
    ]
    with pytest.raises(ConfigError, match="model_names: 'encoder' given, of autoencoder, diffraction_to_obj expected"):
        manager.load_multiple_models(tmp_path / "wts.h5", ["encoder"])
    with pytest.raises(ConfigError, match="models_dict holds nothing; expected diffraction_to_obj"):
        manager.save_multiple_models({}, tmp_path / "none")
    with pytest.raises(ConfigError, match="models_dict holds other"):
        manager.save_multiple_models({"other": trained[1]["bundle"]}, tmp_path / "none")
    with pytest.raises(DataError, match="there is no such file"):
        manager.load_multiple_models(tmp_path / "none")


def test_a_loaded_model_predicts_as_the_trained_one(trained, tmp_path):
    params.set("trained_model", trained[1]["bundle"])
    model_manager.save(tmp_path)
    assert model_manager.load_inference_bundle is load_inference_bundle
    model, config = load_inference_bundle(tmp_path)
    assert (config["N"], config["gridsize"], config["intensity_scale"]) == (64, 1, trained[1]["intensity_scale"])
    box = trained[1]["train_container"]
    again = trained[1]["models"]["diffraction_to_obj"].predict(box)
    np.testing.assert_allclose(model.predict(box), again, rtol=1e-5, atol=1e-6)
