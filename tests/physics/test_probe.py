"""Probes: their shapes, units, modes, and what is guessed from data."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import (
    disc_mask,
    disc_probe,
    far_field,
    focused_probe,
    gaussian_probe,
    idealised_probe,
    near_field,
    normalise_probe,
    probe_from_patterns,
    probe_modes,
    scale_probe_to_counts,
    zone_plate_probe,
)
from tests.support import array, as_numpy

ZONE_PLATE = {
    "wavelength": 1.4e-10,
    "diameter": 180e-6,
    "outer_zone_width": 50e-9,
    "pixel_size": 15e-9,
}


def radius(n):
    offset = np.arange(n) - n // 2
    return np.hypot(offset[:, None], offset)


def centre_of_mass(probe):
    weight = np.abs(probe) ** 2
    index = np.arange(probe.shape[-1])
    return np.array([(weight.sum(axis=1) * index).sum(), (weight.sum(axis=0) * index).sum()]) / weight.sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: disc_probe(32, 8, dtype=dtype),
        lambda dtype: gaussian_probe(32, 4, dtype=dtype),
        lambda dtype: idealised_probe(32, dtype=dtype),
        lambda dtype: focused_probe(32, dtype=dtype),
        lambda dtype: zone_plate_probe(32, **ZONE_PLATE, dtype=dtype),
    ],
)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_makers_return_centred_waves_of_the_asked_type(make, dtype):
    probe = make(dtype)
    assert probe.shape == (32, 32)
    assert probe.dtype == dtype
    assert np.isfinite(probe).all()
    np.testing.assert_allclose(centre_of_mass(probe), 16, atol=1.0)


class TestDisc:
    def test_half_amplitude_at_the_radius(self):
        probe = disc_probe(64, 10, edge=1.5, dtype=np.complex128)
        assert probe[32, 42].real == pytest.approx(0.5)
        assert probe[32, 32].real == pytest.approx(1.0, abs=1e-9)
        assert abs(probe[0, 0]) < 1e-9

    def test_hard_edge(self):
        np.testing.assert_array_equal(disc_probe(32, 9, edge=0).real, radius(32) <= 9)

    @given(st.floats(4, 14), st.floats(0.3, 1.5))
    def test_area_is_that_of_the_disc(self, r, edge):
        amplitude = disc_probe(64, r, edge, dtype=np.complex128).real.sum()
        assert amplitude == pytest.approx(np.pi * (r**2 + edge**2), rel=0.03)

    def test_idealised_probe_is_as_large_as_ptychopinns(self):
        """PtychoPINN's disc for N = 64 covers 376 pixels (radius 10.9)."""
        probe = idealised_probe(64).real
        assert probe.sum() == pytest.approx(376, rel=0.02)
        assert probe.max() == pytest.approx(1.0)


def test_gaussian_sigma_is_that_of_the_amplitude():
    probe = gaussian_probe(64, 5, dtype=np.complex128)
    assert probe[32, 37].real == pytest.approx(np.exp(-0.5))
    assert probe[32, 32] == 1.0


