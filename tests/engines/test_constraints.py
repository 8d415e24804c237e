"""What object and probe are held to."""

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.config import EngineConfig
from ptycho.engines import solve
from ptycho.engines.constraints import constrain_object, constrain_probe, orthogonal_modes, total_variation_step
from tests.support import as_numpy

RNG = np.random.default_rng(0)
IMAGE = (1 + 0.3 * RNG.normal(size=(20, 24))) * np.exp(1j * RNG.normal(0, 0.8, (20, 24)))


@pytest.fixture(params=["numpy", "pytorch"])
def lender(request):
    pytest.importorskip({"pytorch": "torch"}.get(request.param, request.param))
    return get_backend(request.param)


def held(lender, **settings):
    return as_numpy(constrain_object(lender.asarray(IMAGE), EngineConfig(**settings)))


def test_amplitudes_are_limited(lender):
    out = held(lender, amplitude_limit=1.1)
    assert np.abs(out).max() <= 1.1 + 1e-9
    np.testing.assert_allclose(np.angle(out), np.angle(IMAGE), atol=1e-9)
    np.testing.assert_allclose(out[np.abs(IMAGE) < 1.1], IMAGE[np.abs(IMAGE) < 1.1])


def test_phases_are_limited_around_the_mean(lender):
    out = held(lender, phase_limit=0.5)
    turned = out * np.exp(-1j * np.angle(IMAGE.mean()))
    assert np.abs(np.angle(turned)).max() <= 0.5 + 1e-9
    np.testing.assert_allclose(np.abs(out), np.abs(IMAGE), atol=1e-9)


def test_smoothing_and_variation_lower_the_roughness(lender):
    def roughness(image):
        return np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum()

    assert roughness(held(lender, object_smoothness=0.5)) < 0.9 * roughness(IMAGE)
    assert roughness(held(lender, object_tv=0.01)) < roughness(IMAGE)
    flat = np.full((8, 8), 0.7 + 0.1j)
    np.testing.assert_allclose(total_variation_step(flat, 0.01), flat)


def test_modes_become_orthogonal_and_every_pattern_stays(lender):
    probe = RNG.normal(size=(3, 16, 16)) + 1j * RNG.normal(size=(3, 16, 16))
    out = as_numpy(orthogonal_modes(lender.asarray(probe)))
    gram = np.einsum("pij,qij->pq", out, out.conj())
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-9 * gram.real.max()
    assert (np.diff(np.diag(gram).real) <= 0).all()
    patch = IMAGE[:16, :16]
    before, after = (np.abs(np.fft.fft2(p * patch)) ** 2 for p in (probe, out))
    np.testing.assert_allclose(after.sum(axis=0), before.sum(axis=0), rtol=1e-9)


def test_the_probe_keeps_support_and_power(lender):
    probe = lender.asarray(RNG.normal(size=(2, 16, 16)) + 1j)
    config = EngineConfig(probe_support=0.25, keep_probe_power=True)
    out = as_numpy(constrain_probe(probe, config, 5.0, lender))
    assert (np.abs(out) ** 2).sum() == pytest.approx(5.0)
    assert not out[:, 0, :].any()
    assert out[:, 8, 8].all()


def test_limits_hold_in_a_reconstruction(scan):
    config = EngineConfig(epochs=6, engine_batch_size=8, amplitude_limit=0.9, probe_support=0.4, object_smoothness=0.01)
    done = solve(scan, config)
    assert np.abs(done.object).max() <= 0.9 + 1e-5
    assert not done.probe[:, 0, 0].any()
