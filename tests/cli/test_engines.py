"""Settings of one engine as flags and keys: shown with their engine, refused by name with another."""

from __future__ import annotations

import pytest

from ptycho.workflows.results import load_reconstruction


def test_help_lists_the_settings_of_the_engine(ptycho):
    shown = {name: ptycho("reconstruct", "--engine", name, "--help").out for name in ("rpie", "raar", "gradient")}
    for flag, engine in (("--damping", "rpie"), ("--beta", "raar"), ("--step_size", "gradient")):
        assert {name for name, text in shown.items() if flag in text} == {engine}
    assert shown["rpie"] == ptycho("reconstruct", "--help").out
    assert "--beta" in ptycho("run", "--help", "--engine=raar").out
    assert "difference_map|epie|gradient|lsqml|raar|rpie" in shown["raar"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "rpie", "--beta", "0.8"), "beta is a setting of raar and not of rpie: leave it out"),
        (("--engine", "epie", "--damping", "1"), "damping is a setting of lsqml and rpie and not of epie"),
        (("--step-size=1",), "step_size is a setting of gradient and not of rpie"),
        (("--engine", "raar", "--optimiser", "lbfgs"), "optimiser is a setting of gradient and not of raar"),
        (("--engine", "raar", "--beta", "3"), "beta = 3.0 is not possible: expected a number, above 0.5, at most 1."),
        (("--engine", "pie"), "engine = pie is not possible: expected one of difference_map, epie"),
        (("--engine",), "--engine needs a value: 'ptycho reconstruct --help'"),
        (("--engine", "raar", "--gamma", "1"), "Unknown flag --gamma"),
    ],
)
def test_flags_of_other_engines_are_refused_by_name(ptycho, scan_path, words, message):
    outcome = ptycho("reconstruct", scan_path, *words, "--out", "refused")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (ptycho.folder / "refused").exists()


def test_keys_of_other_engines_are_refused_by_name(ptycho, scan_path):
    (ptycho.folder / "own.yaml").write_text("engine: rpie\nbeta: 0.8\n")
    outcome = ptycho("reconstruct", scan_path, "--config", "own.yaml", "--out", "refused")
    assert outcome.code == 2
    assert "own.yaml: beta is a setting of raar and not of rpie" in outcome.err


def test_a_file_chooses_engine_and_settings(ptycho, scan_path):
    (ptycho.folder / "raar.yaml").write_text("engine: raar\nbeta: 0.8\nepochs: 3\n")
    outcome = ptycho("reconstruct", scan_path, "--config", "raar.yaml", "--out", "raar", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    config = load_reconstruction(ptycho.folder / "raar").provenance["config"]
    assert (config["engine"], config["beta"], config["epochs"]) == ("raar", 0.8, 3)


def test_former_flags_work_and_say_so(ptycho, scan_path):
    words = ("--averaged", 0, "--shift", "bilinear", "--engine-batch", 8, "--nepochs", 1)
    outcome = ptycho("reconstruct", scan_path, "--engine", "rpie", *words, "--out", "former", "--quiet")
    assert outcome.code == 0, outcome.err
    assert [line.split(";")[0] for line in outcome.err.splitlines()] == [
        "ptycho: --averaged is now called --full_batch_epochs",
        "ptycho: --shift is now called --interpolation",
        "ptycho: --engine_batch is now called --engine_batch_size",
    ]
    config = load_reconstruction(ptycho.folder / "former").provenance["config"]
    assert (config["full_batch_epochs"], config["engine_batch_size"], config["epochs"]) == (0, 8, 1)


@pytest.mark.parametrize("flag", ["--epochs", "--nepochs"])
def test_a_network_has_no_epochs_left_to_do(ptycho, scan_path, flag):
    outcome = ptycho("reconstruct", scan_path, "a bundle", flag, 3, "--out", "refused")
    assert outcome.code == 2
    assert "--epochs reconstructs without a network: leave the bundle out" in outcome.err
