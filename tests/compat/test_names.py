"""PtychoPINN's import names for outside callers."""

import numpy as np
import pytest

from ptycho import params, probe
from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig, update_legacy_dict
from ptycho.config.published import default_values
from ptycho.errors import BackendError, DataError
from ptycho.physics import extract_patches
from ptycho.tf_helper import reassemble_position


@pytest.fixture(autouse=True)
def settings():
    """The dictionary before any run; whatever a test writes is gone after it."""
    params.cfg.clear()
    params.cfg.update(default_values())
    yield params.cfg
    params.cfg.clear()
    params.cfg.update(default_values())


def test_settings_follow_a_configuration():
    update_legacy_dict(params.cfg, TrainingConfig(model=ModelConfig(N=128, gridsize=2), probe_trainable=True))
    assert params.get("N") == 128
    assert params.get("probe.trainable") is True
    assert params.get("bigN") == 132
    assert params.params()["gridsize"] == 2


def test_settings_by_name():
    with pytest.raises(KeyError, match="intensity_scale"):
        params.get("intensity_scale")
    assert params.get("intensity_scale", 3) == 3
    params.set("intensity_scale", 2.5)
    assert params.get("intensity_scale") == 2.5


def test_patches_cut_from_an_object_stitch_to_it():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 60)) + 1j * rng.normal(size=(60, 60))
    positions = np.stack(np.meshgrid(np.arange(20, 41, 4), np.arange(20, 41, 4), indexing="ij"), -1).reshape(-1, 2)
    patches = extract_patches(image, positions.astype(float), 16)
    stitched = reassemble_position(patches[..., None], positions[:, None, ::-1, None].astype(float), M=10)
    # The mean position is pixel (30, 30); the largest offset 10 is even, so the side is 10 + 20.
    assert stitched.shape == (30, 30, 1)
    np.testing.assert_allclose(stitched[..., 0], image[15:45, 15:45], atol=1e-8)


def test_columns_come_first_and_gaps_are_zero():
    patches = np.ones((2, 8, 8, 1), np.complex64)
    offsets = np.array([[-20.0, 0.0], [20.0, 0.0]])[:, None, :, None]
    stitched = reassemble_position(patches, offsets, M=4)[..., 0]
    assert stitched.shape == (44, 44)
    rows, columns = np.nonzero(stitched)
    assert (rows.min(), rows.max()) == (20, 23)
    assert set(columns) == {0, 1, 2, 3, 40, 41, 42, 43}


def test_probe_is_normalised_into_the_dictionary():
    params.cfg["N"] = 32
    given = np.random.default_rng(1).normal(size=(32, 32))
    returned = probe.set_probe_guess(None, given)
    assert returned.shape == (32, 32, 1)
    stored = params.cfg["probe"][..., 0]
    ratio = returned[..., 0] / stored
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    y, x = np.mgrid[:32, :32] - 15.5
    disc = np.hypot(x, y) < 8
    assert np.mean(np.abs(disc * stored)) == pytest.approx(1 / params.cfg["probe_scale"], rel=0.05)


@pytest.fixture(params=["numpy", "pytorch", "tensorflow", "jax"])
def lender(request):
    try:
        return get_backend(request.param)
    except (BackendError, ImportError):
        pytest.skip(f"{request.param} is not installed")


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1), (3, 32, 32)])
def test_probes_of_every_framework(lender, shape):
    rng = np.random.default_rng(1)
    given = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    returned = probe.set_probe_guess(None, lender.asarray(given))
    expected = given.reshape(32, 32) if shape[-1] == 1 else given
    np.testing.assert_array_equal(returned[..., 0], expected)
    stored = params.cfg["probe"]
    assert isinstance(stored, np.ndarray)
    assert stored.shape == (*expected.shape, 1)
    amplitudes = lender.asarray(np.abs(rng.normal(size=(5, 32, 32, 2))).astype(np.float32))
    assert probe.set_probe_guess(amplitudes).shape == (32, 32, 1)


def test_patches_of_every_framework_are_stitched(lender):
    rng = np.random.default_rng(2)
    patches = (rng.normal(size=(6, 16, 16, 1)) + 0j).astype(np.complex64)
    offsets = rng.uniform(20, 40, size=(6, 1, 2, 1))
    expected = reassemble_position(patches, offsets, M=8)
    found = reassemble_position(lender.asarray(patches), lender.asarray(offsets, dtype="float32"), M=8)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_probe_from_nothing():
    with pytest.raises(DataError, match="Neither X_train nor probe_guess is given"):
        probe.set_probe_guess()


def test_probe_is_estimated_from_amplitudes():
    beam = np.exp(-np.add.outer((np.arange(32) - 16) ** 2, (np.arange(32) - 16) ** 2) / 40)
    probe.set_probe_guess(np.repeat(beam[None, :, :, None], 5, axis=0))
    assert params.cfg["probe"].shape == (32, 32, 1)
    with pytest.raises(DataError, match="dark"):
        probe.set_probe_guess(np.zeros((5, 32, 32, 1)))
