"""The package hands on every public name of its modules, and only those."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

from ptycho import physics

SHARED_INSIDE = {"checks", "scaling"}
"""Modules that serve the others and have no public names."""


def modules():
    return [m.name for m in pkgutil.iter_modules(physics.__path__) if m.name not in SHARED_INSIDE]


def test_every_public_name_of_every_module():
    found = {name for module in modules() for name in importlib.import_module(f"ptycho.physics.{module}").__all__}
    assert found == set(physics.__all__)


def test_names_are_the_modules_own():
    for name in physics.__all__:
        value = getattr(physics, name)
        assert value.__doc__, name
        assert value.__module__.startswith("ptycho.physics."), name
        assert name not in modules(), f"{name} is a module, too: the import of one would hide the other"
    assert set(physics.__all__) <= set(dir(physics))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        physics.no_such_name  # noqa: B018


def test_the_package_imports_nothing_until_asked():
    code = "import sys, ptycho.physics; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
