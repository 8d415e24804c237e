"""One framework is enough: everything that does not need the others works without them, and nothing loads unasked.

In an environment that holds all frameworks the others are kept from the process; in one that holds a single one
(``make test-numpy``, ``test-torch``, ``test-jax``, ``test-tensorflow``) they are absent indeed.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import load_scan
from ptycho.model.bundle import Bundle, load_bundle, save_bundle
from ptycho.model.pinn import initial_parameters
from ptycho.physics.photons import intensity_scale
from ptycho.workflows.results import load_reconstruction
from tests import support
from tests.backends.alone import FRAMEWORKS, OWN, can_train, run_alone

EXTRA = {"pytorch": "torch", "tensorflow": "tensorflow", "jax": "jax"}
SMALL = "--n_filters_scale 1 --nepochs 1 --n_groups 8 --batch_size 8 --start_iterations 2 --device cpu"


@pytest.fixture
def alone(tmp_path):
    """Run Python code in a process that has one backend; return what it prints, or its complaint."""

    def run(backend: str, code: str, *words: str, fails: bool = False) -> str:
        kept = set(FRAMEWORKS) - OWN[backend]
        return run_alone(kept, code, *words, folder=tmp_path, code_on_failure=2 if fails else 0)

    return run


COMMAND = "from ptycho.cli import main\nsys.exit(main(sys.argv[1:]))\n"


@pytest.fixture
def scan(alone):
    """A small simulated scan, made by the command without any framework."""
    words = "--size 90 --N 64 --positions raster --step 9 --nphotons 1e5 --out sim"
    alone("numpy", COMMAND, "simulate", *words.split())
    return "sim/scan.npz"


def test_nothing_is_loaded_unasked():
    names = "ptycho, ptycho.backends, ptycho.cli, ptycho.config, ptycho.data, ptycho.evaluation, ptycho.physics.updates"
    code = (
        f"import {names}, ptycho.model.pinn, ptycho.model.bundle, ptycho.workflows.run, ptycho.workflows.components\n"
    )
    assert run_alone(set(), code + "print(loaded())") == "[]"


@pytest.mark.parametrize("backend", support.BACKENDS)
def test_a_backend_loads_its_own_framework_and_no_other(alone, backend):
    if backend != "numpy" and not can_train(backend):
        pytest.skip(f"{backend} is not installed")
    code = f"""
import numpy as np
from ptycho.backends import get_backend, get_trainer
from ptycho.physics import far_field
lender = get_backend({backend!r})
print(np.abs(lender.to_numpy(far_field(lender.asarray(np.ones((4, 4), np.complex64))))).max())
{"" if backend == "numpy" else f"get_trainer({backend!r})"}
print(loaded())
"""
    figure, found = alone(backend, code).splitlines()
    assert float(figure) == pytest.approx(4.0)
    assert set(eval(found)) <= OWN[backend]


@pytest.mark.parametrize("absent", EXTRA)
def test_an_absent_framework_is_told_with_what_to_install(alone, absent):
    code = f"""
from ptycho.backends import get_backend, get_trainer
from ptycho.errors import BackendError
for ask in (get_backend, get_trainer):
    try:
        ask({absent!r})
    except BackendError as error:
        print(error)
"""
    told = alone("numpy", code).splitlines()
    assert len(told) == 2
    for sentence in told:
        assert sentence.startswith(f"The {absent} backend needs")
        assert sentence.endswith(f"pip install ptychopinn[{EXTRA[absent]}]")


@pytest.mark.parametrize("backend", EXTRA)
def test_a_run_from_scan_to_result(alone, scan, tmp_path, backend):
    """The command trains, reconstructs and writes with the one framework; numpy reads the bundle without it."""
    if not can_train(backend):
        pytest.skip(f"{backend} is not installed")
    alone(backend, COMMAND, "run", scan, "--backend", backend, "--out", "result", *SMALL.split())
    assert load_bundle(tmp_path / "result").manifest["backend"] == backend
    alone("numpy", COMMAND, "reconstruct", scan, "result", "--backend", "numpy", "--out", "again")
    ours, theirs = (load_reconstruction(tmp_path / name) for name in ("result", "again"))
    lit = ours.weight > 0.01 * ours.weight.max()
    assert np.abs(ours.object - theirs.object)[lit].max() <= 1e-4 * np.abs(ours.object[lit]).max()


def test_numpy_alone_reconstructs_from_a_bundle_and_does_not_train(alone, scan, tmp_path):
    model = ModelConfig(N=64, n_filters_scale=1, start_iterations=None)
    params = initial_parameters(model, load_scan(tmp_path / scan).probe, 1e5, 0)
    config = TrainingConfig(model=model, backend="jax")
    save_bundle(Bundle(params, config, intensity_scale(1e5, 64), 1e5, 64), tmp_path / "model")
    alone("numpy", COMMAND, "reconstruct", scan, "model", "--backend", "numpy", "--out", "result")
    assert np.isfinite(load_reconstruction(tmp_path / "result").object).all()
    assert "numpy backend cannot train" in alone("numpy", COMMAND, "train", scan, "--backend", "numpy", fails=True)
    assert "pip install ptychopinn[torch]" in alone("numpy", COMMAND, "train", scan, fails=True)
