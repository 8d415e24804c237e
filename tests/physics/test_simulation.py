"""Simulated scans: photons, noise, chunks, masks, refusals."""

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
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