class TestZonePlate:
    def test_far_field_is_the_annulus(self):
        """Outer radius at 1 / (2 outer zone width), hole in the ratio of stop and diameter."""
        n = 128
        probe = zone_plate_probe(n, **ZONE_PLATE, beam_stop=60e-6, defocus=2e-4, dtype=np.complex128)
        pupil = np.abs(far_field(probe)) ** 2
        edge = n * ZONE_PLATE["pixel_size"] / (2 * ZONE_PLATE["outer_zone_width"])
        r = radius(n)
        bright = pupil[(r > edge / 3 + 2.5) & (r < edge - 2.5)].mean()
        assert pupil[r > edge + 2.5].max() < 0.05 * bright
        assert pupil[r < edge / 3 - 2.5].mean() < 0.05 * bright
        half = np.sqrt(pupil[np.abs(r - edge) < 0.5]).mean()
        assert half == pytest.approx(np.sqrt(bright) / 2, rel=0.15)

    def test_focus_is_the_airy_disc(self):
        """First zero at 1.22 outer zone widths."""
        n, fine = 256, {**ZONE_PLATE, "pixel_size": 5e-9}
        probe = zone_plate_probe(n, **fine, dtype=np.complex128)
        profile = np.abs(probe[n // 2, n // 2 :]) ** 2
        first_zero = np.flatnonzero(np.diff(profile) > 0)[0]
        assert first_zero * 5e-9 == pytest.approx(1.22 * 50e-9, abs=5e-9)

    def test_focus_carries_the_fresnel_phase(self):
        """In the focal plane the rings alternate in sign on the sphere around the lens, pi r^2 / (lambda f)."""
        probe = zone_plate_probe(256, **ZONE_PLATE, dtype=np.complex128)
        lambda_f = ZONE_PLATE["diameter"] * ZONE_PLATE["outer_zone_width"]
        sphere = np.exp(1j * np.pi * (radius(256) * ZONE_PLATE["pixel_size"]) ** 2 / lambda_f)
        flat = probe / sphere
        assert np.ptp(np.angle(sphere)) > 1.0
        np.testing.assert_allclose(flat.imag, 0.0, atol=1e-6 * np.abs(flat).max())

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_defocus_makes_the_shadow_of_the_aperture(self, sign):
        """Out of focus by z the beam is z D / f wide, and its wavefront is curved with radius z."""
        n, z = 256, sign * 1e-3
        probe = zone_plate_probe(n, **ZONE_PLATE, defocus=z, dtype=np.complex128)
        focal_length = ZONE_PLATE["diameter"] * ZONE_PLATE["outer_zone_width"] / ZONE_PLATE["wavelength"]
        shadow = abs(z) * ZONE_PLATE["diameter"] / focal_length / ZONE_PLATE["pixel_size"] / 2
        power = np.abs(probe) ** 2
        inside = power[radius(n) < 1.1 * shadow].sum() / power.sum()
        assert inside > 0.93
        assert power[radius(n) < 0.8 * shadow].sum() / power.sum() < 0.8
        row = np.unwrap(np.angle(probe[n // 2, n // 2 : n // 2 + int(0.8 * shadow)]))
        x = np.arange(row.size) * ZONE_PLATE["pixel_size"]
        curvature = np.polyfit(x, row, 2)[0]
        assert curvature == pytest.approx(np.pi / (ZONE_PLATE["wavelength"] * z), rel=0.05)

    def test_defocus_is_free_space(self):
        focus = zone_plate_probe(256, **ZONE_PLATE, dtype=np.complex128)
        out = zone_plate_probe(256, **ZONE_PLATE, defocus=1e-4, dtype=np.complex128)
        carried = near_field(focus, 1e-4, ZONE_PLATE["wavelength"], ZONE_PLATE["pixel_size"])
        middle = np.s_[64:-64, 64:-64]
        np.testing.assert_allclose(carried[middle], out[middle], atol=0.02 * np.abs(out).max())

    def test_pixel_follows_from_the_detector(self):
        geometry = {**ZONE_PLATE, "pixel_size": None, "distance": 2.0, "detector_pixel_size": 75e-6}
        pixel = 1.4e-10 * 2.0 / (128 * 75e-6)
        np.testing.assert_array_equal(
            zone_plate_probe(128, **geometry), zone_plate_probe(128, **{**ZONE_PLATE, "pixel_size": pixel})
        )

    def test_power_is_one_less_what_misses_the_window(self, caplog):
        assert (np.abs(zone_plate_probe(256, **ZONE_PLATE)) ** 2).sum() == pytest.approx(1.0, abs=0.02)
        with caplog.at_level(logging.WARNING, "ptycho"):
            spread = zone_plate_probe(64, **ZONE_PLATE, defocus=2e-3)
        assert (np.abs(spread) ** 2).sum() < 0.9
        assert "of its power is inside" in caplog.text

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"wavelength": 0.0}, "wavelength"),
            ({"diameter": -1.0}, "diameter"),
            ({"outer_zone_width": np.nan}, "outer_zone_width"),
            ({"outer_zone_width": 10e-9}, "outer_zone_width.*cone misses the detector"),
            ({"beam_stop": 180e-6}, "beam_stop"),
            ({"defocus": np.inf}, "defocus"),
            ({"pixel_size": None}, "pixel_size"),
            ({"pixel_size": None, "distance": 0.0, "detector_pixel_size": 1e-6}, "distance"),
        ],
    )
    def test_impossible_optics_are_refused(self, change, field):
        with pytest.raises(DataError, match=field):
            zone_plate_probe(64, **{**ZONE_PLATE, **change})


class TestFocusedProbe:
    @pytest.mark.parametrize("n", [64, 128])
    def test_structure(self, n):
        """Unit power, an annular pupil of the asked size, a beam of the asked size, a curved wavefront."""
        probe = focused_probe(n, aperture=0.4, stop=0.3, size=0.3, dtype=np.complex128)
        assert (np.abs(probe) ** 2).sum() == pytest.approx(1.0)
        pupil, r = np.abs(far_field(probe)) ** 2, radius(n)
        assert pupil[r < 0.2 * n + 2].sum() > 0.95
        assert pupil[r < 0.06 * n - 1.5].mean() < 0.2 * pupil[(r > 0.08 * n) & (r < 0.18 * n)].mean()
        within = [(np.abs(probe) ** 2)[r < part * 0.15 * n].sum() for part in (0.6, 1.25)]
        assert within[0] < 0.5
        assert within[1] > 0.75
        assert np.ptp(np.angle(probe)[r < 0.1 * n]) > 0.5

    @pytest.mark.parametrize("change", [{"aperture": 0.0}, {"aperture": 1.5}, {"stop": 1.0}, {"size": -0.1}])
    def test_unusable_parts_are_refused(self, change):
        with pytest.raises(DataError, match="parts of one"):
            focused_probe(32, **change)


class TestModes:
    @given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))
    def test_orthogonal_with_the_asked_power(self, fractions):
        probe = focused_probe(32, dtype=np.complex128) * 7.0
        modes = probe_modes(probe, len(fractions), fractions)
        gram = np.einsum("pij,qij->pq", modes, modes.conj())
        expected = np.diag(49.0 * np.array(fractions) / sum(fractions))
        np.testing.assert_allclose(gram, expected, atol=1e-9)

    def test_the_first_mode_is_the_probe(self):
        probe = focused_probe(32)
        modes = probe_modes(probe, 3, [1, 0, 0])
        assert modes.dtype == np.complex64
        np.testing.assert_allclose(modes[0], probe, atol=1e-6)
        assert not modes[1:].any()

    def test_default_fractions_fall_by_four(self):
        power = (np.abs(probe_modes(focused_probe(32), 4)) ** 2).sum(axis=(1, 2))
        np.testing.assert_allclose(power[1:] / power[:-1], 0.25, rtol=1e-4)

    @pytest.mark.parametrize(
        ("args", "field"),
        [
            ((np.ones((2, 8, 8)), 2), "probe"),
            ((np.zeros((8, 8)), 2), "probe"),
            ((np.ones((8, 8)), 0), "n:"),
            ((disc_probe(8, 1, edge=0), 6), "n:.*only"),
            ((np.ones((8, 8)), 2, [1.0]), "fractions"),
            ((np.ones((8, 8)), 2, [1.0, -0.1]), "fractions"),
            ((np.ones((8, 8)), 2, [0.0, 0.0]), "fractions"),
        ],
    )
    def test_unusable_input_is_refused(self, args, field):
        with pytest.raises(DataError, match=field):
            probe_modes(*args)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
