"""Python processes that have one framework, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import support

ROOT = Path(__file__).parents[2]
OWN: dict[str, set[str]] = {
    "numpy": set(),
    "pytorch": {"torch", "lightning", "pytorch_lightning"},
    "tensorflow": {"tensorflow", "keras"},
    "jax": {"jax", "optax"},
}
"""What each backend may import."""

FRAMEWORKS = sorted(set.union(*OWN.values()))

_KEPT = f"""
import os, sys
sys.path[:0] = {[str(ROOT), str(ROOT / "shims")]}

class Keeper:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        kept = name.split(".")[0] in os.environ["KEPT"].split()
        return None if kept else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Keeper, sys.meta_path)

def loaded():
    return sorted({{name.split(".")[0] for name in sys.modules}} & set({FRAMEWORKS}))

"""


def can_train(backend: str) -> bool:
    """Whether everything is installed that training on the backend needs."""
    return backend != "numpy" and all(support.installed(name) for name in OWN[backend])


def run_alone(kept: set[str], code: str, *words: str, folder: Path | None = None, code_on_failure: int = 0) -> str:
    """Run Python code in a process to which some frameworks are as good as absent.

    Parameters
    ----------
    kept : frameworks that the process cannot import.
    code : may call ``loaded()``, which names the frameworks that are.
    words : the process's arguments.
    folder : where it runs.
    code_on_failure : exit code that it must end with; other than 0, what it says on standard error is returned.
    """
    env = {**os.environ, "KEPT": " ".join(sorted(kept)), "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # it mostly compiles
    command = [sys.executable, "-c", _KEPT + code, *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code_on_failure, done.stderr[-2000:]
    return (done.stderr if code_on_failure else done.stdout).strip()
