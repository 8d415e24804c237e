"""The bridge to PtychoPINN's flat settings dictionary."""

from pathlib import Path

import pytest

from ptycho.config import (
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    config_from_legacy,
    publish,
    published,
    update_legacy_dict,
)
from ptycho.config.config import dataclass_to_legacy_dict
from ptycho.errors import ConfigError


def test_training_names():
    config = TrainingConfig(
        model=ModelConfig(N=128, gridsize=3, object_big=False, probe_big=False, probe_mask=True, pad_object=False),
        train_data_file=Path("/data/train.npz"),
        test_data_file=Path("/data/test.npz"),
        output_dir=Path("/out"),
        probe_trainable=True,
        positions_provided=False,
        n_subsample=1024,
        nphotons=5e8,
    )
    cfg = {"kept": 1}
    update_legacy_dict(cfg, config)
    expected = {
        "kept": 1,
        "N": 128,
        "gridsize": 3,
        "object.big": False,
        "probe.big": False,
        "probe.mask": True,
        "pad_object": False,
        "probe.trainable": True,
        "intensity_scale.trainable": True,
        "positions.provided": False,
        "train_data_file_path": "/data/train.npz",
        "test_data_file_path": "/data/test.npz",
        "output_prefix": "/out",
        "n_subsample": 1024,
        "nphotons": 5e8,
        "n_groups": 512,
    }
    assert {key: cfg.get(key) for key in expected} == expected
    assert not {"object_big", "probe_mask", "output_dir", "train_data_file", "model"} & set(cfg)


def test_inference_names():
    cfg = {}
    update_legacy_dict(cfg, InferenceConfig(model_path=Path("/model"), test_data_file=Path("/t.npz"), debug=True))
    assert (cfg["model_path"], cfg["test_data_file_path"], cfg["debug"]) == ("/model", "/t.npz", True)
    assert cfg["output_prefix"] == "inference_outputs"


def test_none_leaves_the_value_alone():
    cfg = {"n_subsample": 7, "test_data_file_path": "old.npz"}
    update_legacy_dict(cfg, TrainingConfig())
    assert cfg["n_subsample"] == 7
    assert cfg["test_data_file_path"] == "old.npz"
    assert dataclass_to_legacy_dict(TrainingConfig())["n_subsample"] is None


def test_a_configuration_comes_back_from_its_dictionary():
    config = TrainingConfig(model=ModelConfig(N=128, object_big=False), output_dir=Path("/out"), n_subsample=7, seed=3)
    assert config_from_legacy(TrainingConfig, {**dataclass_to_legacy_dict(config), "label": "x"}) == config
    assert config_from_legacy(ModelConfig, {"probe.mask": True, "N": 64}) == ModelConfig(probe_mask=True)
    with pytest.raises(ConfigError, match="gridsize = many"):
        config_from_legacy(ModelConfig, {"gridsize": "many"})


def test_publish_writes_the_shared_dictionary(monkeypatch):
    monkeypatch.setattr(published, "cfg", published.default_values())
    publish(TrainingConfig(model=ModelConfig(N=256)), intensity_scale=3.5)
    assert published.cfg["N"] == 256
    assert published.cfg["intensity_scale"] == 3.5
    assert published.cfg["max_position_jitter"] == 10
