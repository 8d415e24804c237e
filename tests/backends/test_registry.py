"""The registry: who lends what, what is refused, and the primitives of every backend against plain loops."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backends import (
    Backend,
    available_backends,
    backend_for_training,
    get_backend,
    get_trainer,
    registry,
    to_numpy,
)
from ptycho.errors import BackendError


class TestChoice:
    def test_names_and_aliases(self):
        assert available_backends()[0] == "numpy"
        assert "pytorch" in available_backends()
        assert get_backend("numpy") is get_backend("numpy")

    def test_alias_of_pytorch(self):
        pytest.importorskip("torch")
        assert get_backend("torch") is get_backend("pytorch")

    def test_every_backend_keeps_the_protocol(self, backend):
        assert isinstance(backend, Backend)

    def test_arrays_tell_their_backend(self, xp):
        array = xp.asarray([1.0, 2.0])
        lender = get_backend(array)
        assert lender.xp.__name__ == xp.__name__
        assert isinstance(lender.to_numpy(lender.asarray(np.arange(3), dtype="float32")), np.ndarray)
        np.testing.assert_array_equal(to_numpy(array), [1.0, 2.0])

    def test_unknown_name(self):
        with pytest.raises(BackendError, match=r"'fortran' is not available; choose one of: numpy"):
            get_backend("fortran")

    def test_absent_framework_says_what_to_install(self, monkeypatch):
        class Point:
            name = "pytorch"

            def load(self):
                raise ImportError("No module named 'torch'")

        monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
        with pytest.raises(BackendError, match=r"pip install ptychopinn\[torch\]"):
            registry._load("ptycho.backends", "pytorch")

    def test_numpy_does_not_train(self):
        for ask in (get_trainer, backend_for_training):
            with pytest.raises(BackendError, match="cannot train"):
                ask("numpy")
        with pytest.raises(BackendError, match="no gradients"):
            get_backend("numpy").value_and_grad(lambda x: x)

    def test_pytorch_trains(self):
        pytest.importorskip("lightning")
        assert get_trainer("torch").__name__ == "Trainer"
        assert backend_for_training("pytorch") is get_backend("pytorch")

    def test_no_framework_is_imported_unasked(self):
        code = (
            "import sys, ptycho.backends, ptycho.physics, ptycho.model.pinn; ptycho.backends.get_backend('numpy');"
            "print([m for m in ('torch', 'tensorflow', 'jax', 'lightning') if m in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


def random(shape, seed=0, kind="float64"):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if kind == "complex128" else values).astype(kind)


class TestWindows:
    CORNERS = (((0, 0), (1, 2)), ((3, 2), (3, 2)), ((3, 2), (0, 6)), ((5, 6), (5, 5)))

    @pytest.mark.parametrize("kind", ["float64", "complex128"])
    def test_gather_is_slicing(self, xp, kind):
        image = random((9, 10), kind=kind)
        corners, weights = np.array(self.CORNERS, dtype=np.int32), random((4, 2), 3)
        lender = get_backend(xp.asarray(image))
        windows = lender.gather_windows(xp.asarray(image), xp.asarray(corners), xp.asarray(weights), 4)
        wanted = [
            sum(w * image[r : r + 4, c : c + 4] for w, (r, c) in zip(shares, places, strict=True))
            for shares, places in zip(weights, self.CORNERS, strict=True)
        ]
        np.testing.assert_allclose(to_numpy(windows), wanted, atol=1e-14)

    def test_one_whole_place_is_a_slice(self, xp):
        image, corners = random((9, 10)), np.array([[[2, 3]]], dtype=np.int32)
        lender = get_backend(xp.asarray(image))
        windows = lender.gather_windows(xp.asarray(image), xp.asarray(corners), xp.asarray(np.ones((1, 1))), 4)
        np.testing.assert_array_equal(to_numpy(windows), image[None, 2:6, 3:7])

    @given(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=6).map(lambda c: c[: len(c) // 2 * 2]),
        st.sampled_from(["float64", "complex128"]),
    )
    def test_scatter_is_the_adjoint(self, xp, corners, kind):
        image, windows = random((9, 10), 1, kind), random((len(corners) // 2, 4, 4), 2, kind)
        where = xp.asarray(np.array(corners, dtype=np.int32).reshape(-1, 2, 2))
        weights = xp.asarray(random((len(corners) // 2, 2), 3))
        lender = get_backend(xp.asarray(image))
        gathered = to_numpy(lender.gather_windows(xp.asarray(image), where, weights, 4))
        scattered = to_numpy(lender.scatter_windows(xp.asarray(windows), where, weights, (9, 10)))
        assert scattered.shape == (9, 10)
        np.testing.assert_allclose(np.vdot(windows, gathered), np.vdot(scattered, image), atol=1e-10)


class TestConvolutions:
    @pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3), (3, 5)])
    def test_conv2d_is_same_correlation(self, backend, kernel):
        x, weights, bias = random((2, 6, 7, 3)), random((*kernel, 3, 4), 1), random((4,), 2)
        top, left = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
        padded = np.zeros((2, 6 + kernel[0] - 1, 7 + kernel[1] - 1, 3))
        padded[:, top : top + 6, left : left + 7] = x
        wanted = np.zeros((2, 6, 7, 4)) + bias
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                wanted += padded[:, i : i + 6, j : j + 7] @ weights[i, j]
        ours = backend.conv2d(*(backend.asarray(a) for a in (x, weights, bias)))
        np.testing.assert_allclose(backend.to_numpy(ours), wanted, atol=1e-10)

    def test_relu(self, backend):
        x = np.array([np.nan, -np.inf, -1.0, -0.0, 0.0, 2.0, np.inf])
        np.testing.assert_array_equal(
            backend.to_numpy(backend.relu(backend.asarray(x))), [np.nan, 0, 0, 0, 0, 2, np.inf]
        )

    def test_relu_has_no_slope_at_nought(self, learner):
        x = learner.asarray(np.array([-1.0, 0.0, 2.0], np.float32))
        _, slope = learner.value_and_grad(lambda x: learner.xp.sum(learner.relu(x)))(x)
        np.testing.assert_array_equal(learner.to_numpy(slope), [0, 0, 1])

    def test_pooling(self, backend):
        x = random((2, 4, 6, 3))
        pooled = backend.to_numpy(backend.max_pool2d(backend.asarray(x)))
        np.testing.assert_array_equal(pooled, x.reshape(2, 2, 2, 3, 2, 3).max(axis=(2, 4)))


class TestArrays:
    def test_dtype_by_name(self, backend):
        assert backend.asarray([1, 2], dtype="float32").dtype == backend.xp.float32

    def test_reversed_and_read_only_views(self, backend):
        view = np.arange(6.0)[::-1]
        view.flags.writeable = False
        np.testing.assert_array_equal(backend.to_numpy(backend.asarray(view)), view)

    @pytest.mark.parametrize("compiled", [False, True])
    def test_parts_give_the_whole(self, backend, compiled):
        def in_parts(stack):
            return backend.in_parts(lambda part: backend.xp.sum(part * part, axis=-1), stack)

        stack = random((150, 64, 64))
        found = (backend.jit(in_parts) if compiled else in_parts)(backend.asarray(stack))
        np.testing.assert_allclose(backend.to_numpy(found), (stack**2).sum(axis=-1), rtol=1e-12)

    def test_jit_and_stop_gradient_keep_values(self, backend):
        x = backend.asarray([1.0, 2.0])
        np.testing.assert_array_equal(backend.to_numpy(backend.jit(lambda a: a * 2)(x)), [2.0, 4.0])
        np.testing.assert_array_equal(backend.to_numpy(backend.stop_gradient(x)), [1.0, 2.0])


class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_gradient_by_a_complex_array(self, torch):
        z = torch.tensor([1.0 + 2.0j, -3.0j])
        value, gradient = get_backend("pytorch").value_and_grad(lambda w: torch.sum(torch.abs(w) ** 2))(z)
        assert float(value) == pytest.approx(14.0)
        torch.testing.assert_close(gradient, 2 * z)

    def test_gradient_by_a_dictionary(self, torch):
        params = {"a": torch.tensor(3.0), "b": torch.tensor(2.0), "unused": torch.ones(2)}
        f = get_backend("pytorch").value_and_grad(lambda p, k: k * p["a"] ** 2 * p["b"])
        value, gradient = f(params, 5.0)
        assert (float(value), float(gradient["a"]), float(gradient["b"])) == (90.0, 60.0, 45.0)
        assert gradient["unused"].tolist() == [0.0, 0.0]
        assert not params["a"].requires_grad

    def test_no_gradient_through_a_stop(self, torch):
        lender = get_backend("pytorch")
        _, gradient = lender.value_and_grad(lambda x: torch.sum(lender.stop_gradient(x) * x))(torch.tensor([2.0]))
        assert gradient.tolist() == [2.0]

    def test_gather_and_scatter_have_gradients_of_gradients(self, torch):
        lender = get_backend("pytorch")
        corners = torch.tensor([[[0, 0], [0, 1]], [[1, 2], [2, 2]], [[1, 2], [1, 2]]])
        for kind in ("complex128", "float64"):
            image = torch.tensor(random((5, 6), kind=kind), requires_grad=True)
            windows = torch.tensor(random((3, 3, 3), 1, kind), requires_grad=True)
            weights = torch.tensor(random((3, 2), 2), requires_grad=True)
            for f, x in (
                (lambda x, w: lender.gather_windows(x, corners, w, 3), image),
                (lambda x, w: lender.scatter_windows(x, corners, w, (5, 6)), windows),
            ):
                assert torch.autograd.gradcheck(f, (x, weights))
                assert torch.autograd.gradgradcheck(lambda x, w, f=f: f(x, w) ** 2, (x, weights))

    def test_a_device_without_numpy_sums_the_same(self, torch, monkeypatch):
        """The way of other devices, on the CPU."""
        lender = get_backend("pytorch")
        corners = torch.tensor([[[0, 0], [0, 1]], [[1, 2], [2, 2]], [[1, 2], [1, 2]]])
        image, windows = (
            torch.tensor(random((5, 6), kind="complex128")),
            torch.tensor(random((3, 3, 3), 1, "complex128")),
        )
        weights = torch.tensor(random((3, 2), 2))
        wanted = (
            lender.gather_windows(image, corners, weights, 3),
            lender.scatter_windows(windows, corners, weights, (5, 6)),
        )
        monkeypatch.setattr("ptycho_torch.backend._on_host", lambda tensor: False)
        found = (
            lender.gather_windows(image, corners, weights, 3),
            lender.scatter_windows(windows, corners, weights, (5, 6)),
        )
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(to_numpy(a), to_numpy(b), atol=1e-14)

    def test_conjugate_views_reach_the_host(self, torch):
        z = torch.tensor([1.0 + 2.0j], requires_grad=True)
        np.testing.assert_array_equal(to_numpy(torch.conj(z)), [1.0 - 2.0j])

    def test_bfloat16_reaches_the_host(self, torch):
        assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32

    def test_unknown_device(self, torch):
        with pytest.raises(BackendError, match="device: 'abacus'"):
            get_backend("pytorch").asarray(np.ones(2), device="abacus")

    @pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
    def test_a_gpu_is_taken_where_there_is_one(self, torch, monkeypatch, gpu, device):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        assert get_backend("pytorch").best_device() == device
        assert get_backend("numpy").best_device() is None

    def test_absent_gpu(self, torch):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        with pytest.raises(BackendError, match="device: 'cuda'"):
            get_backend("pytorch").asarray(np.ones(2), device="cuda")
