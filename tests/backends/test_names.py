"""The core asks each namespace for names of the array API standard, with the standard's arguments, and nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

from tests import support

ROOT = Path(__file__).parents[2]
ARRAY_CODE = [
    path
    for package in ("physics", "model", "engines", "evaluation")
    for path in sorted((ROOT / "ptycho" / package).rglob("*.py"))
] + [ROOT / "ptycho" / "backends" / "generic_backend.py"]


def is_namespace(node: ast.AST) -> bool:
    """``xp``, ``backend.xp`` or ``array_namespace(...)``."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") == "array_namespace"
    return getattr(node, "id", getattr(node, "attr", "")) == "xp"


def name_of(node: ast.AST) -> str | None:
    """``sum`` of ``xp.sum``, ``fft.fftn`` of ``xp.fft.fftn``."""
    if not isinstance(node, ast.Attribute):
        return None
    if is_namespace(node.value):
        return node.attr
    inside = node.value
    if isinstance(inside, ast.Attribute) and inside.attr in ("fft", "linalg") and is_namespace(inside.value):
        return f"{inside.attr}.{node.attr}"
    return None


def used(source: str) -> tuple[set[str], list[tuple[str, ast.Call]]]:
    """The names that a source asks of a namespace, and its calls of them."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {name for node in nodes if (name := name_of(node)) and not name.startswith("__")}
    calls = [(name, node) for node in nodes if isinstance(node, ast.Call) and (name := name_of(node.func))]
    return names - {"fft", "linalg"}, calls


FOUND = [(path, *used(path.read_text(encoding="utf-8"))) for path in ARRAY_CODE]
NAMES = sorted(set.union(*(names for _, names, _ in FOUND)))
CALLS = [(path, name, call) for path, _, calls in FOUND for name, call in calls]


def found(module, name):
    for part in name.split("."):
        module = getattr(module, part)
    return module


@pytest.fixture(scope="module")
def strict():
    return pytest.importorskip("array_api_strict")


class TestCollecting:
    def test_every_spelling_is_seen(self):
        names, calls = used(
            "xp.sum(x, axis=0); backend.xp.where(a, b, c); self.backend.xp.float32; array_namespace(x).abs(x)\n"
            "xp.fft.fftn(x); map(xp.cos, y); other.sum(x); xp.__name__"
        )
        assert names == {"sum", "where", "float32", "abs", "fft.fftn", "cos"}
        assert [name for name, _ in calls] == ["sum", "where", "abs", "fft.fftn"]

    def test_the_core_uses_names_at_all(self):
        assert {"astype", "fft.fftn", "where", "sum", "float32"} <= set(NAMES)
        assert len(CALLS) > 100


def binds(signature: inspect.Signature, call: ast.Call) -> bool:
    """Whether the call's arguments, whatever they are, fit the signature."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return True  # known when it runs
    try:
        signature.bind(*call.args, **{k.arg: k.value for k in call.keywords})
    except TypeError:
        return False
    return True


class TestTheStandard:
    @pytest.mark.parametrize("name", NAMES)
    def test_has_every_name(self, strict, name):
        assert found(strict, name) is not None

    def test_has_every_call(self, strict):
        wrong = [
            f"{path.relative_to(ROOT)}:{call.lineno} {ast.unparse(call)}"
            for path, name, call in CALLS
            if inspect.isfunction(function := found(strict, name)) and not binds(inspect.signature(function), call)
        ]
        assert not wrong


X = np.array([[0.25, 0.5], [0.75, 1.0]])
WITHOUT_SIGNATURE = {
    "atan2": lambda xp, x: xp.atan2(x, x + 1.0),
    "maximum": lambda xp, x: xp.maximum(x, 1.0 - x),
    "full_like": lambda xp, x: xp.full_like(x, 3.0, dtype=xp.float32, device=None),
    "ones_like": lambda xp, x: xp.ones_like(x, dtype=xp.float32, device=None),
    "zeros_like": lambda xp, x: xp.zeros_like(x, dtype=xp.float32, device=None),
    "fft.fftfreq": lambda xp, x: xp.fft.fftfreq(5, d=0.5, dtype=xp.float32, device=None),
    "stack": lambda xp, x: xp.stack([x, 2.0 * x], axis=-1),
    **{
        name: lambda xp, x, name=name: getattr(xp, name)(x)
        for name in ("abs", "cos", "exp", "floor", "log", "log1p", "sin", "sqrt", "tanh")
    },
    **{
        name: lambda xp, x, name=name: getattr(xp, name)(xp.astype(x, xp.complex128) * (1.0 + 2.0j))
        for name in ("conj", "imag", "real")
    },
}
"""Functions of which some framework shows Python no signature, called with all the arguments that the standard has."""


@pytest.mark.parametrize("name", NAMES)
def test_every_namespace_has_the_name_and_its_arguments(xp, strict, name):
    """What may be given by keyword in the standard may be so everywhere; positional names are the framework's own."""
    ours, standard = found(xp, name), found(strict, name)
    if not inspect.isfunction(standard):  # a dtype
        return
    try:
        parameters = inspect.signature(ours).parameters
    except ValueError:
        call = WITHOUT_SIGNATURE[name]
        wanted = call(strict, strict.asarray(X))
        support.assert_close(call(xp, xp.asarray(X)), support.array(xp, wanted), rtol=1e-6)
        return
    keywords = [
        key
        for key, p in inspect.signature(standard).parameters.items()
        if p.kind is not inspect.Parameter.POSITIONAL_ONLY
    ]
    assert [key for key in keywords if key not in parameters] == []
