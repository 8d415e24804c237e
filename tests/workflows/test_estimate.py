"""The estimate that a network starts from: error, seeds, masks, units, progress, probe, chunks of a store."""

import numpy as np
import pytest

from ptycho.data import Scan
from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import diffraction_amplitude
from ptycho.workflows.estimate import Estimate, scan_estimate

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


def estimated(truth, iterations=5, *, probe=None, amplitude=None, mask=None, unit=1.0, **options):
    """In units in which an amplitude of the scan is ``unit``."""
    _, positions, known, measured = truth
    scan = Scan(measured if amplitude is None else amplitude, "amplitude", positions, mask=mask)
    photons = scan.mean_total_counts() * unit**2
    return scan_estimate(scan, (known if probe is None else probe) * unit, photons, iterations, **options)


class TestEstimate:
    def test_passes_lower_the_fourier_error(self, truth):
        errors = [fourier_error(estimated(truth, passes), truth[1], truth[3]) for passes in (1, 4, 12)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.5 * errors[0]

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
        monkeypatch.setattr("ptycho.engines.engine._CHUNK_PIXELS", 7 * N**2)
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

    def test_the_arrays_are_single_precision_in_the_models_units(self, truth):
        out, other = estimated(truth, 2), estimated(truth, 2, unit=3.0)
        assert out.weight.max() > 0
        assert (out.object.dtype, out.weight.dtype, out.probe.dtype) == (np.complex64, np.float32, np.complex64)
        np.testing.assert_allclose(other.object, out.object, atol=1e-4)
        np.testing.assert_allclose(other.weight, out.weight * 9, rtol=1e-4)

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
        estimated(truth, 3, progress=lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_observer_sees_the_estimate_so_far(truth):
    class Watching:
        def __init__(self):
            self.seen = []

        def __call__(self, done, total):
            pass

        def observe(self, make_snapshot):
            self.seen.append(make_snapshot())

    watching = Watching()
    last = estimated(truth, 3, progress=watching, refine_probe=True, unit=2.0)
    assert [type(each) for each in watching.seen] == [Estimate] * 3
    np.testing.assert_array_equal(watching.seen[-1].object, last.object)
    np.testing.assert_allclose(watching.seen[-1].probe, last.probe, rtol=1e-6)
    assert np.abs(watching.seen[0].object - last.object).max() > 0.01


class Stored:
    """Patterns of which a store unpacks several together; notes which are read."""

    def __init__(self, patterns, frames_per_chunk):
        self.shape, self.dtype, self.frames_per_chunk = patterns.shape, patterns.dtype, frames_per_chunk
        self.patterns, self.read = patterns, []

    def __getitem__(self, part):
        self.read.append(part)
        return self.patterns[part]


@pytest.mark.parametrize(("together", "pool"), [(4, 20), (7, 64), (50, 16), (1000, 40), (1, 20)])
def test_what_a_store_unpacks_together_is_read_together(truth, monkeypatch, together, pool):
    monkeypatch.setattr("ptycho.engines.detector_data._POOL_PIXELS", pool * N**2)
    _, positions, probe, amplitude = truth
    store = Stored(amplitude, together)
    scan = Scan(store, "amplitude", positions)
    photons, iterations = scan.mean_total_counts(), 6
    store.read.clear()
    found = scan_estimate(scan, probe, photons, iterations)
    counts = np.zeros(len(positions))
    for part in store.read:
        counts[part] += 1
    np.testing.assert_array_equal(counts, iterations)
    alone = estimated(truth, iterations)
    error, usual = (fourier_error(each, positions, amplitude) for each in (found, alone))
    assert error < 1.35 * usual
