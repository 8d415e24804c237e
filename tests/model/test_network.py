"""The cnn: shapes, seeds, heads, and one result in every framework."""

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.errors import ConfigError
from ptycho.model.network import SIZES, apply_cnn, cnn_shapes, conv2d_enlarged, encode, init_cnn

ACTIVATIONS = ["sigmoid", "swish", "softplus", "relu"]


def network(size=64, scale=1, channels=(1, 1), pad=True, big=True, seed=0):
    return init_cnn(cnn_shapes(size, scale, *channels, pad, big), np.random.default_rng(seed))


def run(backend, params, x, activation="sigmoid", **options):
    params = {k: backend.asarray(v) for k, v in params.items()}
    return [backend.to_numpy(part) for part in apply_cnn(params, backend.asarray(x), backend, activation, **options)]


def patterns(size=64, channels=1, batch=2, seed=1):
    return np.random.default_rng(seed).uniform(0, 2, (batch, size, size, channels)).astype(np.float32)


class TestShapes:
    @pytest.mark.parametrize("size", list(SIZES))
    @pytest.mark.parametrize(("pad", "big"), [(True, True), (True, False), (False, False)])
    def test_amplitude_and_phase_are_of_the_patterns_size(self, size, pad, big):
        pytest.importorskip("torch")
        lender = get_backend("pytorch")
        parts = run(lender, network(size, 1, (4, 4), pad, big), patterns(size, 4, 1))
        assert [part.shape for part in parts] == [(1, size, size, 4)] * 2

    @pytest.mark.parametrize("size", list(SIZES))
    def test_the_encoder_ends_at_eight_pixels(self, size):
        pytest.importorskip("torch")
        lender = get_backend("pytorch")
        params = {k: lender.asarray(v) for k, v in network(size).items()}
        hidden = encode(params, lender.asarray(patterns(size, 1, 1)), lender)
        assert tuple(hidden.shape) == (1, 8, 8, 128)

    @pytest.mark.parametrize(("size", "first", "last"), [(64, 32, 128), (128, 16, 128), (256, 8, 128)])
    def test_widths_grow_with_the_scale(self, size, first, last):
        shapes = cnn_shapes(size, 2, 1, 1, True, True)
        assert shapes["encoder/block0/conv0/kernel"] == (3, 3, 1, 2 * first)
        blocks = [k for k in shapes if k.startswith("encoder") and k.endswith("conv1/kernel")]
        assert shapes[blocks[-1]][-1] == 2 * last
        assert shapes["amplitude/last/conv0/kernel"] == (3, 3, 4, 2 * 2048 // size)
        assert shapes["amplitude/centre/kernel"][2] == shapes["phase/centre/kernel"][2] == 64 - 4

    @pytest.mark.parametrize("size", [0, 32, 96, 512])
    def test_unsupported_size(self, size):
        with pytest.raises(ConfigError, match=rf"N: got {size}; the cnn supports pattern sizes 64, 128, 256"):
            cnn_shapes(size, 1, 1, 1, True, True)

    def test_unknown_activation(self, backend):
        with pytest.raises(ConfigError, match="amp_activation: got 'gelu'"):
            run(backend, network(), patterns(batch=1), "gelu")


class TestSeed:
    def test_same_seed_same_weights(self):
        first, second, other = network(seed=5), network(seed=5), network(seed=6)
        assert all((first[k] == second[k]).all() for k in first)
        assert any((first[k] != other[k]).any() for k in first)
        assert {v.dtype for v in first.values()} == {np.dtype(np.float32)}

    def test_glorot_limits_and_zero_biases(self):
        for name, values in network(seed=5).items():
            if name.endswith("/bias"):
                assert not values.any()
                continue
            limit = np.sqrt(6 / (9 * (values.shape[2] + values.shape[3])))
            assert np.abs(values).max() <= limit
            if values.size > 1000:
                assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)


