"""Command-line flags made from configuration classes; precedence of flags, file and defaults."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ptycho.config import TrainingConfig
from ptycho.config.flags import add_flags, combine, make_parser, parse_flags
from ptycho.config.settings import setting
from ptycho.errors import ConfigError


@dataclass
class Extra:
    """Options of a command."""

    force: bool = setting(False, "replace what is there")
    seed: int = setting(3, "seed of this")
    output_dir: Path | None = setting(None, "where it goes")
    dask: str | None = setting(None, "who works", alone="local")


CLASSES = (TrainingConfig, Extra)


def read(*words, config_file=None, classes=CLASSES):
    parser = make_parser("ptycho test", "SCAN", "What it does.", "examples:\n  ptycho test scan.npz")
    parser.add_argument("scan", nargs="?")
    seen = set()
    for cls in classes:
        seen |= add_flags(parser, cls, cls.__name__, skip=seen)
    own, flags = parse_flags(parser, words, classes)
    configs, given = combine(classes, flags, config_file)
    return own, configs, given


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flat_flags_reach_the_nested_model():
    _, (training, _), given = read("--N", "128", "--gridsize=2", "--nepochs", "7")
    assert (training.model.N, training.model.gridsize, training.nepochs) == (128, 2, 7)
    assert given == {"N", "gridsize", "nepochs"}


def test_dashes_and_underscores_mean_the_same():
    _, (training, _), _ = read("--batch-size", "8", "--n_groups", "9")
    assert (training.batch_size, training.n_groups) == (8, 9)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--probe_trainable", "true"], True),
        (["--probe_trainable", "False"], False),
        (["--probe-trainable=no"], False),
        (["--probe_trainable"], True),
        (["--probe_trainable", "--nepochs", "3"], True),
        (["--probe_trainable", "scan.npz"], True),
        ([], False),
    ],
)
def test_switches(words, value):
    own, (training, _), _ = read(*words)
    assert training.probe_trainable is value
    assert own.get("scan") == ("scan.npz" if "scan.npz" in words else None)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--dask", "scan.npz"], "local"),
        (["scan.npz", "--dask"], "local"),
        (["scan.npz", "--dask", "--seed", "5"], "local"),
        (["--dask", "tcp://host:8786", "scan.npz"], "tcp://host:8786"),
        (["--dask", "4", "scan.npz"], "4"),
        (["--dask=somewhere", "scan.npz"], "somewhere"),
        (["--dask", "none", "scan.npz"], None),
        (["scan.npz"], None),
    ],
)
def test_a_word_whose_flag_may_stand_alone(words, value):
    own, (_, extra), _ = read(*words)
    assert extra.dask == value
    assert own["scan"] == "scan.npz"


def test_a_switch_of_the_nested_model_may_stand_alone():
    _, (training, _), _ = read("--probe_mask", "scan.npz")
    assert training.model.probe_mask is True


def test_none_is_a_value():
    _, (training, _), _ = read("--gradient_clip", "none", "--n_subsample", "12")
    assert training.gradient_clip is None
    assert training.n_subsample == 12


def test_a_key_of_two_classes_goes_to_both():
    _, (training, extra), _ = read("--seed", "5", "--out", "there")
    assert (training.seed, extra.seed) == (5, 5)
    assert training.output_dir == extra.output_dir == Path("there")
    _, (training, extra), _ = read()
    assert (training.seed, extra.seed) == (0, 3)


def test_flags_win_over_the_file_and_the_file_over_defaults(yaml_file):
    path = yaml_file("nepochs: 3\nbatch_size: 4\nforce: true\nmodel:\n  N: 128\n  gridsize: 2\n")
    _, (training, extra), given = read("--nepochs", "9", "--N", "256", config_file=path)
    assert (training.nepochs, training.batch_size, training.n_groups) == (9, 4, 512)
    assert (training.model.N, training.model.gridsize, extra.force) == (256, 2, True)
    assert given == {"nepochs", "batch_size", "force", "N", "gridsize"}


def test_flat_and_nested_keys_of_a_file(yaml_file):
    _, (flat, _), _ = read(config_file=yaml_file("N: 128\n"))
    _, (nested, _), _ = read(config_file=yaml_file("model: {N: 128}\n"))
    assert flat == nested
    with pytest.raises(ConfigError, match="N stands twice"):
        read(config_file=yaml_file("N: 64\nmodel: {N: 128}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nepoch: 3\n", r"settings\.yaml has the unknown key nepoch: did you mean nepochs\?"),
        ("forced: true\n", r"unknown key forced: did you mean force\?"),
        ("model: {sede: 3}\n", "unknown key sede: did you mean seed"),
        ("model: 3\n", "model = 3 .*expected names with values"),
        ("nepochs: many\n", "^nepochs = many"),
    ],
)
def test_a_wrong_file_is_refused(yaml_file, text, message):
    with pytest.raises(ConfigError, match=message):
        read(config_file=yaml_file(text))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nepoch", "3"], r"Unknown flag --nepoch: did you mean --nepochs\?"),
        (["--xyzzy=1"], r"Unknown flag --xyzzy: 'ptycho test --help' lists"),
        (["a.npz", "b.npz"], r"'b\.npz' is one argument too many"),
        (["--nepochs"], r"--nepochs needs a value: 'ptycho test --help'"),
        (["--out"], r"--out needs a value|--output_dir needs a value"),
        (["--nepochs", "0"], r"^nepochs = 0 is not possible: expected an integer, at least 1"),
        (["--N", "100"], r"^N = 100 is not possible: expected one of 64, 128, 256"),
        (["--probe_trainable=perhaps"], r"^probe_trainable = perhaps .*true or false"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        read(*words)


def test_help_names_units_limits_choices_and_defaults():
    parser = make_parser("ptycho test", "SCAN", "What it does.", "examples:\n  ptycho test scan.npz")
    add_flags(parser, TrainingConfig, "training")
    text = " ".join(parser.format_help().split())
    assert "usage: ptycho test SCAN [flags]" in text
    assert "--N 64|128|256 side of a diffraction pattern and of an object patch [pixels; default 64]" in text
    assert "[at least 0, at most 0.9; default 0.05]" in text
    assert "[photons; above 0; default 1e+09]" in text
    assert "--probe_trainable true|false" in text
    assert text.endswith("examples: ptycho test scan.npz")


def test_a_class_may_show_other_defaults():
    parser = make_parser("ptycho test", "", "", "")
    add_flags(parser, TrainingConfig, "training", defaults={"nepochs": 7, "N": 128})
    text = " ".join(parser.format_help().split())
    assert "epochs: passes through all training groups [at least 1; default 7]" in text
    assert "[pixels; default 128]" in text
