"""Configurations: defaults, limits, dictionaries, YAML files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.config import (
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    config_from_dict,
    config_to_dict,
    known_keys,
    load_config,
    load_yaml_config,
    save_config,
    validate,
)
from ptycho.config.settings import describe, field_types, split_optional
from ptycho.errors import ConfigError, OutputError

CONFIGS = (ModelConfig, TrainingConfig, InferenceConfig)


def values_of(field, hint):
    """Values that a field admits."""
    plain, optional = split_optional(hint)
    choices = field.metadata["choices"]
    lowest = field.metadata["at_least"] if field.metadata["at_least"] is not None else -1000
    highest = field.metadata["at_most"] if field.metadata["at_most"] is not None else 1e6
    numbers = st.floats(lowest, highest, exclude_min=True)
    if field.metadata["above"] is not None:
        numbers = st.floats(field.metadata["above"], highest, exclude_min=True)
    strategy = (
        st.sampled_from(choices)
        if choices
        else {
            bool: st.booleans(),
            int: st.integers(int(lowest), int(min(highest, 10_000))),
            float: numbers,
            str: st.text("abcdefgh_", min_size=1, max_size=8),
        }.get(plain, st.text("abcdefgh/._", min_size=1, max_size=12).map(plain))
    )
    return st.one_of(st.none(), strategy) if optional else strategy


def configs(cls):
    hints = field_types(cls)
    return st.builds(
        cls,
        **{
            field.name: configs(hints[field.name]) if field.name == "model" else values_of(field, hints[field.name])
            for field in dataclasses.fields(cls)
        },
    )


def test_usual_defaults():
    config = TrainingConfig()
    assert (config.model.N, config.model.gridsize, config.model.n_filters_scale) == (64, 1, 2)
    assert (config.batch_size, config.nepochs, config.n_groups, config.neighbor_count) == (16, 50, 512, 4)
    assert (config.nll_weight, config.mae_weight, config.nphotons) == (1.0, 0.0, 1e9)
    assert (config.model.amp_activation, config.model.probe_scale, config.backend) == ("sigmoid", 4.0, "pytorch")


@pytest.mark.parametrize("cls", CONFIGS)
def test_defaults_are_valid_and_explained(cls):
    validate(cls())
    for field in dataclasses.fields(cls):
        if field.name != "model":
            assert len(field.metadata["help"]) > 10, f"{field.name} is not explained"
            assert describe(field, field_types(cls)[field.name])


def test_fields_are_assignable_and_checked_when_used():
    config = TrainingConfig(model=ModelConfig(N=0))
    with pytest.raises(ConfigError, match="N = 0 is not possible: expected one of 64, 128, 256"):
        validate(config)
    config.model.N = np.int64(128)
    validate(config)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nepochs", 0, "an integer, at least 1"),
        ("nepochs", "20", "an integer"),
        ("nepochs", True, "an integer"),
        ("batch_size", 2.5, "an integer"),
        ("nphotons", -1.0, "a number, above 0 .photons."),
        ("nphotons", float("nan"), "a number, above 0"),
        ("learning_rate", float("inf"), "a number"),
        ("validation_fraction", 1.0, "at most 0.9"),
        ("lr_schedule", "linear", "one of constant, cosine, onecycle, plateau"),
        ("probe_trainable", "false", "true or false"),
        ("n_subsample", 0, "or none"),
        ("output_dir", 3, "a path"),
        ("model", {"N": 64}, "ModelConfig"),
    ],
)
def test_validation_names_the_field(name, value, words):
    config = TrainingConfig()
    setattr(config, name, value)
    with pytest.raises(ConfigError, match=rf"^{name} = .*{words}"):
        validate(config)


def test_group_must_find_its_neighbours():
    config = TrainingConfig(model=ModelConfig(gridsize=3), neighbor_count=7)
    with pytest.raises(ConfigError, match=r"^neighbor_count = 7 .*gridsize = 3.*at least 8"):
        validate(config)
    config.enable_oversampling, config.neighbor_pool_size = True, 9
    validate(config)
    config.neighbor_pool_size = 6
    with pytest.raises(ConfigError, match=r"^neighbor_pool_size = 6 "):
        validate(config)


def test_a_loss_without_weight_is_refused():
    with pytest.raises(ConfigError, match="nll_weight = 0"):
        validate(TrainingConfig(nll_weight=0.0))
    validate(TrainingConfig(nll_weight=0.0, mae_weight=1.0))


@pytest.mark.parametrize("cls", CONFIGS)
@given(data=st.data())
def test_dictionary_round_trip(cls, data):
    config = data.draw(configs(cls))
    assert config_from_dict(cls, config_to_dict(config)) == config


@given(config=configs(TrainingConfig))
def test_yaml_round_trip(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "settings.yaml"
    save_config(config, path)
    assert load_config(TrainingConfig, path) == config


def test_flat_and_nested_model_keys_mean_the_same():
    flat = config_from_dict(TrainingConfig, {"N": 128, "gridsize": 2, "nepochs": 3})
    nested = config_from_dict(TrainingConfig, {"model": {"N": 128, "gridsize": 2}, "nepochs": 3})
    assert flat == nested == TrainingConfig(model=ModelConfig(N=128, gridsize=2), nepochs=3)
    assert config_from_dict(TrainingConfig, {"model": ModelConfig(N=128, gridsize=2), "nepochs": 3}) == flat


def test_the_same_key_flat_and_nested():
    assert config_from_dict(TrainingConfig, {"N": 128, "model": {"N": 128}}).model.N == 128
    with pytest.raises(ConfigError, match="N stands twice"):
        config_from_dict(TrainingConfig, {"N": 64, "model": {"N": 128}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nepoch": 3}, "unknown key nepoch: did you mean nepochs"),
        ({"model": {"gridsiz": 2}}, "unknown key gridsiz: did you mean gridsize"),
        ({"n_images": 3}, "unknown key n_images: did you mean n_groups"),
        ({"model": {"nepochs": 3}}, "unknown key nepochs"),
        ({"xyzzy": 3}, "unknown key xyzzy: '--help' of the command lists"),
        ({3: 3}, "unknown key 3"),
        ({"model": 64}, "model = 64 .*expected names with values"),
        ([1, 2], "holds list: expected names with values"),
    ],
)
def test_unknown_keys_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(TrainingConfig, values)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("probe_trainable", "False", False),
        ("probe_trainable", "yes", True),
        ("probe_trainable", "0", False),
        ("nepochs", "7", 7),
        ("n_groups", "1e3", 1000),
        ("n_groups", 1000.0, 1000),
        ("nphotons", "1e6", 1e6),
        ("nphotons", 1000, 1000.0),
        ("n_subsample", "None", None),
        ("n_subsample", "null", None),
        ("n_subsample", "12", 12),
        ("precision", 32, "32"),
    ],
)
def test_text_is_read_as_its_field(name, text, value):
    got = getattr(config_from_dict(TrainingConfig, {name: text}), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("probe_trainable", "maybe"),
        ("probe_trainable", 2),
        ("nepochs", "2.5"),
        ("nepochs", "many"),
        ("nepochs", True),
        ("nepochs", None),
        ("nepochs", [3]),
        ("nphotons", "1e999"),
        ("nphotons", True),
        ("backend", True),
        ("output_dir", ""),
        ("lr_schedule", "linear"),
    ],
)
def test_text_that_is_no_such_value_is_refused(name, text):
    with pytest.raises(ConfigError, match=f"^{name} = "):
        config_from_dict(TrainingConfig, {name: text})


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("nphotons: 1e6\nN: 128\nnepochs: 3\n")
    config = load_config(TrainingConfig, path, nepochs=5, N=64)
    assert (config.nphotons, config.nepochs, config.model.N) == (1e6, 5, 64)


def test_empty_yaml_is_the_default(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("# nothing\n")
    assert load_config(TrainingConfig, path) == TrainingConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\n", "not valid YAML at line"),
        (b"- 1\n- 2\n", "holds a list"),
        (b"\xff\xfe\x00", "it is not text"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML at line 1"),
    ],
)
def test_bad_yaml_is_refused_with_its_name(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"settings\.yaml .*{message}"):
        load_yaml_config(path)


def test_missing_yaml(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_yaml_config(tmp_path / "absent.yaml")


def test_unwritable_yaml_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        save_config(TrainingConfig(), tmp_path / "absent" / "settings.yaml")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="no file replaces a folder"):
        save_config(TrainingConfig(), tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_known_keys_are_flat():
    keys = known_keys(TrainingConfig)
    assert {"N", "gridsize", "nepochs", "seed"} <= keys
    assert "model" not in keys
