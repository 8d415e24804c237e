"""JAX's primitives, eager and compiled, against numpy; gradients against PyTorch and finite differences."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

from ptycho.backends import Backend, array_namespace, get_backend, to_numpy
from ptycho.errors import BackendError
from ptycho.physics.patches import accumulate_patches, extract_patches
from tests.support import compiled_quickly

DOUBLE = {"float32": "float64", "complex64": "complex128"}


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly():
    with compiled_quickly():
        yield


@pytest.fixture(scope="module")
def lender():
    return get_backend("jax")


@pytest.fixture(params=[False, True], ids=["eager", "jit"])
def run(request, lender):
    """Calls a function as it is, or compiled."""
    return (lambda f, *args: lender.jit(f)(*args)) if request.param else (lambda f, *args: f(*args))


def normal(shape, kind="float32", seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if kind.startswith("complex") else values).astype(kind)


def close(actual, desired, tolerance):
    actual, desired = to_numpy(actual), to_numpy(desired)
    assert actual.shape == desired.shape
    assert np.abs(actual - desired).max(initial=0.0) <= tolerance * (np.abs(desired).max(initial=0.0) + 1e-30)


class TestArrays:
    def test_protocol(self, lender):
        assert isinstance(lender, Backend)
        assert (lender.name, lender.xp, lender.best_device()) == ("jax", jnp, None)
        array = lender.asarray([1.0, 2.0])
        assert get_backend(array) is lender
        assert array_namespace(array) is jnp

    def test_a_tracer_tells_its_backend(self, lender):
        assert lender.jit(lambda x: x * (get_backend(x) is lender) * (array_namespace(x) is jnp))(1.0) == 1.0

    @pytest.mark.parametrize(("wide", "kind"), [(False, "float32"), (True, "float64")])
    def test_64_bits_only_where_jax_has_them(self, lender, wide, kind):
        with jax.enable_x64(wide):
            assert lender.asarray(np.ones(2)).dtype == kind
            assert lender.asarray([1, 2], dtype="float64").dtype == kind
            assert lender.asarray(jnp.ones(2), dtype="float64").dtype == kind

    def test_the_library_leaves_x64_off(self):
        assert not jax.config.jax_enable_x64

    def test_dtypes_by_name_reach_the_host(self, lender):
        assert lender.asarray([1, 2], dtype="complex64").dtype == "complex64"
        assert lender.to_numpy(lender.asarray([1.0], dtype="bfloat16")).dtype == np.float32
        assert lender.to_numpy(lender.asarray([1], dtype="int32")).dtype == np.int32

    def test_reversed_and_read_only_views(self, lender):
        view = np.arange(6.0, dtype=np.float32)[::-1]
        view.flags.writeable = False
        np.testing.assert_array_equal(lender.to_numpy(lender.asarray(view)), view)

    @pytest.mark.parametrize("device", ["cpu", "cpu:0", "auto", jax.devices()[0], None])
    def test_devices(self, lender, device):
        assert lender.asarray(np.ones(2), device=device).device == jax.devices()[0]

    @pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:99"])
    def test_unknown_device(self, lender, device):
        with pytest.raises(BackendError, match=f"device: '{device}'"):
            lender.asarray(np.ones(2), device=device)


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
        reference, weights = get_backend("numpy"), normal(corners.shape[:2], "float32", 11)
        where, shares = lender.asarray(corners), lender.asarray(weights)
        gathered = lender.gather_windows(lender.asarray(image), where, shares, size)
        assert gathered.dtype == kind
        close(gathered, reference.gather_windows(image, corners, weights, size), 1e-5)
        scattered = lender.scatter_windows(lender.asarray(patches), where, shares, shape)
        assert scattered.dtype == kind
        close(scattered, reference.scatter_windows(patches, corners, weights, shape), 1e-5)

    def test_accelerators_sum_the_same(self, lender):
        """The scatter of other devices, on the CPU."""
        corners = np.array([[[0, 0], [1, 2]], [[1, 2], [1, 1]]], np.int32)
        weights = normal((2, 2), seed=2)
        arrays = [lender.asarray(a) for a in (normal((2, 3, 3), "complex64"), corners, weights)]
        at_once = importlib.import_module("ptycho_jax.backend")._at_once
        close(at_once((5, 6), *arrays), to_numpy(lender.scatter_windows(*arrays, (5, 6))), 1e-6)

    @given(case=windows())
    def test_adjoint(self, lender, case):
        shape, size, corners, kind, seed = case
        with jax.enable_x64(True):
            image, patches = normal(shape, DOUBLE[kind], seed), normal((len(corners), size, size), DOUBLE[kind], 7)
            where, weights = lender.asarray(corners), lender.asarray(normal(corners.shape[:2], "float64", 11))
            left = np.vdot(patches, to_numpy(lender.gather_windows(lender.asarray(image), where, weights, size)))
            right = np.vdot(to_numpy(lender.scatter_windows(lender.asarray(patches), where, weights, shape)), image)
        np.testing.assert_allclose(left, right, atol=1e-10)

    @pytest.mark.parametrize("kind", ["float64", "complex128"])
    def test_gradients_of_gradients(self, lender, run, kind):
        with jax.enable_x64(True):
            where = lender.asarray(np.array([[[0, 0], [0, 1]], [[1, 2], [2, 2]], [[1, 2], [1, 2]]], np.int32))
            image, patches = lender.asarray(normal((5, 6), kind)), lender.asarray(normal((3, 3, 3), kind, 1))
            weights = lender.asarray(normal((3, 2), "float64", 2))
            for f, x in (
                (lambda i, s: lender.gather_windows(i, where, s, 3) ** 2, image),
                (lambda w, s: lender.scatter_windows(w, where, s, (5, 6)) ** 2, patches),
            ):
                check_grads(lambda x, s, f=f: run(f, x, s), (x, weights), order=2, modes=["rev"])


class TestConvolutions:
    @pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
    def test_conv2d_is_numpys(self, lender, run, kernel):
        arrays = normal((2, 6, 7, 3)), normal((*kernel, 3, 4), seed=1), normal((4,), seed=2)
        close(run(lender.conv2d, *map(lender.asarray, arrays)), get_backend("numpy").conv2d(*arrays), 1e-5)

    def test_the_kernel_decides_the_precision(self, lender):
        x, kernel, bias = normal((1, 4, 4, 2)), normal((3, 3, 2, 2), seed=1), normal((2,), seed=2)
        half = [lender.asarray(a, dtype="bfloat16") for a in (kernel, bias)]
        y = lender.conv2d(lender.asarray(x), *half)
        assert y.dtype == jnp.bfloat16
        close(y, get_backend("numpy").conv2d(x, kernel, bias), 3e-2)

    def test_pooling_is_numpys(self, lender, run):
        x, reference = normal((2, 4, 6, 3)), get_backend("numpy")
        np.testing.assert_array_equal(to_numpy(run(lender.max_pool2d, lender.asarray(x))), reference.max_pool2d(x))

    @pytest.mark.parametrize("place", range(4))
    def test_pooling_keeps_nan(self, lender, place):
        x = np.arange(4.0, dtype=np.float32)
        x[place] = np.nan
        assert np.isnan(to_numpy(lender.max_pool2d(lender.asarray(x.reshape(1, 2, 2, 1)))))

    def test_the_gradient_of_pooling_goes_to_the_first_of_equals(self, lender):
        x = lender.asarray(np.array([[0, 1], [1, 1]], np.float32).reshape(1, 2, 2, 1))
        _, gradient = lender.value_and_grad(lambda x: jnp.sum(lender.max_pool2d(x)))(x)
        assert gradient.ravel().tolist() == [0, 1, 0, 0]

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


class TestGradients:
    def test_by_a_complex_array(self, lender, run):
        z = lender.asarray(np.array([1.0 + 2.0j, -3.0j], np.complex64))
        value, gradient = run(lender.value_and_grad(lambda w: jnp.sum(jnp.abs(w) ** 2)), z)
        assert float(value) == pytest.approx(14.0)
        close(gradient, 2 * z, 1e-6)

    def test_by_a_dictionary(self, lender, run):
        params = {"a": jnp.float32(3.0), "b": jnp.complex64(2.0j), "unused": jnp.ones(2)}
        f = lender.value_and_grad(lambda p, k: k * p["a"] ** 2 * jnp.imag(p["b"]))
        value, gradient = run(f, params, 5.0)
        assert (float(value), float(gradient["a"]), complex(gradient["b"])) == (90.0, 60.0, 45.0j)
        assert gradient["unused"].tolist() == [0.0, 0.0]

    def test_none_through_a_stop(self, lender, run):
        f = lender.value_and_grad(lambda x: jnp.sum(lender.stop_gradient(x) * x))
        assert run(f, jnp.array([2.0]))[1].tolist() == [2.0]

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
        with jax.enable_x64(True):
            f = loss(lender)
            _, found = run(lender.value_and_grad(f), lender.asarray(point), lender.asarray(other))
            found = to_numpy(found)
            step = normal(point.shape, str(point.dtype), 3)
            ahead, behind = (float(f(lender.asarray(point + h * step), lender.asarray(other))) for h in (1e-5, -1e-5))
        assert np.sum(np.real(np.conj(found) * step)) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-7)
        torch = pytest.importorskip("torch")
        theirs = get_backend("pytorch")
        _, wanted = theirs.value_and_grad(loss(theirs))(torch.tensor(point), torch.tensor(other))
        close(found, wanted, 1e-12)
