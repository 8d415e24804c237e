"""The array API over ``tf.Tensor``: every name that the core uses is there, takes the standard's arguments and agrees
with numpy, eager, in ``tf.function`` and compiled by XLA."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

pytest.importorskip("tensorflow")
pytest.importorskip("array_api_strict")

import array_api_strict as strict
import tensorflow as tf

from ptycho.backends import array_namespace, device, get_backend
from ptycho_tensorflow import namespace as xp

ROOT = Path(__file__).parents[2]
ARRAY_CODE = [
    path for package in ("physics", "model", "evaluation") for path in (ROOT / "ptycho" / package).rglob("*.py")
]
NAME = re.compile(r"\b(?:xp|array_namespace\(\w+\))\.((?:fft\.)?[a-z]\w*)")
USED = sorted({name for path in ARRAY_CODE for name in NAME.findall(path.read_text(encoding="utf-8"))})
FUNCTIONS = sorted(
    name
    for name, value in vars(xp).items()
    if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == xp.__name__
) + [f"fft.{name}" for name in vars(xp.fft)]
REAL, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
MODES = {
    "eager": lambda f: f,
    "function": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}


def found(module, name):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def values(shape, kind, low=-3.0, high=3.0):
    """Arrays of a dtype; complex ones have both parts drawn."""
    part = "float64" if kind in ("float64", "complex128") else "float32"
    real = arrays(
        part, shape, elements=st.floats(low, high, width=32 if part == "float32" else 64, allow_subnormal=False)
    )
    if kind in REAL:
        return real
    return st.tuples(real, real).map(lambda parts: (parts[0] + 1j * parts[1]).astype(kind))


def assert_same(actual, wanted):
    wanted = np.asarray(wanted)
    assert tf.is_tensor(actual)
    assert actual.dtype.name == wanted.dtype.name
    assert tuple(actual.shape) == wanted.shape
    wide = wanted.dtype.itemsize > (8 if wanted.dtype.kind == "c" else 4)
    np.testing.assert_allclose(actual.numpy(), wanted, rtol=1e-12 if wide else 2e-5, atol=1e-12 if wide else 2e-5)


class TestNames:
    @pytest.mark.parametrize("name", USED)
    def test_what_the_core_uses_is_there(self, name):
        assert found(xp, name) is not None

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_arguments_are_the_standards(self, name):
        ours, standard = (list(inspect.signature(found(module, name)).parameters) for module in (xp, strict))
        assert ours == standard

    def test_the_core_uses_names_at_all(self):
        assert {"astype", "fft.fftn", "where", "sum"} <= set(USED)

    def test_no_switch_is_thrown(self):
        """TensorFlow's own rules hold: no promotion, no array methods."""
        with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
            tf.ones(1, tf.float32) * tf.ones(1, tf.float64)
        assert not hasattr(tf.ones(1), "astype")


ELEMENTWISE = {
    "abs": (np.abs, (*REAL, *COMPLEX)),
    "conj": (np.conj, COMPLEX),
    "cos": (np.cos, REAL),
    "exp": (np.exp, (*REAL, *COMPLEX)),
    "floor": (np.floor, REAL),
    "imag": (np.imag, COMPLEX),
    "real": (np.real, COMPLEX),
    "sin": (np.sin, REAL),
    "tanh": (np.tanh, REAL),
}


class TestElements:
    @pytest.mark.parametrize(("name", "kind"), [(n, kind) for n, (_, kinds) in ELEMENTWISE.items() for kind in kinds])
    @given(data=st.data())
    def test_one_argument(self, name, kind, data):
        x = data.draw(values((3, 2), kind))
        assert_same(getattr(xp, name)(tf.constant(x)), ELEMENTWISE[name][0](x))

    @pytest.mark.parametrize("name", ["log", "log1p", "sqrt"])
    @given(x=values((5,), "float64", 0.01, 1e3))
    def test_positive_argument(self, name, x):
        assert_same(getattr(xp, name)(tf.constant(x)), getattr(np, name)(x))

    @pytest.mark.parametrize(("name", "reference"), [("atan2", np.arctan2), ("maximum", np.maximum)])
    @given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), data=st.data())
    def test_two_arguments(self, name, reference, shapes, data):
        a, b = (data.draw(values(shape, "float32")) for shape in shapes.input_shapes)
        assert_same(getattr(xp, name)(tf.constant(a), tf.constant(b)), reference(a, b))

    @given(x=values((4, 3), "float32"), low=st.none() | st.floats(-2, 0), high=st.none() | st.floats(0, 2))
    def test_clip(self, x, low, high):
        wanted = x if low is None and high is None else np.clip(x, low, high)
        assert_same(xp.clip(tf.constant(x), low, high), wanted.astype("float32"))

    def test_clip_of_whole_numbers(self):
        assert_same(xp.clip(tf.constant([-5, 0, 5], tf.int32), -1, 3), np.array([-1, 0, 3], "int32"))

    @given(condition=arrays(bool, (3, 1)), a=values((3, 4), "complex64"), b=values((4,), "complex64"))
    def test_where(self, condition, a, b):
        assert_same(xp.where(*map(tf.constant, (condition, a, b))), np.where(condition, a, b))


