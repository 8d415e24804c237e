"""Simulated scans: photons, noise, chunks, masks, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics.objects import lines_object, random_field_object
from ptycho.physics.patches import extract_patches
from ptycho.physics.positions import random_positions, raster_positions
from ptycho.physics.probe import focused_probe, idealised_probe, probe_modes
from ptycho.physics.propagation import diffraction_intensity
from ptycho.physics.simulation import simulate

N = 16
IMAGE = lines_object((48, 50), 0)
PROBE = idealised_probe(N)
WHERE = raster_positions(IMAGE.shape, N, 6.0, jitter=1.0, rng=0)


class TestPhotons:
    def test_mean_pattern_holds_the_photons_asked_for(self):
        scan = simulate(IMAGE, PROBE, WHERE, 1e5, noise=False)
        assert scan.mean_total_counts() == pytest.approx(1e5, rel=1e-4)

    def test_the_scan_carries_the_probe_that_predicts_it(self):
        scan = simulate(IMAGE, PROBE, WHERE, 1e5, noise=False)
        predicted = diffraction_intensity(extract_patches(scan.object, scan.positions, N), scan.probe)
        np.testing.assert_allclose(scan.patterns, predicted, rtol=1e-4, atol=1e-2)

    def test_none_takes_the_probe_as_it_is(self):
        scan = simulate(IMAGE, 3 * PROBE, WHERE, None, noise=False)
        np.testing.assert_array_equal(scan.probe, 3 * PROBE[None])

    def test_noise_is_poisson(self):
        ideal = simulate(IMAGE, PROBE, WHERE, 1e6, noise=False).patterns
        noisy = simulate(IMAGE, PROBE, WHERE, 1e6, seed=3).patterns
        assert noisy.dtype == np.uint32
        lit = ideal > 20
        spread = (noisy[lit] - ideal[lit].astype(np.float64)) / np.sqrt(ideal[lit])
        assert abs(spread.mean()) < 5 / np.sqrt(spread.size)
        assert spread.var() == pytest.approx(1.0, abs=7 / np.sqrt(spread.size))

    def test_amplitude_is_the_root_of_the_counts(self):
        counts = simulate(IMAGE, PROBE, WHERE, 1e4)
        amplitude = simulate(IMAGE, PROBE, WHERE, 1e4, measurement="amplitude")
        assert amplitude.measurement == "amplitude"
        np.testing.assert_allclose(amplitude.patterns**2, counts.patterns, rtol=1e-5)

    def test_double_precision_is_kept(self):
        scan = simulate(IMAGE.astype(complex), PROBE, WHERE, 1e4, noise=False)
        assert (scan.patterns.dtype, scan.object.dtype) == (np.float64, np.complex128)


class TestRepeats:
    @pytest.mark.parametrize("chunk_size", [1, 5, 1000])
    def test_chunks_do_not_matter(self, chunk_size):
        wanted = simulate(IMAGE, PROBE, WHERE, 1e4, seed=7).patterns
        np.testing.assert_array_equal(
            simulate(IMAGE, PROBE, WHERE, 1e4, seed=7, chunk_size=chunk_size).patterns, wanted
        )

    def test_seeds(self):
        first, second = (simulate(IMAGE, PROBE, WHERE, 1e4, seed=seed).patterns for seed in (0, 1))
        assert (first != second).any()

    def test_backends_agree(self, backend):
        wanted = simulate(IMAGE, PROBE, WHERE, 1e4, noise=False).patterns
        ours = simulate(IMAGE, PROBE, WHERE, 1e4, noise=False, backend=backend.name).patterns
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-4 * wanted.max())

    def test_origin_moves_the_coordinates_only(self):
        wanted = simulate(IMAGE, PROBE, WHERE, 1e4, noise=False).patterns
        moved = simulate(IMAGE, PROBE, WHERE + np.array([-7, 40]), 1e4, noise=False, object_origin=(-7, 40))
        np.testing.assert_allclose(moved.patterns, wanted, rtol=1e-3, atol=1e-3)
        assert tuple(moved.object_origin) == (-7.0, 40.0)

    def test_progress_and_own_array(self):
        told, out = [], np.zeros((len(WHERE), N, N), np.uint16)
        scan = simulate(
            IMAGE,
            PROBE,
            WHERE,
            1e3,
            out=out,
            chunk_size=len(WHERE) - 1,
            progress=lambda *a: told.append(a),
            name="mine",
        )
        assert told == [(len(WHERE) - 1, len(WHERE)), (len(WHERE), len(WHERE))]
        assert scan.name == "mine"
        np.testing.assert_array_equal(scan.patterns, out)
        assert out.any()


class TestProperties:
    """What holds for any object, probe and positions."""

    @given(seed=st.integers(0, 2**32), nphotons=st.floats(1, 1e9), modes=st.integers(1, 3))
    def test_mean_photons(self, seed, nphotons, modes):
        where = random_positions(IMAGE.shape, N, 7, seed)
        scan = simulate(IMAGE, probe_modes(PROBE, modes), where, nphotons, noise=False)
        assert scan.mean_total_counts() == pytest.approx(nphotons, rel=1e-4)

    @given(seed=st.integers(0, 2**32))
    def test_noise_leaves_the_mean_where_it_was(self, seed):
        scan = simulate(IMAGE, PROBE, WHERE, 1e5, seed)
        assert scan.mean_total_counts() == pytest.approx(1e5, abs=6 * np.sqrt(1e5 / len(WHERE)))

    @given(seed=st.integers(0, 2**32))
    def test_parseval(self, seed):
        """At whole pixels the photons on the detector are those behind the object, pattern by pattern."""
        rng = np.random.default_rng(seed)
        image = random_field_object((40, 44), rng, dtype=np.complex128)
        probe = probe_modes(focused_probe(N, dtype=np.complex128), 2) * 300
        where = np.round(random_positions(image.shape, N, 5, rng))
        behind = [
            (np.abs(image[r - N // 2 : r + N // 2, c - N // 2 : c + N // 2] * probe) ** 2).sum()
            for r, c in where.astype(int)
        ]
        scan = simulate(image, probe, where, None, noise=False)
        np.testing.assert_allclose(scan.patterns.sum(axis=(1, 2)), behind, rtol=1e-12)

    @given(shift=st.tuples(st.integers(0, 9), st.integers(0, 9)), seed=st.integers(0, 2**32))
    def test_a_moved_object_at_moved_positions_gives_the_same_patterns(self, shift, seed):
        where = np.round(random_positions(IMAGE.shape, N, 6, seed) * 64) / 64  # binary fractions: sums are exact
        moved = np.ones((60, 60), dtype=np.complex64)
        moved[shift[0] : shift[0] + IMAGE.shape[0], shift[1] : shift[1] + IMAGE.shape[1]] = IMAGE
        here = simulate(IMAGE, PROBE, where, 1e4, seed)
        there = simulate(moved, PROBE, where + np.array(shift), 1e4, seed)
        np.testing.assert_array_equal(there.patterns, here.patterns)

    @given(seed=st.integers(0, 2**32), chunk_size=st.integers(1, 60))
    def test_the_seed_decides_and_the_chunk_does_not(self, seed, chunk_size):
        np.testing.assert_array_equal(
            simulate(IMAGE, PROBE, WHERE, 1e4, seed).patterns,
            simulate(IMAGE, PROBE, WHERE, 1e4, seed, chunk_size=chunk_size).patterns,
        )

    @given(angle=st.floats(-3, 3), factor=st.floats(0.1, 10))
    def test_global_phase_and_unit_of_the_probe_do_not_matter(self, angle, factor):
        wanted = simulate(IMAGE, PROBE, WHERE, 1e4, noise=False).patterns
        turned = simulate(IMAGE * np.exp(1j * angle), PROBE * factor, WHERE, 1e4, noise=False).patterns
        np.testing.assert_allclose(turned, wanted, rtol=1e-3, atol=1e-5 * wanted.max())


def test_memory_is_bounded_by_the_chunk(tmp_path):
    """Three thousand patterns into a memory map: no more than a chunk and the object at once."""
    import tracemalloc

    n, size = 3000, 32
    where = random_positions((80, 80), size, n)
    out = np.lib.format.open_memmap(tmp_path / "patterns.npy", "w+", np.uint16, (n, size, size))
    image, probe = lines_object((80, 80)), idealised_probe(size)
    simulate(image, probe, where[:2], 1e4)  # imports are not what is measured
    tracemalloc.start()
    simulate(image, probe, where, 1e4, chunk_size=50, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6
    assert out[-1].any()


def test_bad_pixels_record_nothing():
    mask = np.ones((N, N), dtype=bool)
    mask[8, 8] = False
    scan = simulate(IMAGE, PROBE, WHERE, 1e5, mask=mask)
    assert not scan.patterns[:, 8, 8].any()
    assert scan.patterns[:, 8, 7].any()
    np.testing.assert_array_equal(scan.mask, mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object": IMAGE[0]}, "object: got shape"),
        ({"object": IMAGE * np.nan}, "object: holds NaN"),
        ({"probe": PROBE[:8]}, "probe: got shape"),
        ({"positions": WHERE[:, :1]}, "positions: got shape"),
        ({"positions": WHERE + 30}, "the patch reaches beyond the object"),
        ({"object_origin": (1.0,)}, "object_origin: got"),
        ({"mask": np.ones((N, N))}, "mask: got float64"),
        ({"measurement": "phase"}, "measurement: got 'phase'"),
        ({"chunk_size": 0}, "chunk_size: got 0"),
        ({"out": np.zeros((1, N, N), np.uint16)}, "out: got shape"),
        ({"dtype": np.complex64}, "dtype: got complex64"),
        ({"dtype": np.uint8}, "dtype: uint8 holds at most 255"),
        ({"noise": False, "dtype": np.uint16}, "dtype: got uint16"),
    ],
)
def test_refusals(change, message):
    setting = {"object": IMAGE, "probe": PROBE, "positions": WHERE, "nphotons": 1e6, **change}
    with pytest.raises(DataError, match=message):
        simulate(**setting)