class TestScaling:
    @pytest.mark.parametrize("modes", [None, 1, 3])
    def test_counts(self, xp, dtype, modes):
        probe = gaussian_probe(32, 5, dtype=dtype) if modes is None else probe_modes(gaussian_probe(32, 5), modes)
        scaled = scale_probe_to_counts(array(xp, probe.astype(dtype)), 5000.0)
        assert scaled.dtype == getattr(xp, dtype)
        assert (np.abs(as_numpy(scaled)) ** 2).sum() == pytest.approx(5000, rel=1e-5)

    def test_normalised_as_the_conventions_say(self, xp, dtype):
        probe = focused_probe(64, dtype=dtype) * 321
        result = normalise_probe(array(xp, probe), 4.0)
        assert result.dtype == getattr(xp, dtype)
        expected = probe / (4.0 * np.abs(disc_mask(64) * probe).mean())
        np.testing.assert_allclose(as_numpy(result), expected, rtol=1e-5, atol=1e-6)

    def test_a_stack_of_one_mode_is_that_mode(self, xp, dtype):
        probe = focused_probe(32, dtype=dtype)
        one = as_numpy(normalise_probe(array(xp, probe)))
        np.testing.assert_allclose(as_numpy(normalise_probe(array(xp, probe[None])))[0], one)

    @given(factor=st.floats(0.01, 100), angle=st.floats(-3, 3))
    @settings(max_examples=20)
    def test_unit_and_split_into_modes_do_not_matter(self, xp, dtype, factor, angle):
        """The norm takes out any scale, and two half-power copies are as bright as one."""
        probe = focused_probe(32, dtype=dtype)
        one = as_numpy(normalise_probe(array(xp, probe)))
        scaled = (probe * factor * np.exp(1j * angle)).astype(dtype)
        turned = as_numpy(normalise_probe(array(xp, scaled)))
        np.testing.assert_allclose(turned, one * np.exp(1j * angle), atol=1e-5 * np.abs(one).max())
        halves = np.stack([probe, probe]) * np.float32(np.sqrt(0.5))
        split = as_numpy(normalise_probe(array(xp, halves.astype(dtype))))
        np.testing.assert_allclose(split[0], one * np.sqrt(0.5), atol=1e-5 * np.abs(one).max())


