"""Engines by entry point: those of this distribution, one of another package, and broken ones."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from ptycho.config import EngineConfig
from ptycho.config.engines import engine_names, fields_of_others
from ptycho.engines import Engine, solve
from ptycho.engines.gradient import LBFGS, Adam
from ptycho.engines.raar import RAAR, RAARConfig
from ptycho.engines.registry import configured, find_engine, settings_elsewhere
from ptycho.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTED = re.search(r"```python\n(from dataclasses.*?)```", (ROOT / "docs/engines.md").read_text(), re.DOTALL)[1]
"""The engine of the documentation."""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A folder with a package that registers the documented engine, and two that are broken."""
    folder = tmp_path_factory.mktemp("plugin")
    info = folder / "plain_engine-1.dist-info"
    info.mkdir()
    (folder / "plain_engine.py").write_text(DOCUMENTED)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-engine\nVersion: 1\n")
    points = "plain = plain_engine:Plain\nabsent = no_such_module:Engine\nodd = plain_engine:PlainConfig\n"
    (info / "entry_points.txt").write_text(f"[ptycho.engines]\n{points}")
    return folder


@pytest.fixture
def installed(plugin, monkeypatch):
    monkeypatch.syspath_prepend(plugin)
    yield plugin
    sys.modules.pop("plain_engine", None)


def test_the_engines_of_this_distribution_are_registered():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ptycho.engines"]
    assert set(named) == {"rpie", "epie", "lsqml", "difference_map", "raar", "gradient"} <= set(engine_names())
    for name, value in named.items():
        assert find_engine(name).__name__ == value.partition(":")[2]


def test_one_name_may_stand_for_several_classes():
    assert configured(EngineConfig(engine="gradient"))[0] is Adam
    assert configured(EngineConfig(engine="gradient", optimiser="lbfgs"))[0] is LBFGS


def test_plain_settings_take_the_engines_defaults(scan):
    engine, config = configured(EngineConfig(engine="raar", epochs=7, damping=0.2))
    assert (engine, config) == (RAAR, RAARConfig(epochs=7, damping=0.2))
    one, other = (solve(scan, c) for c in (EngineConfig(engine="raar", epochs=2), RAARConfig(epochs=2)))
    np.testing.assert_array_equal(one.object, other.object)


@pytest.mark.parametrize(
    ("kind", "engine", "message"),
    [
        (RAARConfig, "rpie", "engine = rpie is not possible in a RAARConfig"),
        (RAARConfig, "plain", "engine = plain is not possible: expected one of difference_map, epie"),
        (EngineConfig, "", "engine =  is not possible: expected one of"),
    ],
)
def test_settings_of_another_engine(kind, engine, message):
    with pytest.raises(ConfigError, match=message):
        configured(kind(engine=engine))


def test_settings_are_checked_as_the_engine_declares_them(scan):
    config = RAARConfig()
    config.beta = 0.2
    with pytest.raises(ConfigError, match=r"beta = 0.2 is not possible: expected a number, above 0.5, at most 1"):
        solve(scan, config)


def test_which_engine_reads_a_setting():
    assert settings_elsewhere("beta", "rpie") == ["raar"]
    assert settings_elsewhere("damping", "raar") == ["lsqml", "rpie"]
    assert settings_elsewhere("damping", "rpie") == settings_elsewhere("no_such", "rpie") == []
    assert fields_of_others(EngineConfig, "gradient") == {"damping", "full_batch_epochs"}
    assert fields_of_others(RAARConfig, "raar") == {"damping", "full_batch_epochs", "step_size", "optimiser"}


def test_an_engine_of_another_package(installed, scan, tmp_path):
    engine = find_engine("plain")
    assert issubclass(engine, Engine)
    config = engine.settings(epochs=12, weight=0.8)
    state = solve(scan, config)
    assert state.history["r_factor"][-1] < 0.5 * state.history["r_factor"][0]
    assert settings_elsewhere("weight", "raar") == ["plain"]

    def stop(done, total, metrics):
        if done == 4:
            raise KeyboardInterrupt

    path = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    np.testing.assert_allclose(solve(scan, config, checkpoint=path).object, state.object, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "no_such_module:Engine cannot be imported"), ("odd", "is no class derived from ptycho.engines.Engine")],
)
def test_broken_engines_are_named(installed, name, message):
    with pytest.raises(ConfigError, match=f"engine = {name}: .*{message}"):
        find_engine(name)
    assert settings_elsewhere("beta", "rpie") == ["raar"]


def test_the_base_class_has_no_epoch(scan, monkeypatch):
    monkeypatch.setattr(
        "ptycho.engines.registry.engine_points",
        lambda: {"rpie": EntryPoint("rpie", "ptycho.engines.engine:Engine", "ptycho.engines")},
    )
    with pytest.raises(TypeError, match="Engine has no epoch of its own"):
        solve(scan, EngineConfig())


def test_the_command_takes_an_engine_of_another_package(plugin, scan, tmp_path):
    from ptycho.data import save_npz

    save_npz(scan, tmp_path / "scan.npz")
    (tmp_path / "plain.yaml").write_text("engine: plain\nweight: 0.8\nepochs: 6\n")
    code = f"import sys; sys.path.insert(0, {str(plugin)!r}); from ptycho.cli import main; sys.exit(main())"

    def ptycho(*words):
        done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    status, shown, _ = ptycho("reconstruct", "--engine", "plain", "--help")
    assert status == 0
    assert "--weight X" in shown
    assert "--damping" not in shown
    status, _, errors = ptycho("reconstruct", "scan.npz", "--config", "plain.yaml", "--out", "result", "--quiet")
    assert (status, errors) == (0, "")
    assert "weight" in (tmp_path / "result" / "report.html").read_text()
    status, _, errors = ptycho(
        "refine", "result", "--engine", "plain", "--epochs", "2", "--beta", "0.7", "--out", "more"
    )
    assert status == 2
    assert "beta is a setting of raar and not of plain: leave it out, or choose --engine raar." in errors
    status, _, errors = ptycho("refine", "result", "--engine", "plain", "--epochs", "2", "--out", "more", "--quiet")
    assert (status, errors) == (0, "")
