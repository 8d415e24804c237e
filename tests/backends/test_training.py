"""One seed, one training on every backend; and what one backend trained, every other reconstructs with."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.model.bundle import Bundle, load_bundle, save_bundle
from ptycho.model.pinn import initial_parameters
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train
from tests import support
from tests.backends.alone import FRAMEWORKS, OWN, can_train, run_alone

N = 64
TRAINERS = ("pytorch", "tensorflow", "jax")


def scan():
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)


VARIANTS = {
    "patterns": (
        {"start_iterations": 2},
        {"n_groups": 5, "batch_size": 3, "validation_fraction": 0.2, "nepochs": 10, "probe_trainable": True,
         "mae_weight": 0.1, "lr_schedule": "onecycle"},
    ),
    "groups": (
        {"start_iterations": None, "gridsize": 2},
        {"n_groups": 3, "nepochs": 20, "tv_weight": 0.1, "gradient_clip": 1e-4, "intensity_scale_trainable": False},
    ),
}  # fmt: skip
"""In batches of three groups and of one, whose means are weighed, with one to watch; or with every step's loss told."""


def trained(backend: str, variant: str, start_model=None, **changes):
    """Twenty steps, unless told."""
    model, settings = VARIANTS[variant]
    config = TrainingConfig(
        model=ModelConfig(N=N, n_filters_scale=1, **model), backend=backend, start_model=start_model, device="cpu",
        checkpoint=False, seed=3,
        **{"learning_rate": 1e-4, "batch_size": 8, "validation_fraction": 0.0, **settings, **changes},
    )  # fmt: skip
    return train(scan(), config)


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly():
    with support.compiled_quickly():
        yield


def here() -> list[str]:
    return [name for name in TRAINERS if can_train(name)]


@functools.cache
def bundles(variant):
    """What each backend that is installed makes of it."""
    if not here():
        pytest.skip("no backend that trains is installed")
    return {name: trained(name, variant) for name in here()}


def flat(params):
    return np.concatenate([params[name].ravel() for name in sorted(params)])


class TestTwentySteps:
    """The same losses and weights to 1e-3.

    The learning rate is 1e-4. Where a gradient is about zero Adam turns its rounding into a step of full size, so that
    at a rate of 1e-3 the weights of two trainings in PyTorch that differ by one rounding are 1 % apart after twenty
    steps, and no two frameworks can be closer. How far the weights have moved is compared too, since at this rate
    they move little.
    """

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_same_losses_and_weights(self, variant):
        made = bundles(variant)
        if len(made) < 2:
            pytest.skip("one backend that trains has nothing to agree with")
        first = next(iter(made.values()))
        start = flat(trained(next(iter(made)), variant, learning_rate=1e-12, nepochs=1).params)
        moved = np.linalg.norm(flat(first.params) - start)
        assert moved > 0
        for name, other in made.items():
            assert set(other.history) == set(first.history), name
            for key, values in first.history.items():
                np.testing.assert_allclose(other.history[key], values, rtol=1e-3, atol=1e-12, err_msg=f"{name} {key}")
            apart = np.linalg.norm(flat(other.params) - flat(first.params))
            assert apart <= 1e-3 * np.linalg.norm(flat(first.params)), name
            assert apart <= 0.1 * moved, name

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_they_learn(self, variant):
        for name, bundle in bundles(variant).items():
            assert bundle.history["loss"][-1] < bundle.history["loss"][0], name


def test_they_start_from_the_same_weights(tmp_path):
    """A bundle of weights that no seed of the training draws: after a step of no length all have it, and one loss."""
    model = ModelConfig(N=N, n_filters_scale=1, **VARIANTS["patterns"][0])
    params = initial_parameters(model, scan().probe, 1e5, seed=99)
    params = {name: values + np.float32(0.01) for name, values in params.items()}
    save_bundle(Bundle(params, TrainingConfig(model=model), 1.0, 1e5, N), tmp_path)
    made = {name: trained(name, "patterns", learning_rate=1e-12, nepochs=1, start_model=tmp_path) for name in here()}
    losses = [bundle.history["loss"][0] for bundle in made.values()]
    np.testing.assert_allclose(losses, losses[:1] * len(losses), rtol=1e-5)
    for name, bundle in made.items():
        for key, values in params.items():
            if not key.startswith("probe/") and key != "log_scale":
                np.testing.assert_allclose(bundle.params[key], values, rtol=0, atol=1e-9, err_msg=f"{name} {key}")
        assert float(bundle.params["log_scale"]) != float(params["log_scale"])


_READER = """
import json
from pathlib import Path
import numpy as np
from ptycho.errors import BackendError
from tests.backends.test_training import reconstructed

told = {}
backend, folder = sys.argv[1:]
for file in sorted(Path(folder).glob("*.zip")):
    out = reconstructed(file, backend)
    np.savez(file.with_suffix(f".{backend}.npz"), object=out.object, origin=out.origin)
    writer = file.stem.split("-")[0]
    if writer != backend and writer not in told:
        try:
            reconstructed(file, None)
        except BackendError as error:
            told[writer] = str(error)
print(json.dumps([told, loaded()]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundles as files, named after backend and variant."""
    place = tmp_path_factory.mktemp("bundles")
    for variant in VARIANTS:
        for name, bundle in bundles(variant).items():
            save_bundle(bundle, place / f"{name}-{variant}.zip")
    return place


def reconstructed(path, backend):
    return reconstruct(scan(), load_bundle(path), backend=backend, batch_size=8, n_groups=8)


@pytest.fixture(scope="module")
def objects_of_numpy(folder):
    return {path.stem: reconstructed(path, "numpy") for path in folder.glob("*.zip")}


class TestAnyBundleInAnyBackend:
    def test_a_bundle_says_who_wrote_it(self, folder):
        found = {path.stem: load_bundle(path).manifest["backend"] for path in folder.glob("*.zip")}
        assert found == {f"{name}-{variant}": name for name in here() for variant in VARIANTS}

    @pytest.mark.parametrize("backend", support.BACKENDS)
    def test_objects_agree_and_only_the_reader_is_needed(self, folder, objects_of_numpy, backend):
        """In a process from which every other framework is kept; numpy's object of the same bundle is the measure."""
        if not support.installed(backend):
            pytest.skip(f"{backend} is not installed")
        told = run_alone(set(FRAMEWORKS) - OWN[backend], _READER, backend, str(folder))
        missing, loaded = json.loads(told.splitlines()[-1])
        assert set(loaded) <= OWN[backend]
        assert set(missing) == set(here()) - {backend}
        for name, message in missing.items():
            assert f"The {name} backend needs" in message
            assert "pip install ptychopinn[" in message
        for name, wanted in objects_of_numpy.items():
            found = np.load(folder / f"{name}.{backend}.npz")
            assert tuple(found["origin"]) == wanted.origin
            lit = wanted.weight > 0.01 * wanted.weight.max()
            error = np.abs(found["object"] - wanted.object)[lit].max()
            assert error <= 1e-4 * np.abs(wanted.object[lit]).max(), name