class TestValues:
    @pytest.mark.parametrize(("pad", "big"), [(True, True), (False, False)])
    def test_numpy_and_pytorch_agree(self, pad, big):
        pytest.importorskip("torch")
        params, x = network(pad=pad, big=big), patterns()
        for ours, wanted in zip(
            run(get_backend("pytorch"), params, x), run(get_backend("numpy"), params, x), strict=True
        ):
            np.testing.assert_allclose(ours, wanted, atol=1e-5)
            assert wanted.std() > 1e-4

    def test_the_border_head_leaves_the_middle(self, backend):
        params, x = network(), patterns(batch=1)
        without = {k: v for k, v in params.items() if "/border/" not in k}
        for whole, centre in zip(run(backend, params, x), run(backend, without, x), strict=True):
            np.testing.assert_array_equal(whole[:, 16:48, 16:48], centre[:, 16:48, 16:48])
            outside = np.ones((64, 64), dtype=bool)
            outside[16:48, 16:48] = False
            assert not centre[:, outside].any()
            assert (whole[:, outside] != 0).mean() > 0.9

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
    def test_finite_for_any_brightness(self, backend, activation, size):
        for part in run(backend, network(), size * patterns(batch=1), activation):
            assert np.isfinite(part).all()

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_gradients_are_finite_for_any_brightness(self, activation):
        torch = pytest.importorskip("torch")
        lender = get_backend("pytorch")
        params = {k: lender.asarray(v) for k, v in network().items()}
        x = lender.asarray(1e4 * patterns(batch=1))

        def loss(p):
            amplitude, phase = apply_cnn(p, x, lender, activation)
            return torch.mean(amplitude) + torch.mean(phase)

        _, gradients = lender.value_and_grad(loss)(params)
        assert all(torch.isfinite(g).all() for g in gradients.values())

    def test_ranges(self, backend):
        amplitude, phase = run(backend, network(pad=False), 30 * patterns(batch=1))
        assert 0 <= amplitude.min() <= amplitude.max() <= 1
        assert np.abs(phase).max() <= np.pi + 1e-6

    def test_patterns_do_not_see_each_other(self, backend):
        params, x = network(), patterns(batch=3)
        together = run(backend, params, x)
        alone = run(backend, params, x[1:2])
        for ours, wanted in zip(alone, together, strict=True):
            np.testing.assert_allclose(ours, wanted[1:2], atol=1e-5)


class TestEnlarged:
    """The convolution of an image whose pixels are repeated, without repeating them."""

    @staticmethod
    def drawn(shape=(2, 3, 5, 3), out=2):
        rng = np.random.default_rng(0)
        return rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], out)), rng.normal(size=out)

    def test_is_that_of_the_repeated_pixels(self, backend):
        x, kernel, bias = self.drawn()
        ours = conv2d_enlarged(*map(backend.asarray, (x, kernel, bias)), backend)
        repeated = np.kron(x, np.ones((1, 2, 2, 1)))
        np.testing.assert_allclose(
            backend.to_numpy(ours), get_backend("numpy").conv2d(repeated, kernel, bias), atol=1e-12
        )

    def test_the_slope_too(self, learner):
        arrays = [learner.asarray(a) for a in self.drawn()]
        xp = learner.xp

        def repeated(x, kernel, bias):
            batch, height, width, channels = x.shape
            pairs = xp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
            return learner.conv2d(xp.reshape(pairs, (batch, 2 * height, 2 * width, channels)), kernel, bias)

        for argument in range(3):
            found = []
            for way in (lambda *a: conv2d_enlarged(*a, learner), repeated):

                def energy(value, way=way, argument=argument):
                    return xp.sum(way(*arrays[:argument], value, *arrays[argument + 1 :]) ** 3)

                found.append(learner.to_numpy(learner.value_and_grad(energy)(arrays[argument])[1]))
            np.testing.assert_allclose(*found, atol=1e-9)