class TestReductions:
    @pytest.mark.parametrize("name", ["max", "mean", "sum"])
    @pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-2, -1)])
    @pytest.mark.parametrize("keepdims", [False, True])
    @given(x=values((2, 3, 2), "float64"))
    def test_along_axes(self, name, axis, keepdims, x):
        wanted = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        assert_same(getattr(xp, name)(tf.constant(x), axis=axis, keepdims=keepdims), wanted)

    def test_whole_numbers_are_widened(self):
        assert xp.sum(tf.constant([200, 100], tf.uint8)).numpy() == 300
        assert xp.sum(tf.constant([1, 2], tf.int32)).dtype == xp.int64
        assert xp.sum(tf.constant([1.5, 2.0]), dtype=xp.float64).dtype == xp.float64


class TestShapes:
    X = np.arange(24.0).reshape(2, 3, 4)

    @pytest.mark.parametrize(
        ("ours", "numpys"),
        [
            (lambda x: xp.broadcast_to(x[:, :1, :], (2, 3, 4)), lambda x: np.broadcast_to(x[:, :1, :], (2, 3, 4))),
            (lambda x: xp.concat([x, x[:1, ...]], axis=0), lambda x: np.concatenate([x, x[:1]])),
            (lambda x: xp.concat([x, x[:1, ...]], axis=None), lambda x: np.concatenate([x, x[:1]], axis=None)),
            (lambda x: xp.permute_dims(x, (2, 0, 1)), lambda x: np.transpose(x, (2, 0, 1))),
            (lambda x: xp.reshape(x, (-1, 6)), lambda x: x.reshape(-1, 6)),
            (lambda x: xp.roll(x, 1, axis=-1), lambda x: np.roll(x, 1, axis=-1)),
            (lambda x: xp.roll(x, (1, -2), axis=(0, 2)), lambda x: np.roll(x, (1, -2), axis=(0, 2))),
            (lambda x: xp.roll(x, 5), lambda x: np.roll(x, 5)),
            (lambda x: xp.stack([x, -x], axis=-1), lambda x: np.stack([x, -x], axis=-1)),
            (lambda x: xp.take(x, tf.constant([2, 0, 2]), axis=1), lambda x: x[:, [2, 0, 2]]),
        ],
    )
    @pytest.mark.parametrize("mode", MODES)
    def test_as_numpy(self, ours, numpys, mode):
        assert_same(MODES[mode](ours)(tf.constant(self.X)), numpys(self.X))


class TestFourier:
    @pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
    @pytest.mark.parametrize("name", ["fftn", "ifftn"])
    @pytest.mark.parametrize("shape", [(4, 4), (2, 6, 5), (1, 2, 3, 8)])
    @pytest.mark.parametrize("kind", COMPLEX)
    def test_transform(self, name, norm, shape, kind):
        rng = np.random.default_rng(0)
        x = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(kind)
        wanted = getattr(np.fft, name)(x, axes=(-2, -1), norm=norm)
        assert_same(getattr(xp.fft, name)(tf.constant(x), axes=(-2, -1), norm=norm), wanted.astype(kind))

    @given(rows=st.integers(1, 5), cols=st.integers(1, 5), axes=st.sampled_from([None, -1, (-2, -1), (1,)]))
    def test_shift(self, rows, cols, axes):
        x = np.arange(2.0 * rows * cols).reshape(2, rows, cols)
        for name in ("fftshift", "ifftshift"):
            assert_same(getattr(xp.fft, name)(tf.constant(x), axes=axes), getattr(np.fft, name)(x, axes=axes))

    @pytest.mark.parametrize("n", [1, 4, 7])
    def test_frequencies(self, n):
        assert_same(xp.fft.fftfreq(n, d=0.3), np.fft.fftfreq(n, 0.3).astype("float32"))
        assert_same(xp.fft.fftfreq(n, dtype=xp.float64), np.fft.fftfreq(n))

    @pytest.mark.parametrize("arguments", [{"axes": (0, 1)}, {"axes": (-1,)}, {"axes": (-2, -1), "s": (4, 4)}, {}])
    def test_other_axes_are_refused(self, arguments):
        with pytest.raises(ValueError, match=r"axes: got .* transforms the last two axes"):
            xp.fft.fftn(tf.zeros((2, 3, 4), tf.complex64), **arguments)


