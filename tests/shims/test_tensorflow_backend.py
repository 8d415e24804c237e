"""TensorFlow's primitives, eager, in ``tf.function`` and compiled by XLA, against numpy; the physics on them; gradients
against PyTorch and finite differences."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

from ptycho.backends import Backend, get_backend, to_numpy
from ptycho.errors import BackendError
from ptycho.physics.patches import accumulate_patches, extract_patches
from ptycho_tensorflow import namespace
from ptycho_tensorflow.backend import find_devices

MODES = {
    "eager": lambda f: f,
    "function": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}
DOUBLE = {"float32": "float64", "complex64": "complex128"}


@pytest.fixture(scope="module")
def lender():
    return get_backend("tensorflow")


@pytest.fixture(params=MODES)
def run(request):
    """Calls a function as it is, as a graph, or compiled."""
    return lambda f, *args: MODES[request.param](f)(*args)


def normal(shape, kind="float32", seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if kind.startswith("complex") else values).astype(kind)


def close(actual, desired, tolerance):
    actual, desired = to_numpy(actual), to_numpy(desired)
    assert actual.shape == desired.shape
    assert actual.dtype == desired.dtype
    assert np.abs(actual - desired).max(initial=0.0) <= tolerance * (np.abs(desired).max(initial=0.0) + 1e-30)


class TestArrays:
    def test_protocol(self, lender):
        assert isinstance(lender, Backend)
        assert (lender.name, lender.xp) == ("tensorflow", namespace)
        assert get_backend("tf") is lender
        for array in (lender.asarray([1.0, 2.0]), tf.Variable(1.0)):
            assert get_backend(array) is lender

    def test_a_tensor_in_a_graph_tells_its_backend(self, lender, run):
        assert run(lambda x: x * (get_backend(x) is lender), tf.constant(1.0)) == 1.0

    def test_dtypes_by_name_reach_the_host(self, lender):
        assert lender.asarray([1, 2], dtype="complex64").dtype == "complex64"
        assert lender.asarray(np.ones(2)).dtype == "float64"
        assert lender.to_numpy(lender.asarray([1.0], dtype="bfloat16")).dtype == np.float32
        assert lender.to_numpy(lender.asarray([1], dtype="int32")).dtype == np.int32

    def test_reversed_and_read_only_views(self, lender):
        view = np.arange(6.0, dtype=np.float32)[::-1]
        view.flags.writeable = False
        np.testing.assert_array_equal(lender.to_numpy(lender.asarray(view)), view)

    @pytest.mark.parametrize("device", ["cpu", "cpu:0", find_devices("cpu")[0]])
    def test_devices(self, lender, device):
        assert lender.asarray(np.ones(2), device=device).device.endswith(find_devices("cpu")[0])

    @pytest.mark.parametrize(("gpus", "kind"), [([], "CPU"), (["GPU:0"], "GPU")])
    def test_a_gpu_is_taken_where_there_is_one(self, lender, monkeypatch, gpus, kind):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [tf.config.LogicalDevice(kind, kind)])
        assert lender.best_device() == kind

    @pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:99"])
    def test_unknown_device(self, lender, device):
        with pytest.raises(BackendError, match=f"device: '{device}' asks for .* choose --device cpu"):
            lender.asarray(np.ones(2), device=device)

    def test_jit_compiles(self, lender):
        traced = []
        double = lender.jit(lambda x: (traced.append(0), x * 2)[1])
        assert [float(double(tf.constant(x))) for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
        assert len(traced) == 1

    def test_nothing_is_said_when_tensorflow_loads(self):
        code = (
            "from ptycho.backends import get_backend as b; t = b('tf'); print(t.jit(lambda x: x + 1)(t.asarray([1.0])))"
        )
        bare = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        told = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
        assert "[2.]" in told.stdout
        assert told.stderr == ""

    def test_what_a_failing_import_says_is_shown(self):
        code = (
            "import os, sys\n"
            "class Broken:\n"
            "    def find_spec(self, name, *rest):\n"
            "        if name == 'tensorflow':\n"
            "            os.write(2, b'the reason')\n"
            "            raise ImportError('broken')\n"
            "sys.meta_path.insert(0, Broken())\n"
            "from ptycho.backends import get_backend\n"
            "try:\n"
            "    get_backend('tensorflow')\n"
            "except ImportError as error:\n"
            "    print(error)\n"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stderr == "the reason"
        assert "pip install ptychopinn[tensorflow]" in told.stdout


@st.composite
def windows(draw):
    """Image shape, window size and corners of windows inside."""
    size = draw(st.integers(1, 5))
    shape = draw(st.tuples(st.integers(size, 9), st.integers(size, 9)))
    corner = st.tuples(*(st.integers(0, side - size) for side in shape))
    corners = np.array(draw(st.lists(st.tuples(corner, corner), max_size=5)), dtype=np.int32).reshape(-1, 2, 2)
    return shape, size, corners, draw(st.sampled_from(["float32", "complex64"])), draw(st.integers(0, 99))


class TestWindows:
    @given(case=windows())
    def test_both_are_numpys(self, lender, case):
        shape, size, corners, kind, seed = case
        image, patches = normal(shape, kind, seed), normal((len(corners), size, size), kind, seed + 1)
        reference, where = get_backend("numpy"), lender.asarray(corners)
        weights = normal(corners.shape[:2], "float32", 11)
        shares = lender.asarray(weights)
        gathered = lender.gather_windows(lender.asarray(image), where, shares, size)
        assert gathered.dtype == kind
        close(gathered, reference.gather_windows(image, corners, weights, size), 1e-5)
        scattered = lender.scatter_windows(lender.asarray(patches), where, shares, shape)
        assert scattered.dtype == kind
        close(scattered, reference.scatter_windows(patches, corners, weights, shape), 1e-5)

    @given(case=windows())
    def test_adjoint(self, lender, case):
        shape, size, corners, kind, seed = case
        image, patches = normal(shape, DOUBLE[kind], seed), normal((len(corners), size, size), DOUBLE[kind], 7)
        where, weights = lender.asarray(corners), lender.asarray(normal(corners.shape[:2], "float64", 11))
        left = np.vdot(patches, to_numpy(lender.gather_windows(lender.asarray(image), where, weights, size)))
        right = np.vdot(to_numpy(lender.scatter_windows(lender.asarray(patches), where, weights, shape)), image)
        np.testing.assert_allclose(left, right, atol=1e-10)

    @pytest.mark.parametrize("corner_kind", ["int32", "int64"])
    def test_in_graphs(self, lender, run, corner_kind):
        where = np.array([[[0, 0], [1, 1]], [[3, 5], [3, 5]], [[3, 5], [2, 4]]])
        image, patches, weights = normal((7, 9)), normal((3, 4, 4), seed=1), normal((3, 2), seed=2)
        corners, reference = lender.asarray(where, dtype=corner_kind), get_backend("numpy")
        shares = lender.asarray(weights)
        gathered = run(lambda i, c: lender.gather_windows(i, c, shares, 4), lender.asarray(image), corners)
        close(gathered, reference.gather_windows(image, where, weights, 4), 1e-6)
        scattered = run(lambda w, c: lender.scatter_windows(w, c, shares, (7, 9)), lender.asarray(patches), corners)
        close(scattered, reference.scatter_windows(patches, where, weights, (7, 9)), 1e-6)

    def test_many_windows_are_looped_over(self, lender, monkeypatch):
        """What XLA compiles for many windows gives the values and gradients of what runs for few."""
        where = lender.asarray(np.array([[[0, 0], [1, 1]], [[3, 5], [3, 5]]], np.int32))
        image, patches = lender.asarray(normal((7, 9), "complex64")), lender.asarray(normal((2, 4, 4), "complex64", 1))
        weights = lender.asarray(normal((2, 2), seed=2))

        def found():
            for f, x in (
                (lambda i, s: lender.gather_windows(i, where, s, 4), image),
                (lambda w, s: lender.scatter_windows(w, where, s, (7, 9)), patches),
            ):
                yield f(x, weights)
                for g, by in ((lambda x, f=f: f(x, weights), x), (lambda s, f=f, x=x: f(x, s), weights)):
                    yield lender.value_and_grad(lambda a, g=g: tf.reduce_sum(tf.math.real(g(a) ** 2)))(by)[1]

        few = [to_numpy(each) for each in found()]
        monkeypatch.setattr("ptycho_tensorflow.backend._MANY", 1)
        for many, wanted in zip(found(), few, strict=True):
            close(many, wanted, 1e-5)

    @pytest.mark.parametrize("kind", ["float64", "complex128"])
    def test_gradients_of_gradients(self, lender, run, kind):
        where, shares = tf.constant([[[0, 0]], [[1, 2]], [[1, 2]]]), lender.asarray(normal((3, 1), "float64", 5))
        for f, values in (
            (lambda i: lender.gather_windows(i, where, shares, 3), normal((5, 6), kind)),
            (lambda w: lender.scatter_windows(w, where, shares, (5, 6)), normal((3, 3, 3), kind, 1)),
        ):
            weight = lender.asarray(normal(tuple(f(lender.asarray(values)).shape), kind, 2))
            along = lender.asarray(normal(values.shape, kind, 3))

            def loss(x, f=f, weight=weight):
                return tf.reduce_sum(tf.math.real(f(x) ** 2 * tf.math.conj(weight)))

            def slope(x, loss=loss, along=along):
                return tf.reduce_sum(tf.math.real(tf.math.conj(lender.value_and_grad(loss)(x)[1]) * along))

            for g in (loss, slope):
                found = to_numpy(run(lender.value_and_grad(g), lender.asarray(values))[1])
                step = 1e-5 * normal(values.shape, kind, 4)
                ahead, behind = (float(g(lender.asarray(values + s * step))) for s in (1, -1))
                assert np.sum(np.real(np.conj(found) * step)) == pytest.approx((ahead - behind) / 2, rel=1e-6)


class TestConvolutions:
    @pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
    @pytest.mark.parametrize("kind", ["float32", "float64"])
    def test_conv2d_is_numpys(self, lender, run, kernel, kind):
        arrays = normal((2, 6, 7, 3), kind), normal((*kernel, 3, 4), kind, 1), normal((4,), kind, 2)
        tolerance = 1e-5 if kind == "float32" else 1e-12
        close(run(lender.conv2d, *map(lender.asarray, arrays)), get_backend("numpy").conv2d(*arrays), tolerance)

    def test_the_kernel_decides_the_precision(self, lender):
        x, kernel, bias = normal((1, 4, 4, 2)), normal((3, 3, 2, 2), seed=1), normal((2,), seed=2)
        half = [lender.asarray(a, dtype="bfloat16") for a in (kernel, bias)]
        y = lender.conv2d(lender.asarray(x), *half)
        assert y.dtype == tf.bfloat16
        close(y, get_backend("numpy").conv2d(x, kernel, bias), 3e-2)

    def test_pooling_is_numpys(self, lender, run):
        x, reference = normal((2, 4, 6, 3)), get_backend("numpy")
        np.testing.assert_array_equal(to_numpy(run(lender.max_pool2d, lender.asarray(x))), reference.max_pool2d(x))

    def test_the_gradient_of_pooling_goes_to_the_first_of_equals(self, lender, run):
        x = lender.asarray(np.array([[0, 1], [1, 1]], np.float32).reshape(1, 2, 2, 1))
        _, gradient = run(lender.value_and_grad(lambda x: tf.reduce_sum(lender.max_pool2d(x))), x)
        assert to_numpy(gradient).ravel().tolist() == [0, 1, 0, 0]

    @pytest.mark.parametrize("name", ["conv2d", "max_pool2d"])
    def test_gradients_are_pytorchs(self, lender, name):
        pytest.importorskip("torch")
        extra = (normal((3, 3, 2, 3), seed=1), normal((3,), seed=2)) if name == "conv2d" else ()
        x, found = normal((2, 4, 4, 2)), []
        for backend in (lender, get_backend("pytorch")):
            args = [backend.asarray(a) for a in (x, *extra)]
            loss = backend.value_and_grad(lambda *a, b=backend: b.xp.sum(getattr(b, name)(*a) ** 3))
            found.append(to_numpy(loss(*args)[1]))
        close(found[0], found[1], 1e-5)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_graph_works_on_a_stack_in_parts(lender, monkeypatch, count):
    """Values and gradients of the whole, as many parts as a graph may have."""
    monkeypatch.setattr("ptycho.backends.arrays._CACHED", 128)
    monkeypatch.setattr("ptycho_tensorflow.backend._PART_LIMIT", 3)
    seen, stack = [], lender.asarray(normal((count, 8, 8), "complex64"))

    def f(part):
        seen.append(part.shape[0])
        return tf.abs(part) ** 2

    found = lender.jit(lambda s: lender.in_parts(f, s))(stack)
    assert (sum(seen), len(seen)) == (count, {2: 1, 3: 2, 7: 3}[count])
    close(found, tf.abs(stack) ** 2, 1e-6)
    _, gradient = lender.jit(lender.value_and_grad(lambda s: tf.reduce_sum(lender.in_parts(f, s))))(stack)
    close(gradient, 2 * stack, 1e-6)


def test_host_positions(lender, run):
    image, positions = normal((20, 24), "complex64", 5), np.random.default_rng(6).uniform(-3, 26, (5, 2))
    found = run(lambda i: extract_patches(i, positions, 8), lender.asarray(image))
    close(found, extract_patches(image, positions, 8), 1e-6)


class TestGradients:
    def test_by_a_complex_array(self, lender, run):
        z = lender.asarray(np.array([1.0 + 2.0j, -3.0j], np.complex64))
        value, gradient = run(lender.value_and_grad(lambda w: tf.reduce_sum(tf.abs(w) ** 2)), z)
        assert float(value) == pytest.approx(14.0)
        close(gradient, 2 * z, 1e-6)

    def test_by_a_dictionary(self, lender, run):
        params = {"a": tf.constant(3.0), "b": tf.constant(2.0j, tf.complex64), "unused": tf.ones(2)}
        f = lender.value_and_grad(lambda p, k: k * p["a"] ** 2 * tf.math.imag(p["b"]))
        value, gradient = run(f, params, 5.0)
        assert (float(value), float(gradient["a"]), complex(gradient["b"])) == (90.0, 60.0, 45.0j)
        assert to_numpy(gradient["unused"]).tolist() == [0.0, 0.0]

    def test_none_through_a_stop(self, lender, run):
        f = lender.value_and_grad(lambda x: tf.reduce_sum(lender.stop_gradient(x) * x))
        assert to_numpy(run(f, tf.constant([2.0]))[1]).tolist() == [2.0]

    @pytest.mark.parametrize("operation", ["extract", "accumulate"])
    @pytest.mark.parametrize("argument", ["values", "positions"])
    def test_of_patches(self, lender, run, operation, argument):
        """By complex values and by positions: PyTorch's, and the slope of the loss along random directions."""
        rng = np.random.default_rng(0)
        shapes = {"extract": ((9, 10), (4, 5, 5)), "accumulate": ((4, 5, 5), (9, 10))}[operation]
        values, target = normal(shapes[0], "complex128", 1), normal(shapes[1], "complex128", 2)
        positions = rng.uniform(0.1, 0.4, (4, 2)) + rng.integers(-1, 9, (4, 2))

        def loss(backend):
            def f(first, second):
                v, p = (first, second) if argument == "values" else (second, first)
                out = extract_patches(v, p, 5) if operation == "extract" else accumulate_patches(v, p, (9, 10))
                return backend.xp.sum(backend.xp.abs(out - backend.asarray(target)) ** 2)

            return f

        point, other = (values, positions) if argument == "values" else (positions, values)
        f = loss(lender)
        found = to_numpy(run(lender.value_and_grad(f), lender.asarray(point), lender.asarray(other))[1])
        step = normal(point.shape, str(point.dtype), 3)
        ahead, behind = (float(f(lender.asarray(point + h * step), lender.asarray(other))) for h in (1e-5, -1e-5))
        assert np.sum(np.real(np.conj(found) * step)) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-7)
        torch = pytest.importorskip("torch")
        theirs = get_backend("pytorch")
        _, wanted = theirs.value_and_grad(loss(theirs))(torch.tensor(point), torch.tensor(other))
        close(found, wanted, 1e-12)
