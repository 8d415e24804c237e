"""No formula depends on the unit of the wave: powers from 1e-40 to 1e30 in single precision, on every backend."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.errors import DataError
from ptycho.physics import normalise_probe, photon_scale, probe_modes, scale_probe_to_counts
from ptycho.physics.photons import normalise_amplitude
from ptycho.physics.probe import focused_probe
from ptycho.physics.scaling import largest_value, multiplied
from ptycho.physics.updates import exit_wave_update, pie_object_update
from tests.support import array, as_numpy

N = 16
exponents = st.one_of(st.sampled_from([-20.0, -15.0, 0.0, 15.0]), st.floats(-20, 15))
"""Powers of ten of amplitudes; the power of 1e-20 is below the smallest normal number of single precision."""


def beam(seed):
    """Two modes of power about 1."""
    rng = np.random.default_rng(seed)
    modes = probe_modes(focused_probe(N).astype(np.complex128), 2)
    return modes * np.exp(1j * rng.uniform(0, 6, (2, 1, 1)))


def patches(seed, count=3):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1, (count, N, N)) * np.exp(1j * rng.uniform(-1, 1, (count, N, N)))


def near(values, wanted, tolerance=2e-5):
    values = as_numpy(values)
    assert np.isfinite(values).all()
    assert np.abs(values - wanted).max() <= tolerance * np.abs(wanted).max()


@given(exponent=exponents, seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_a_normalised_probe_does_not_depend_on_its_unit(xp, exponent, seed):
    probe = beam(seed)
    near(normalise_probe(array(xp, probe * 10**exponent, "complex64")), normalise_probe(probe))


@given(exponent=exponents, photons=st.floats(-15, 15), seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_a_probe_scaled_to_counts_does_not_depend_on_its_unit(xp, exponent, photons, seed):
    probe, counts = beam(seed), 10**photons
    scaled = scale_probe_to_counts(array(xp, probe * 10**exponent, "complex64"), counts)
    near(scaled, scale_probe_to_counts(probe, counts))
    power = float((np.abs(as_numpy(scaled).astype(np.complex128)) ** 2).sum())
    assert power == pytest.approx(counts, rel=1e-4)


@given(exponent=exponents, seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_a_photon_scale_is_inverse_to_the_unit(xp, exponent, seed):
    probe, objects = beam(seed), patches(seed)
    found = photon_scale(array(xp, objects, "complex64"), array(xp, probe * 10**exponent, "complex64"), 1e6)
    assert found * 10**exponent == pytest.approx(photon_scale(objects, probe, 1e6), rel=1e-4)


@given(exponent=exponents, seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_normalised_amplitudes_do_not_depend_on_their_unit(xp, exponent, seed):
    measured = np.random.default_rng(seed).uniform(0, 1, (3, N, N))
    found, factor = normalise_amplitude(array(xp, measured * 10**exponent, "float32"))
    wanted, unit = normalise_amplitude(measured)
    near(found, wanted)
    assert factor * 10**exponent == pytest.approx(unit, rel=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@given(exponent=exponents, seed=st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_the_change_of_the_exit_waves_is_proportional_to_the_unit(xp, masked, exponent, seed):
    probe, objects = beam(seed), patches(seed)
    measured = np.random.default_rng(seed).uniform(0.5, 1, (3, N, N)) / N
    mask = np.random.default_rng(1).uniform(size=(N, N)) > 0.1 if masked else None
    unit = 10**exponent
    lent = (
        array(xp, objects, "complex64"),
        array(xp, probe * unit, "complex64"),
        array(xp, measured * unit, "float32"),
        None if mask is None else array(xp, mask, "bool"),
    )
    wanted = exit_wave_update(objects, probe, measured, mask)
    near(multiplied(exit_wave_update(*lent), array(xp, np.asarray(1 / unit), "float32")), wanted, 1e-4)
    near(pie_object_update(*lent), pie_object_update(objects, probe, measured, mask), 1e-4)


def test_a_dark_or_broken_probe_is_still_refused():
    for probe in (np.zeros((1, N, N), np.complex64), np.full((1, N, N), np.nan, np.complex64)):
        with pytest.raises(DataError, match="probe"):
            normalise_probe(probe)
        with pytest.raises(DataError, match="probe"):
            scale_probe_to_counts(probe, 1e6)
    with pytest.raises(DataError, match="summed squares is 0"):
        normalise_amplitude(np.zeros((2, N, N), np.float32))


def test_the_scale_of_zeros_is_one_and_that_of_others_their_magnitude(xp):
    assert float(largest_value(array(xp, np.zeros(3), "complex64"))) == 1.0
    for value in (1e-30, 1e-20, 1.0, 1e15):
        found = float(largest_value(array(xp, value * np.asarray([0.5, -1j, 0.3 + 0.4j]), "complex64")))
        assert 0.99 * value <= found <= 2 * value
        assert math.isfinite(found)
