"""The estimate from plain physics: fixed points, masks, chunks, progress, probe refinement."""

import numpy as np
import pytest

from ptycho.physics.estimate import estimate_object, exit_wave_update, pie_object_update
from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches, read_patches
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import diffraction_amplitude
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


def fourier_error(estimate, positions, amplitude, probe=None):
    patches = extract_patches(estimate.object, positions - np.asarray(estimate.origin), N)
    predicted = diffraction_amplitude(patches, estimate.probe if probe is None else probe)
    return float(((predicted - amplitude) ** 2).sum() / (amplitude**2).sum()) ** 0.5


def estimated(truth, passes=5, **options):
    _, positions, probe, amplitude = truth
    options = {"probe": probe, "amplitude": amplitude, **options}
    measured = options.pop("amplitude")
    return estimate_object(lambda index: measured[index], positions, options.pop("probe"), passes, **options)


class TestModulusUpdate:
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
        from ptycho.physics.propagation import far_field, illuminate

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


class TestEstimate:
    def test_passes_lower_the_fourier_error(self, truth):
        errors = [fourier_error(estimated(truth, passes), truth[1], truth[3]) for passes in (0, 1, 4, 12)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.2 * errors[0]

    def test_it_comes_close_to_the_object(self, truth):
        image = truth[0]
        out = estimated(truth, 60)
        row, col = (int(v) for v in out.origin)
        part = image[row : row + out.object.shape[0], col : col + out.object.shape[1]]
        lit = out.weight > 0.3 * out.weight.max()
        phase = np.vdot(out.object[lit], part[lit])
        aligned = out.object * phase / abs(phase)
        assert np.linalg.norm((aligned - part)[lit]) < 0.2 * np.linalg.norm(part[lit])

    def test_what_is_in_memory_at_once_does_not_matter(self, truth, monkeypatch):
        one = estimated(truth, 4, refine_probe=True)
        monkeypatch.setattr("ptycho.physics.estimate._CHUNK", 7)
        other = estimated(truth, 4, refine_probe=True)
        np.testing.assert_allclose(one.object, other.object, atol=1e-4)
        np.testing.assert_allclose(one.weight, other.weight, atol=1e-6 * one.weight.max())

    def test_the_seed_decides(self, truth):
        one, again, other = estimated(truth, 4), estimated(truth, 4), estimated(truth, 4, seed=1)
        np.testing.assert_array_equal(one.object, again.object)
        assert 0 < np.abs(one.object - other.object).max() < 0.5

    def test_the_order_of_the_scan_is_no_more_than_another_seed(self, truth):
        image, positions, probe, amplitude = truth
        order = np.random.default_rng(5).permutation(len(positions))
        shuffled = (image, positions[order], probe, amplitude[order])
        errors = [fourier_error(estimated(t, 8), t[1], t[3]) for t in (truth, shuffled)]
        assert errors[1] == pytest.approx(errors[0], rel=0.1)

    def test_overlapping_windows_of_a_batch_are_changed_once(self, truth):
        """A pattern taken twice in one batch asks for the change of one: the sum over its doubled light."""
        _, positions, probe, amplitude = truth
        twice = [np.concatenate([a[:1], a[:1]]) for a in (positions, amplitude)]
        once = estimated((None, positions[:1], probe, amplitude[:1]), 1)
        doubled = estimated((None, twice[0], probe, twice[1]), 1)
        ratio = np.abs(doubled.object - 1).max() / np.abs(once.object - 1).max()
        assert 1.0 < ratio < 2.0

    def test_no_pass_leaves_it_flat(self, truth):
        out = estimated(truth, 0, start=0.7)
        np.testing.assert_allclose(out.object, 0.7)
        assert out.weight.max() > 0
        assert (out.object.dtype, out.weight.dtype, out.probe.dtype) == (np.complex64, np.float32, np.complex64)

    def test_bad_pixels_do_not_reach_the_object(self, truth):
        mask = np.ones((N, N), dtype=bool)
        mask[10:14, 20:22] = False
        hot = np.where(mask, truth[3], np.float32(1e6))
        wanted, out = estimated(truth, 3, mask=mask), estimated(truth, 3, mask=mask, amplitude=hot)
        np.testing.assert_allclose(out.object, wanted.object, atol=1e-5)

    def test_refinement_recovers_a_perturbed_probe(self, truth):
        _, positions, probe, amplitude = truth
        rows = np.arange(N) - N // 2
        curved = np.exp(0.01j * (rows[:, None] ** 2 + rows[None, :] ** 2))
        wrong = (probe * curved).astype(np.complex64)
        kept = estimated(truth, 25, probe=wrong)
        refined = estimated(truth, 25, probe=wrong, refine_probe=True)
        np.testing.assert_array_equal(kept.probe, wrong)
        assert fourier_error(refined, positions, amplitude) < 0.5 * fourier_error(kept, positions, amplitude)

        def likeness(a):
            return abs(np.vdot(a[0], probe[0])) / np.linalg.norm(a[0]) / np.linalg.norm(probe[0])

        assert likeness(refined.probe) > likeness(wrong)

    def test_every_pass_is_told(self, truth):
        told = []
        estimated(truth, 3, on_pass=lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("low", [20.0, 8.0, 3.0])
def test_patches_of_a_large_image_are_those_of_any(low):
    """Inside, at the edge, and beyond it; whole and broken positions."""
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(60, 70)) + 1j * rng.normal(size=(60, 70))).astype(np.complex64)
    where = np.concatenate([rng.uniform(low, 60 - low, (6, 2)), [[low, low], [60 - low, 70 - low]]]).reshape(4, 2, 2)
    found = read_patches(image, where, 16)
    np.testing.assert_array_equal(found, extract_patches(image, where, 16))
    assert found.dtype == image.dtype


@pytest.mark.parametrize(("together", "pool"), [(4, 20), (7, 64), (50, 16), (1000, 40)])
def test_what_a_store_unpacks_together_is_read_together(truth, monkeypatch, together, pool):
    monkeypatch.setattr("ptycho.physics.estimate._POOL_PIXELS", pool * N**2)
    _, positions, probe, amplitude = truth
    asked = []

    def read(index):
        asked.append(index)
        return amplitude[index]

    passes = 6
    estimate = estimate_object(read, positions, probe, passes, frames_per_chunk=together)
    counts = np.bincount(np.concatenate(asked), minlength=len(positions))
    np.testing.assert_array_equal(counts, passes)
    block = min(together, pool)
    for index in asked:
        assert (np.diff(index) > 0).all()
        assert index.size <= pool
        for first in range(0, len(positions), block):
            here = ((index >= first) & (index < first + block)).sum()
            assert here in (0, min(block, len(positions) - first))
    alone = estimate_object(read, positions, probe, passes)
    error, usual = (fourier_error(found, positions, amplitude) for found in (estimate, alone))
    assert error < 1.2 * usual