class TestDtypes:
    NAMES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", *REAL, *COMPLEX)
    KINDS = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric")

    @pytest.mark.parametrize("name", NAMES)
    def test_isdtype(self, name):
        for kind in (*self.KINDS, ("integral", "bool")):
            assert xp.isdtype(getattr(xp, name), kind) == strict.isdtype(getattr(strict, name), kind), kind
        assert xp.isdtype(getattr(xp, name), getattr(xp, name))
        assert not xp.isdtype(getattr(xp, name), xp.uint8 if name != "uint8" else xp.int8)

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="kind: got 'whole'; expected one of bool"):
            xp.isdtype(xp.int8, "whole")

    @pytest.mark.parametrize("name", [*REAL, *COMPLEX])
    def test_finfo(self, name):
        ours, wanted = xp.finfo(getattr(xp, name)), np.finfo(name)
        assert xp.finfo(tf.zeros(1, getattr(xp, name))) == ours
        assert ours.dtype.name == wanted.dtype.name
        for field in ("bits", "eps", "max", "min", "smallest_normal"):
            assert getattr(ours, field) == getattr(wanted, field)
            assert type(getattr(ours, field)) in (int, float)

    @given(x=values((3,), "float32"))
    def test_astype(self, x):
        for name in ("float64", "complex64", "complex128", "int32", "bool"):
            assert_same(xp.astype(tf.constant(x), getattr(xp, name)), x.astype(name))

    def test_the_gradient_of_a_cast_is_the_real_part(self, capfd):
        x = tf.constant([1.0, -2.0])
        for f in MODES.values():
            _, gradient = f(
                get_backend("tensorflow").value_and_grad(
                    lambda x: xp.sum(xp.real(xp.astype(x, xp.complex64) * tf.constant(2.0 + 5.0j, tf.complex64)))
                )
            )(x)
            assert gradient.dtype == xp.float32
            np.testing.assert_allclose(gradient, [2.0, 2.0])
        assert "incompatible dtype" not in capfd.readouterr().err


class TestCreation:
    def test_as_numpy(self):
        like = tf.constant([[1.0, 2.0]], tf.float64)
        where = device(like)
        assert_same(xp.zeros((2, 3), dtype=xp.complex64, device=where), np.zeros((2, 3), "complex64"))
        assert_same(xp.ones(3, dtype=xp.int32, device=where), np.ones(3, "int32"))
        assert_same(xp.full((2, 1), 2.5, dtype=xp.float64), np.full((2, 1), 2.5))
        assert_same(xp.zeros_like(like), np.zeros((1, 2)))
        assert_same(xp.ones_like(like, dtype=xp.float32), np.ones((1, 2), "float32"))
        assert_same(xp.full_like(like, 3), np.full((1, 2), 3.0))
        assert_same(xp.arange(4, dtype=xp.float32, device=where), np.arange(4, dtype="float32"))
        assert_same(xp.arange(1, 7, 2, dtype=xp.int64), np.arange(1, 7, 2))
        assert xp.zeros(2).dtype == xp.ones(2).dtype == xp.float32

    def test_asarray(self):
        assert_same(xp.asarray(np.arange(3)[::-1]), np.array([2, 1, 0]))
        assert_same(xp.asarray([True, False]), np.array([True, False]))
        assert_same(xp.asarray(tf.Variable([1.0, 2.0]), dtype=xp.complex64), np.array([1, 2], "complex64"))
        assert not isinstance(xp.asarray(tf.Variable([1.0])), tf.Variable)
        assert "CPU:0" in xp.asarray(1.0, device="CPU:0").device

    def test_the_namespace_is_found(self):
        for array in (tf.constant(1.0), tf.Variable(1.0)):
            assert array_namespace(array, 2.0) is xp
        with pytest.raises(TypeError, match="Multiple namespaces"):
            array_namespace(tf.constant(1.0), np.ones(1))
