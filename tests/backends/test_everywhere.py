"""Every function of the capability table gives numpy's result in every namespace, eager and compiled."""

from __future__ import annotations

import functools
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho import physics
from ptycho.backends import Backend, get_backend, registry
from tests import support
from tests.backends.capabilities import ALL, COLUMNS, TABLE
from tests.backends.cases import CASES, ONE_SIZE, SIZES, Case, Draw, cast

RTOL = {"float32": 1e-5, "float64": 1e-10}
"""What the physics promises, relative to the largest value of a result."""

case_of = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def assert_all_close(actual, case: Case, host, xp, dtype):
    """Each result is numpy's in double precision, with the dtype that numpy gives in this one."""
    truths, likes = case(host), case(cast(host, dtype))
    assert len(actual) == len(truths)
    for ours, truth, like in zip(actual, truths, likes, strict=True):
        if type(truth) is float:  # numpy's own numbers are arrays here
            assert ours == pytest.approx(truth, rel=RTOL[dtype])
            continue
        support.assert_close(ours, support.array(xp, truth, like.dtype), rtol=RTOL[dtype])


class TestTable:
    def test_every_public_function_has_its_row(self):
        named = [row.name for row in TABLE if row.module not in ("Backend", "PtychoPINN")]
        assert sorted(named) == sorted({*physics.__all__} - {"Reassembled"})

    def test_every_primitive_has_its_row(self):
        primitives = {name for name, value in vars(Backend).items() if callable(value) and name[0] != "_"}
        seams = {"asarray", "to_numpy", "best_device", "value_and_grad", "jit", "in_parts"}
        assert {row.name for row in TABLE if row.module == "Backend"} == primitives - seams

    def test_every_backend_has_its_column(self):
        assert {*registry.available_backends(), "array_api_strict", "dask"} == set(COLUMNS)

    def test_what_runs_anywhere_else_has_a_case(self):
        tested_by_hand = {"Canvas", "canvas_for", "stitching_window", "simulate"}
        wanted = {r.name for r in TABLE if r.runs & ALL - {"numpy"} and r.module != "PtychoPINN"} - tested_by_hand
        assert {case.row.name for case in CASES} == wanted


def capability(xp) -> str:
    """The column of a namespace."""
    return get_backend(xp.asarray(np.zeros(1))).name


@case_of
@settings(max_examples=5)
@given(data=st.data())
def test_eager(xp, dtype, case, data):
    if capability(xp) not in case.row.runs:
        pytest.skip(f"{case.name} does not run on {capability(xp)}")
    sizes = ONE_SIZE if support.compiles_every_shape(xp) else data.draw(SIZES)
    host = case.arrays(Draw(data.draw(st.integers(0, 2**16)), sizes))
    arrays = {name: support.array(xp, values) for name, values in cast(host, dtype).items()}
    assert_all_close(case(arrays), case, host, xp, dtype)


@pytest.fixture(scope="session", params=["jax-jit", "tensorflow-function", "tensorflow-xla"])
def compiler(request):
    """Every way to compile a function: its backend and what wraps a function."""
    framework, _, way = request.param.partition("-")
    if not support.installed(framework):
        pytest.skip(f"{framework} is not installed")
    lender = get_backend(framework)
    jit = lender.jit
    if way == "function":
        jit = functools.partial(importlib.import_module(framework).function, autograph=False)
    return SimpleNamespace(name=lender.name, xp=lender.xp, jit=jit)


@functools.cache
def compiled_by(jit, case):
    """The case as one compiled function of a dictionary of arrays."""
    return jit(lambda arrays: case(arrays))


@case_of
@settings(max_examples=3)
@given(seed=st.integers(0, 2**16))
def test_compiled(compiler, dtype, case, seed):
    """Compiled once, for arrays of the same shapes."""
    if compiler.name not in case.row.jit:
        pytest.skip(f"{case.name} is not for compiled functions")
    host = case.arrays(Draw(seed))
    arrays = {name: support.array(compiler.xp, values) for name, values in cast(host, dtype).items()}
    assert_all_close(compiled_by(compiler.jit, case)(arrays), case, host, compiler.xp, dtype)


def inner(xp, results, weights):
    """Real part of the scalar product of results and weights; whole numbers take no part."""
    total = 0.0
    for result, weight in zip(results, weights, strict=True):
        if weight is not None:
            product = result * weight
            total = total + xp.sum(xp.real(product) if xp.isdtype(product.dtype, "complex floating") else product)
    return total


def random_like(values, rng):
    values = np.asarray(values)
    draw = np.asarray(rng.normal(size=values.shape))
    return draw + 1j * rng.normal(size=values.shape) if values.dtype.kind == "c" else draw


@functools.cache
def gradient_of(case, learner):
    """The backend's gradient of :func:`inner` by the case's first array, compiled where the table says so."""

    def loss(first, name, rest, weights):
        return inner(learner.xp, case({name: first, **rest}), weights)

    def gradient(name, first, rest, weights):
        return learner.value_and_grad(lambda value: loss(value, name, rest, weights))(first)[1]

    jit = learner.jit if learner.name in case.row.jit else lambda f: f
    return functools.cache(lambda name: jit(functools.partial(gradient, name)))


def gradient_by_first(case, learner, host, weights, dtype):
    first, *others = host
    arrays = {name: support.array(learner.xp, values) for name, values in cast(host, dtype).items()}
    held = [None if w is None else support.array(learner.xp, cast({"": w}, dtype)[""]) for w in weights]
    found = gradient_of(case, learner)(first)(arrays[first], {name: arrays[name] for name in others}, held)
    support.assert_close(found, arrays[first], rtol=np.inf)  # of the same kind
    return support.as_numpy(found)


@case_of
@settings(max_examples=3)
@given(seed=st.integers(0, 2**16))
def test_gradient(learner, dtype, case, seed):
    """Along a random direction it is the slope that central differences of numpy give; and it is PyTorch's."""
    if learner.name not in case.row.gradient:
        pytest.skip(f"{case.name} has no gradient")
    host, rng = case.arrays(Draw(seed)), np.random.default_rng(seed)
    weights = [None if np.asarray(r).dtype.kind == "i" else random_like(r, rng) for r in case(host)]
    found = gradient_by_first(case, learner, host, weights, dtype)
    first = next(iter(host))
    step = random_like(host[first], rng)

    def along(size):
        return float(inner(get_backend("numpy").xp, case({**host, first: host[first] + size * step}), weights))

    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    allowed = (1e-4 if dtype == "float32" else 1e-7) * np.linalg.norm(found) * np.linalg.norm(step)
    assert abs(np.sum(np.real(np.conj(found) * step)) - slope) <= allowed
    if learner.name != "pytorch" and support.installed("pytorch"):
        wanted = gradient_by_first(case, get_backend("pytorch"), host, weights, dtype)
        assert np.abs(found - wanted).max() <= RTOL[dtype] * np.abs(wanted).max()