def test_mask_is_ptychopinns():
    """Distances from the middle between pixels; 208 pixels are closer than 8."""
    mask = disc_mask(32)
    assert mask.sum() == 208
    np.testing.assert_array_equal(mask, mask[::-1, ::-1])


def test_normalising_is_differentiable_where_the_probe_is_dark():
    torch = pytest.importorskip("torch")
    probe = torch.tensor(disc_probe(32, 5, edge=0)[None], requires_grad=True)
    weight = torch.linspace(0, 1, 32)
    (weight * normalise_probe(probe).abs() ** 2).sum().backward()
    assert torch.isfinite(torch.view_as_real(probe.grad)).all()
    assert probe.grad.abs().max() > 0


@pytest.mark.parametrize("call", [normalise_probe, lambda probe: scale_probe_to_counts(probe, 10.0)])
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_a_probe_without_light_is_refused(call, fill):
    with pytest.raises(DataError, match="probe"):
        call(np.full((1, 16, 16), fill, dtype=np.complex64))


class TestFromPatterns:
    def patterns(self, n=32, photons=1e4):
        probe = scale_probe_to_counts(focused_probe(n, dtype=np.complex128), photons)
        return probe, np.repeat(np.abs(far_field(probe))[None] ** 2, 5, axis=0)

    def test_power_is_the_mean_counts_and_the_far_field_the_mean_pattern(self):
        counts = np.random.default_rng(0).poisson(self.patterns()[1]).astype(np.uint16)
        probe = probe_from_patterns(counts, dtype=np.complex128)
        assert (np.abs(probe) ** 2).sum() == pytest.approx(counts.sum(axis=(1, 2)).mean(), rel=1e-12)
        np.testing.assert_allclose(np.abs(far_field(probe)) ** 2, counts.mean(axis=0), atol=1e-9)

    def test_amplitudes_are_squared_first(self):
        _, counts = self.patterns()
        from_counts = probe_from_patterns(counts)
        from_amplitude = probe_from_patterns(np.sqrt(counts), measurement="amplitude")
        np.testing.assert_allclose(from_amplitude, from_counts, atol=1e-3)

    def test_is_centred_and_compact_without_a_curvature(self):
        _, counts = self.patterns()
        probe = probe_from_patterns(counts)
        np.testing.assert_allclose(centre_of_mass(probe), 16, atol=0.5)
        assert np.unravel_index(np.abs(probe).argmax(), probe.shape) == (16, 16)

    def test_the_right_defocus_gives_the_right_probe(self):
        n, pixel, z = 128, ZONE_PLATE["pixel_size"], 3e-4
        focus = zone_plate_probe(n, **ZONE_PLATE, dtype=np.complex128)
        truth = near_field(focus, z, ZONE_PLATE["wavelength"], pixel)
        counts = (np.abs(far_field(truth)) ** 2)[None]
        geometry = {"wavelength": ZONE_PLATE["wavelength"], "pixel_size": pixel}
        guess = probe_from_patterns(counts, defocus=z, **geometry, dtype=np.complex128)
        wrong = probe_from_patterns(counts, defocus=-z, **geometry, dtype=np.complex128)
        overlap, other = abs(np.vdot(guess, truth)), abs(np.vdot(wrong, truth))
        assert overlap > 0.9 * (np.abs(truth) ** 2).sum()
        assert other < 0.5 * overlap

    def test_curvature_is_the_phase_at_the_edge(self):
        n, pixel, wavelength, z = 64, 1e-8, 1e-10, 2e-5
        _, counts = self.patterns(n)
        edge = np.pi * wavelength * z / (2 * pixel) ** 2
        np.testing.assert_allclose(
            probe_from_patterns(counts, curvature=edge),
            probe_from_patterns(counts, defocus=z, wavelength=wavelength, pixel_size=pixel),
            atol=1e-5,
        )

    def test_bad_pixels_take_the_nearest_good_value(self):
        _, counts = self.patterns()
        mask = np.ones((32, 32), dtype=bool)
        mask[14:17, 20:22] = False
        dirty = np.where(mask, counts, np.nan)
        probe = probe_from_patterns(dirty, mask=mask, dtype=np.complex128)
        mean = np.abs(far_field(probe)) ** 2
        np.testing.assert_allclose(mean[mask], counts[0][mask], atol=1e-9)
        assert mean[14, 20] == pytest.approx(counts[0][14, 19])

    def test_is_read_piecewise(self, monkeypatch, tmp_path):
        monkeypatch.setattr("ptycho.physics.probe_from_data._CHUNK_PIXELS", 2 * 32 * 32)
        rng = np.random.default_rng(1)
        counts = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.uint16, (7, 32, 32))
        counts[:] = rng.poisson(20, counts.shape)
        np.testing.assert_allclose(probe_from_patterns(counts), probe_from_patterns(counts[::-1].copy()), atol=1e-4)

    @pytest.mark.parametrize(
        ("patterns", "options", "field"),
        [
            (np.ones((4, 8)), {}, "patterns"),
            (np.ones((2, 4, 8)), {}, "patterns"),
            (np.zeros((2, 8, 8)), {}, "patterns"),
            (np.full((2, 8, 8), np.nan), {}, "patterns"),
            (np.ones((0, 8, 8)), {}, "patterns"),
            (np.ones((2, 8, 8)), {"measurement": "intensity"}, "measurement"),
            (np.ones((2, 8, 8)), {"mask": np.ones((4, 4), bool)}, "mask"),
            (np.ones((2, 8, 8)), {"mask": np.zeros((8, 8), bool)}, "mask"),
            (np.ones((2, 8, 8)), {"defocus": 1e-3}, "defocus"),
            (np.ones((2, 8, 8)), {"defocus": 1e-3, "wavelength": -1, "pixel_size": 1}, "wavelength"),
            (np.ones((2, 8, 8)), {"curvature": np.nan}, "curvature"),
        ],
    )
    def test_unusable_input_is_refused(self, patterns, options, field):
        with pytest.raises(DataError, match=field):
            probe_from_patterns(patterns, **options)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: disc_probe(0, 4), "N"),
        (lambda: disc_probe(16, 0), "radius"),
        (lambda: gaussian_probe(16, np.nan), "sigma"),
        (lambda: idealised_probe(16, 0), "scale"),
        (lambda: normalise_probe(np.ones((1, 8, 8), complex), 0.0), "probe_scale"),
        (lambda: scale_probe_to_counts(np.ones((8, 8), complex), 0.0), "mean_total_counts"),
    ],
)
def test_unusable_numbers_are_refused(call, field):
    with pytest.raises(DataError, match=field):
        call()
