"""Former spellings: accepted in Python, as flags and in files, with a warning that names the new one."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from ptycho import physics
from ptycho.config import EngineConfig, EngineSettings, ModelConfig, TrainingConfig, config_from_dict, load_config
from ptycho.config.deprecated import REMOVAL, former_names, former_names_of, rename_keys, warn_renamed
from ptycho.config.flags import add_flags, combine, make_parser, parse_flags
from ptycho.config.legacy import config_from_legacy, dataclass_to_legacy_dict
from ptycho.engines import State
from ptycho.errors import ConfigError

ENGINE = [
    ("averaged", "full_batch_epochs", 1),
    ("engine_batch", "engine_batch_size", 4),
    ("shift", "interpolation", "fourier"),
]
ALL = [(EngineConfig, *each) for each in ENGINE] + [(ModelConfig, "estimate_passes", "start_iterations", 3)]


def parsed(cls, *words, config=None):
    parser = make_parser("ptycho trial", "", "", "")
    add_flags(parser, cls, "settings")
    _, flags = parse_flags(parser, words, [cls])
    return combine([cls], flags, config)[0][0]


@pytest.mark.parametrize(("cls", "old", "new", "value"), [*ALL, (EngineSettings, "averaged", "full_batch_epochs", 2)])
def test_python_accepts_the_former_name(cls, old, new, value):
    with pytest.warns(FutureWarning, match=f"{old} is now called {new}; .* version {REMOVAL}"):
        config = cls(**{old: value})
    assert getattr(config, new) == value
    with pytest.warns(FutureWarning, match=new):
        assert getattr(config, old) == value
    with pytest.warns(FutureWarning, match=new):
        setattr(config, old, getattr(cls(), new))
    assert config == cls()
    with pytest.warns(FutureWarning, match=new):
        assert dataclasses.replace(config, **{old: value}) == cls(**{new: value})


@pytest.mark.parametrize(("cls", "old", "new", "value"), ALL)
@pytest.mark.parametrize("spelt", ["--{}", "--{}="])
def test_a_former_flag_is_read(cls, old, new, value, spelt):
    words = [f"--{old}", str(value)] if spelt == "--{}" else [f"--{old.replace('_', '-')}={value}"]
    with pytest.warns(FutureWarning, match=f"--{old} is now called --{new}"):
        assert getattr(parsed(cls, *words), new) == value


@pytest.mark.parametrize(("old", "new", "value"), ENGINE)
def test_a_former_key_of_a_file_is_read(old, new, value, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(f"{old}: {value}\n", encoding="utf-8")
    with pytest.warns(FutureWarning, match=f"{old} in .*settings.yaml is now called {new}"):
        assert getattr(load_config(EngineConfig, path), new) == value
    with pytest.warns(FutureWarning, match=new):
        assert getattr(parsed(EngineConfig, config=str(path)), new) == value


@pytest.mark.parametrize("text", ["estimate_passes: 3\n", "model:\n  estimate_passes: 3\n"])
def test_files_keep_a_key_for_ever(text, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(TrainingConfig, path).model.start_iterations == 3
    assert parsed(TrainingConfig, config=str(path)).model.start_iterations == 3
    old = dataclass_to_legacy_dict(TrainingConfig())
    old["estimate_passes"] = old.pop("start_iterations") + 1
    assert config_from_legacy(TrainingConfig, old).model.start_iterations == 21


def test_both_spellings_at_once_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown key averaged"):
        config_from_dict(EngineConfig, {"averaged": 1, "full_batch_epochs": 2})


def test_present_names_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataclasses.replace(EngineConfig(full_batch_epochs=1), epochs=2).full_batch_epochs == 1
        assert rename_keys(EngineConfig, {"epochs": 3}, "a file") == {"epochs": 3}


def test_a_class_of_its_own():
    @former_names({"width": "side"})
    @dataclasses.dataclass
    class Square:
        side: float = 1.0

    assert former_names_of(Square) == {"width": "side"}
    with pytest.warns(FutureWarning, match="Square.width is now called side"):
        assert Square(width=2.0).side == 2.0
    assert Square(3.0) == Square(side=3.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("wave_change", "exit_wave_update"),
        ("modulus_update", "pie_object_update"),
        ("total_variation", "squared_gradient"),
    ],
)
def test_former_functions_of_physics(old, new):
    with pytest.warns(FutureWarning, match=f"ptycho.physics.{old} is now called ptycho.physics.{new}"):
        assert getattr(physics, old) is getattr(physics, new)


def test_a_warning_says_where_and_until_when():
    with pytest.warns(
        FutureWarning, match=r"^a is now called b; the old name stops working in version 9\.1\.$"
    ) as seen:
        warn_renamed("a", "b", "9.1", stacklevel=1)
    assert seen[0].filename == __file__


def test_a_state_has_its_former_attributes():
    import numpy as np

    none = np.zeros((1, 2))
    state = State(none, (0.0, 0.0), none, none, none, auxiliary={"m": none})
    with pytest.warns(FutureWarning, match=r"State.memory is now called auxiliary"):
        assert state.memory is state.auxiliary
    with pytest.warns(FutureWarning, match=r"State.shift is now called interpolation"):
        assert state.shift == "bilinear"
