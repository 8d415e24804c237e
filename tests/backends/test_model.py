"""The whole model from one seed: the same patches, losses and gradients on every backend, eager and compiled."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import make_container
from ptycho.model.batches import make_batch
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches
from ptycho.physics.photons import intensity_scale
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.physics.reassembly import group_canvas_size
from ptycho.workflows.estimate import Estimate
from tests import support
from tests.backends.capabilities import capable
from tests.backends.cases import cast

N = 64
PHOTONS = 1e5
VARIANTS = {
    "corrected": ({}, {"mae_weight": 0.3, "tv_weight": 1e-3}),
    "single patterns": ({"start_iterations": 0, "probe_mask": True}, {}),
    "groups, bare": ({"gridsize": 2, "start_iterations": None, "amp_activation": "swish"}, {"mae_weight": 0.3}),
    "supervised": ({"model_type": "supervised", "start_iterations": None, "pad_object": False}, {}),
}


@functools.cache
def scan():
    positions = raster_positions((90, 90), N, 9.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, PHOTONS, seed=1)


@functools.cache
def setting(variant: str):
    """The model without a backend, and a batch on the host."""
    config = ModelConfig(N=N, n_filters_scale=1, **VARIANTS[variant][0])
    truth = extract_patches(scan().object, scan().positions, N)
    container = make_container(scan(), config.gridsize, 2, patches=truth)
    if config.start_iterations:
        container.estimate = Estimate(scan().object, np.ones(scan().object.shape, np.float32), (0.0, 0.0), scan().probe)
    side = group_canvas_size(container.relative, N, config.gridsize)
    mask = np.random.default_rng(1).random((N, N)) < 0.9
    model = PtychoPINN(config, None, intensity_scale(PHOTONS, N), side, mask, merge_window(scan().probe))
    return model, make_batch(container, np.arange(2))


def parameters(variant: str, seed: int):
    """All in general position: nothing starts at zero, nothing lies on a kink."""
    start = initial_parameters(setting(variant)[0].config, scan().probe, PHOTONS, seed)
    rng = np.random.default_rng(seed)
    moved = {k: v + 0.02 * rng.normal(size=v.shape) if "/" in k else v for k, v in start.items()}
    return {name: np.asarray(values, np.float64) for name, values in moved.items()}


def arrays(lender, host, dtype):
    wide = {name: v.astype(np.complex128 if v.dtype.kind == "c" else np.float64) for name, v in host.items()}
    return {name: lender.asarray(v) for name, v in cast(wide, dtype).items()}


@functools.cache
def result(variant: str, lender, what: str):
    """``what`` of the model as a function of parameters and batch, compiled where the backend compiles."""
    model = dataclasses.replace(setting(variant)[0], backend=lender)
    weights = TrainingConfig(model=model.config, **VARIANTS[variant][1])

    def loss(params, batch):
        return model.loss(params, batch, weights)[0]

    if what == "slope":
        return lender.jit(lender.value_and_grad(loss))
    functions = {"loss": loss, "patches": model.patches}
    functions["expected_counts"] = lambda params, batch: model.expected_counts(params, model.patches(params, batch))
    return lender.jit(functions[what]) if capable("PtychoPINN", what, lender.name, "jit") else functions[what]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**16))
def test_loss_and_gradient(learner, variant, seed):
    """In double precision: numpy's loss, PyTorch's gradient, and the slope along a random direction."""
    host, batch = parameters(variant, seed), setting(variant)[1]
    numpy = get_backend("numpy")
    value, gradient = result(variant, learner, "slope")(*(arrays(learner, a, "float64") for a in (host, batch)))

    def loss(params):
        return float(result(variant, numpy, "loss")(params, arrays(numpy, batch, "float64")))

    assert float(value) == pytest.approx(loss(host), rel=1e-10)
    found = {name: learner.to_numpy(values) for name, values in gradient.items()}
    assert {name: values.shape for name, values in found.items()} == {name: v.shape for name, v in host.items()}
    rng = np.random.default_rng(seed)
    # what the pattern alone decides is a constant of the differentiation, so only the network's weights are moved
    fixed = ("probe/", "log_scale") if setting(variant)[0].config.start_iterations is not None else ()
    step = {name: rng.normal(size=v.shape) for name, v in host.items() if not name.startswith(fixed or "-")}
    ahead, behind = (
        loss({name: v + sign * 1e-7 * step[name] if name in step else v for name, v in host.items()})
        for sign in (1, -1)
    )
    slope = sum(float(np.sum(found[name] * step[name])) for name in step)
    # a mean of absolute values has corners, and a step of all weights crosses some of its thousands
    assert slope == pytest.approx((ahead - behind) / 2e-7, rel=2e-2 if variant == "supervised" else 1e-3)
    if learner.name != "pytorch" and support.installed("pytorch"):
        torch = get_backend("pytorch")
        _, wanted = result(variant, torch, "slope")(*(arrays(torch, a, "float64") for a in (host, batch)))
        for name, values in wanted.items():
            theirs = torch.to_numpy(values)
            assert np.abs(found[name] - theirs).max() <= 1e-9 * np.abs(theirs).max() + 1e-15, name


@pytest.mark.parametrize("what", ["patches", "expected_counts", "loss"])
@pytest.mark.parametrize("variant", ["corrected", "groups, bare"])
def test_single_precision(backend, variant, what):
    """What training and inference run in: numpy's values in double precision, to 1e-4 of the largest."""
    host, batch = parameters(variant, 5), setting(variant)[1]
    numpy = get_backend("numpy")
    ours = result(variant, backend, what)(*(arrays(backend, a, "float32") for a in (host, batch)))
    wanted = np.asarray(result(variant, numpy, what)(*(arrays(numpy, a, "float64") for a in (host, batch))))
    kind = "complex64" if wanted.dtype.kind == "c" else "float32"
    support.assert_close(ours, backend.asarray(wanted.astype(kind)), rtol=1e-4)
