"""The command explains itself, quickly."""

import re
import subprocess
import sys
import time

import pytest
import yaml

from ptycho import __version__
from ptycho.cli.help_texts import COMMANDS
from ptycho.config import TrainingConfig, config_from_dict
from tests.cli.conftest import COMMAND, ROOT


def test_help_is_immediate(ptycho):
    ptycho("--help", cold=True)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        outcome = ptycho("--help", cold=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5
    assert outcome.code == 0
    for name, text in COMMANDS.items():
        assert f"  {name} " in outcome.out
        assert text.summary in outcome.out


def test_help_loads_no_framework_and_nothing_heavy():
    code = "import sys\nfrom ptycho.cli import main\nmain(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "torch", "scipy", "matplotlib", "rich", "yaml", "h5py", "argparse"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(ptycho, name):
    outcome = ptycho(*name.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    assert f"usage: ptycho {name}" in outcome.out
    assert f"examples:\n  ptycho {name}" in outcome.out
    assert "default" in outcome.out
    assert ptycho("help", *name.split()).out == outcome.out


def test_examples_use_flags_that_exist(ptycho):
    for name, text in COMMANDS.items():
        known = ptycho(*name.split(), "--help").out
        for word in text.examples.split():
            if word.startswith("--"):
                assert word in known, f"{name}: {word}"


def test_without_a_command_it_helps(ptycho):
    assert ptycho().out == ptycho("--help").out == ptycho("help").out


def test_version(ptycho):
    assert ptycho("--version").out == f"ptycho {__version__}\n"


def test_module_is_the_command(ptycho):
    done = subprocess.run([sys.executable, "-m", "ptycho", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == ptycho("--version").out
    assert COMMAND


def test_the_readme_uses_commands_and_flags_that_exist(ptycho):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].split() for line in text.splitlines() if line.lstrip(" #").startswith("ptycho ")]
    used = [words[1:] for words in lines if len(words) > 1 and words[1] in COMMANDS]
    assert {"inspect", "run", "train", "reconstruct", "simulate", "evaluate"} <= {words[0] for words in used}
    helps = {name: ptycho(name, "--help").out for name in COMMANDS}
    for name, *words in used:
        assert [word for word in words if word.startswith("--") and word not in helps[name]] == []
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert config_from_dict(TrainingConfig, settings).model.gridsize == 2
    for flag in re.findall(r"`(--[a-z_]+)", text):
        assert flag in helps["run"] or flag in ("--config", "--help")


def test_the_help_lists_the_backends_and_which_are_installed(ptycho):
    assert "--backend jax|pytorch|tensorflow" in " ".join(ptycho("train", "--help").out.split())
    shown = " ".join(ptycho("reconstruct", "--help").out.split())
    assert "--backend numpy|jax|pytorch|tensorflow" in shown
    assert "(installed here: numpy" in shown
