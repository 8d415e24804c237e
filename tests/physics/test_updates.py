"""What a pattern requires of exit waves and object: fixed points, masks, batches; patches of large images."""

import numpy as np
import pytest

from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches, read_patches
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import diffraction_amplitude, illuminate
from ptycho.physics.updates import exit_wave_update, pie_object_update
from tests.support import as_numpy

N = 32


@pytest.fixture(scope="module")
def truth():
    """Object, positions, probe of two modes and noise-free amplitudes."""
    image = lines_object((72, 72), 3)
    positions = raster_positions((72, 72), N, 5.0, jitter=1.5, rng=1)
    base = idealised_probe(N) * 30
    x = (np.arange(N) - N // 2) / N
    probe = np.stack([base, 0.4 * base * x[:, None] * 8]).astype(np.complex64)
    amplitude = diffraction_amplitude(extract_patches(image, positions, N), probe)
    return image, positions, probe, amplitude


class TestObjectUpdate:
    def test_nothing_to_change_at_the_truth(self, xp, truth):
        image, positions, probe, amplitude = truth
        patches = extract_patches(image, positions[:6], N)
        update = pie_object_update(*(xp.asarray(np.array(a)) for a in (patches, probe, amplitude[:6])))
        assert np.abs(as_numpy(update)).max() < 1e-3

    def test_numpy_agrees_with_every_namespace(self, xp, truth):
        _, _, probe, amplitude = truth
        flat = np.ones((6, N, N), np.complex64)
        wanted = pie_object_update(flat, probe, amplitude[:6])
        update = pie_object_update(*(xp.asarray(np.array(a)) for a in (flat, probe, amplitude[:6])))
        np.testing.assert_allclose(as_numpy(update), wanted, atol=1e-4 * np.abs(wanted).max())
        assert np.abs(wanted).max() > 0.1

    def test_the_changed_waves_have_the_measured_amplitude(self, truth):
        from ptycho.physics.propagation import far_field

        _, _, probe, amplitude = truth
        flat = np.ones((3, N, N), np.complex64)
        changed = illuminate(flat, probe) + exit_wave_update(flat, probe, amplitude[:3])
        reached = np.sqrt((np.abs(far_field(changed)) ** 2).sum(axis=1))
        assert np.linalg.norm(reached - amplitude[:3]) < 0.02 * np.linalg.norm(amplitude[:3])

    def test_a_pattern_does_not_see_its_batch(self, truth):
        _, _, probe, amplitude = truth
        flat = np.ones((6, N, N), np.complex64)
        bright = amplitude[:6] * np.array([1, 1, 1e5, 1, 1, 1], np.float32)[:, None, None]
        together = pie_object_update(flat, probe, bright)
        np.testing.assert_allclose(pie_object_update(flat[:1], probe, bright[:1]), together[:1], atol=1e-6)

    @pytest.mark.parametrize("shown", [0.0, 1e9, np.nan, np.inf])
    @pytest.mark.parametrize("kind", [bool, np.float32])
    def test_bad_pixels_change_nothing(self, xp, truth, shown, kind):
        _, _, probe, amplitude = truth
        flat = np.ones((2, N, N), np.complex64)
        mask = np.ones((N, N), dtype=bool)
        mask[4:9, 12] = mask[16, 16] = False
        broken = np.where(mask, amplitude[:2], np.float32(shown)).astype(np.float32)
        arrays = [xp.asarray(np.array(a)) for a in (flat, probe, broken, mask.astype(kind))]
        wanted = pie_object_update(flat, probe, amplitude[:2], mask)
        np.testing.assert_allclose(as_numpy(pie_object_update(*arrays)), wanted, atol=1e-4)
        unmasked = pie_object_update(flat, probe, amplitude[:2])
        assert np.abs(wanted - unmasked).max() > 1e-3


@pytest.mark.parametrize("low", [20.0, 8.0, 3.0])
def test_patches_of_a_large_image_are_those_of_any(low):
    """Inside, at the edge, and beyond it; whole and broken positions."""
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(60, 70)) + 1j * rng.normal(size=(60, 70))).astype(np.complex64)
    where = np.concatenate([rng.uniform(low, 60 - low, (6, 2)), [[low, low], [60 - low, 70 - low]]]).reshape(4, 2, 2)
    found = read_patches(image, where, 16)
    np.testing.assert_array_equal(found, extract_patches(image, where, 16))
    assert found.dtype == image.dtype
