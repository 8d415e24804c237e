"""From the settings of PtychoPINN's PyTorch side to a configuration: every rule, every refusal."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from ptycho.config import torch_fields, validate
from ptycho.config.bridge import to_inference_config, to_model_config, to_training_config
from ptycho.config.torch_fields import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho.errors import ConfigError

FILES = {"train_data_file": "train.npz", "test_data_file": Path("test.npz"), "n_groups": 64, "nphotons": 1e6}


def training(data=None, model=None, train=None, **overrides):
    data, model = data or DataConfig(), model or ModelConfig()
    given = {name: value for name, value in (FILES | overrides).items() if value is not None}
    return to_training_config(to_model_config(data, model), data, model, train or TrainingConfig(), given)


def test_the_model():
    data = DataConfig(N=128, grid_size=(3, 3), probe_scale=2.0)
    model = ModelConfig(n_filters_scale=1, object_big=False, probe_big=False, pad_object=False, architecture="mine")
    found = to_model_config(data, model)
    assert (found.N, found.gridsize, found.probe_scale) == (128, 3, 2.0)
    assert (found.n_filters_scale, found.architecture) == (1, "mine")
    assert (found.object_big, found.probe_big, found.pad_object) == (False, False, False)
    assert to_model_config(data, ModelConfig(gaussian_smoothing_sigma=1.5)).gaussian_smoothing_sigma == 1.5
    changed = to_model_config(data, model, {"N": 64, "start_iterations": None, "probe_mask": True})
    assert (changed.N, changed.start_iterations, changed.probe_mask, changed.gridsize) == (64, None, True, 3)


@pytest.mark.parametrize(("mode", "model_type"), [("Unsupervised", "pinn"), ("Supervised", "supervised")])
def test_modes(mode, model_type):
    assert to_model_config(DataConfig(), ModelConfig(mode=mode)).model_type == model_type


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("silu", "swish"), ("SiLU", "swish"), *((name, name) for name in ("sigmoid", "swish", "softplus", "relu"))],
)
def test_activations(theirs, ours):
    assert to_model_config(DataConfig(), ModelConfig(amp_activation=theirs)).amp_activation == ours


@pytest.mark.parametrize(
    ("fields", "masked"),
    [
        ({}, False),
        ({"probe_mask": None}, False),
        ({"probe_mask": True}, True),
        ({"probe_mask": np.ones((64, 64))}, True),
        ({"probe_mask": False, "probe_mask_tensor": np.ones((64, 64))}, True),
    ],
)
def test_a_mask_given_as_an_array_is_a_mask(fields, masked):
    assert to_model_config(DataConfig(), ModelConfig(**fields)).probe_mask is masked


@pytest.mark.parametrize(
    ("data", "model", "overrides", "message"),
    [
        ({"grid_size": (1, 2)}, {}, None, r"grid_size = \(1, 2\) is not possible: expected a square, like \(2, 2\)"),
        ({}, {"mode": "Both"}, None, "mode = Both is not possible: expected one of Unsupervised, Supervised"),
        ({}, {"amp_activation": "gelu"}, None, "amp_activation = gelu is not possible: expected one of silu"),
        ({}, {}, {"grid_size": 2}, "overrides has the unknown key grid_size: did you mean gridsize"),
    ],
)
def test_models_that_are_not_possible(data, model, overrides, message):
    with pytest.raises(ConfigError, match=message):
        to_model_config(DataConfig(**data), ModelConfig(**model), overrides)


def test_the_training():
    data = DataConfig(K=9, nphotons=2e7, subsample_seed=5)
    theirs = TrainingConfig(epochs=7, batch_size=4, learning_rate=0.01, gradient_clip_val=2.0, output_dir="out")
    found = training(data, ModelConfig(intensity_scale_trainable=True), theirs, nphotons=None)
    assert (found.nepochs, found.batch_size, found.learning_rate, found.gradient_clip) == (7, 4, 0.01, 2.0)
    assert (found.neighbor_count, found.nphotons, found.subsample_seed) == (9, 2e7, 5)
    assert found.intensity_scale_trainable is True
    assert (found.nll_weight, found.mae_weight, found.backend) == (1.0, 0.0, "pytorch")
    assert (found.train_data_file, found.test_data_file) == (Path("train.npz"), Path("test.npz"))
    assert (found.output_dir, found.n_groups) == (Path("out"), 64)
    validate(found)


def test_files_and_groups_may_stand_in_the_settings():
    given = TrainingConfig(train_data_file="a.npz", test_data_file="b.npz", n_groups=3)
    found = training(train=given, train_data_file=None, test_data_file=None, n_groups=None)
    assert (found.train_data_file, found.test_data_file, found.n_groups) == (Path("a.npz"), Path("b.npz"), 3)


def test_overrides_win():
    found = training(train=TrainingConfig(epochs=7, batch_size=4), nepochs=2, batch_size=8, mae_weight=0.5, seed=3)
    assert (found.nepochs, found.batch_size, found.mae_weight, found.seed) == (2, 8, 0.5, 3)
    assert training(nphotons=1e5).nphotons == 1e5


@pytest.mark.parametrize(
    ("fields", "model"),
    [({"nll": False}, {}), ({"torch_loss_mode": "mae"}, {}), ({}, {"loss_function": "MAE"})],
)
def test_without_the_likelihood_the_absolute_error_remains(fields, model):
    found = training(model=ModelConfig(**model), train=TrainingConfig(**fields))
    assert (found.nll_weight, found.mae_weight) == (0.0, 1.0)
    validate(found)


@pytest.mark.parametrize(
    ("scheduler", "schedule"), [("Default", "constant"), ("WarmupCosine", "cosine"), ("ReduceLROnPlateau", "plateau")]
)
def test_schedules(scheduler, schedule):
    assert training(train=TrainingConfig(scheduler=scheduler)).lr_schedule == schedule


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, ("auto", 1, "auto")),
        ({"device": "cpu"}, ("cpu", 1, "auto")),
        ({"n_devices": 2}, ("auto", 2, "ddp")),
        ({"n_devices": 3, "strategy": None}, ("auto", 3, "auto")),
        ({"n_devices": "auto", "strategy": "ddp_spawn"}, ("auto", 1, "auto")),
    ],
)
def test_where_it_runs(fields, place):
    found = training(train=TrainingConfig(**fields))
    assert (found.device, found.devices, found.strategy) == place


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "nphotons",
            r"nphotons = 100000 is the default of the PyTorch settings, and that of a TrainingConfig is 1e\+09",
        ),
        ("n_groups", "n_groups is missing: give it, like overrides={'n_groups': 512}"),
        ("train_data_file", "train_data_file is missing: give it"),
    ],
)
def test_what_a_training_needs(missing, message):
    with pytest.raises(ConfigError, match=message):
        training(**{missing: None})


def test_a_training_without_test_data_warns():
    with pytest.warns(UserWarning, match="test_data_file is not given"):
        assert training(test_data_file=None).test_data_file is None


def test_the_inference():
    data, model = DataConfig(K=7), to_model_config(DataConfig(), ModelConfig())
    files = {"model_path": "model", "test_data_file": Path("test.npz")}
    found = to_inference_config(model, data, InferenceConfig(), files)
    assert (found.model, found.neighbor_count, found.backend) == (model, 7, "pytorch")
    assert (found.model_path, found.test_data_file, found.batch_size) == (Path("model"), Path("test.npz"), 32)
    validate(found)
    assert to_inference_config(model, data, InferenceConfig(batch_size=5), files).batch_size == 5
    changed = to_inference_config(model, data, InferenceConfig(batch_size=5), {**files, "batch_size": 6, "n_groups": 2})
    assert (changed.batch_size, changed.n_groups) == (6, 2)
    for name in files:
        with pytest.raises(ConfigError, match=f"{name} is missing"):
            to_inference_config(model, data, InferenceConfig(), {k: v for k, v in files.items() if k != name})
    with pytest.raises(ConfigError, match="unknown key epochs"):
        to_inference_config(model, data, InferenceConfig(), {"epochs": 3})


def test_settings_without_effect_are_named():
    with pytest.warns(UserWarning, match="x_bounds, cbam_decoder: accepted, without effect here"):
        to_model_config(DataConfig(x_bounds=(0.2, 0.8)), ModelConfig(cbam_decoder=True))
    with pytest.warns(UserWarning, match="accum_steps: accepted"):
        training(train=TrainingConfig(accum_steps=2))
    with pytest.warns(UserWarning, match="training_directories: accepted"):
        training(train=TrainingConfig(training_directories=["a"]))
    with pytest.warns(UserWarning, match="scheduler = Exponential: accepted"):
        assert training(train=TrainingConfig(scheduler="Exponential")).lr_schedule == "constant"
    files = {"model_path": "m", "test_data_file": "t"}
    with pytest.warns(UserWarning, match="window: accepted"):
        to_inference_config(
            to_model_config(DataConfig(), ModelConfig()), DataConfig(), InferenceConfig(window=3), files
        )


def test_channels_follow_from_the_grid():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_model_config(DataConfig(grid_size=(1, 1), C=1), ModelConfig(C_model=1, C_forward=1))
    with pytest.warns(UserWarning, match="C, C_model: accepted"):
        to_model_config(DataConfig(grid_size=(2, 2), C=3), ModelConfig(C_model=9))


@pytest.mark.parametrize("cls", [DataConfig, ModelConfig, TrainingConfig, InferenceConfig, DatagenConfig])
def test_every_field_can_be_set_and_travels(cls):
    config = cls()
    assert torch_fields.without_effect(config) == []
    assert pickle.loads(pickle.dumps(config)) == config
    for item in dataclasses.fields(cls):
        assert torch_fields.without_effect(cls(**{item.name: "other"})) in ([], [item.name])
