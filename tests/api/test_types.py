"""A user's script sees real types behind every public name, under `mypy --strict`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ptycho

ROOT = Path(__file__).parents[2]
CALLS = [
    'ptycho.load_scan("scan.npz")',
    'ptycho.load_scan("scan.npz")[0:3]',
    'ptycho.load_reconstruction("out").metrics',
]


def test_a_users_script_under_strict_mypy(tmp_path):
    pytest.importorskip("mypy")
    shown = [*(f"ptycho.{name}" for name in ptycho.__all__), *CALLS]
    script = tmp_path / "script.py"
    script.write_text("import ptycho\n" + "".join(f"reveal_type({one})\n" for one in shown) + "ptycho.no_such_name\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", str(script)]
    run = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    revealed = re.findall(r'Revealed type is "(.*)"', run.stdout)
    assert len(revealed) == len(shown), run.stdout + run.stderr
    assert [one for one, kind in zip(shown, revealed, strict=True) if kind == "Any"] == []
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, run.stdout
    assert 'Module has no attribute "no_such_name"' in errors[0]
