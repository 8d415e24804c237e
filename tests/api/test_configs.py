"""Configurations refuse what a field does not admit when they are made, and explain every field in `help()`."""

import dataclasses
import pydoc

import pytest

from ptycho import ConfigError, EngineConfig, InferenceConfig, ModelConfig, TrainingConfig

CONFIGS = (ModelConfig, TrainingConfig, InferenceConfig, EngineConfig)


@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (ModelConfig, {"N": 100}),
        (ModelConfig, {"N": -64}),
        (ModelConfig, {"start_iterations": -1}),
        (ModelConfig, {"probe_mask": "no"}),
        (TrainingConfig, {"nepochs": -3}),
        (TrainingConfig, {"batch_size": 2.5}),
        (TrainingConfig, {"nphotons": float("nan")}),
        (TrainingConfig, {"model": {"N": 64}}),
        (InferenceConfig, {"n_groups": 0}),
        (EngineConfig, {"epochs": 0}),
        (EngineConfig, {"engine": "unheard-of"}),
    ],
)
def test_a_constructor_names_the_field(cls, given):
    (name,) = given
    with pytest.raises(ConfigError, match=f"^{name} = "):
        cls(**given)
    with pytest.raises(ConfigError, match=f"^{name} = "):
        dataclasses.replace(cls(), **given)


def test_the_pattern_size_may_wait():
    """As ptychodus has it: the size is filled in when the data are known."""
    config = TrainingConfig(model=ModelConfig(N=0))
    config.model.N = 128
    assert dataclasses.replace(config).model.N == 128


@pytest.mark.parametrize("cls", CONFIGS)
def test_help_explains_every_field(cls):
    text = " ".join(pydoc.plain(pydoc.render_doc(cls)).split())
    for field in dataclasses.fields(cls):
        assert f"{field.name} : " in text
        assert field.metadata.get("help", "") in text or "\n" in field.metadata["help"]
