"""Detectors that are near, and shifts by the Fourier transform: recovery, accuracy, parity, what must be known."""

import importlib.util
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.engines import State, predictor, solve
from ptycho.engines.object_canvas import make_canvas, read_patches
from ptycho.errors import ConfigError
from ptycho.physics import far_field, fourier_shift, near_field, picture_object, raster_positions, simulate
from ptycho.workflows.refine import reconstruct_iteratively, refine_result
from tests.engines.conftest import N, Placed, made
from tests.engines.test_pie import OTHERS, agree

LENGTHS = {"distance": 1e-3, "wavelength": 1e-10, "pixel_size": 1e-7}
NEAR = {"propagation": "near"}
EVERY = ["rpie", "epie", "lsqml", "difference_map", "raar"]


@pytest.fixture(scope="module")
def near():
    """The small scan, its detector a millimetre behind it."""
    scan = made()
    propagate = partial(near_field, **LENGTHS)
    return simulate(scan.object, scan.probe, scan.positions, 1e6, 5, propagate=propagate, **LENGTHS)


@pytest.mark.parametrize("engine", EVERY)
def test_a_near_detector(near, settings, engine):
    options = {"engine": engine, "epochs": 40, **NEAR}
    right, wrong = (solve(near, settings(**{**options, "propagation": kind})) for kind in ("near", "far"))
    assert right.history["r_factor"][-1] < 0.08
    assert right.history["r_factor"][-1] < 0.5 * wrong.history["r_factor"][-1]
    assert Placed(right).metrics(near)["mse_phase"] ** 0.5 < 0.15


def test_a_near_detector_by_differentiation(near, settings):
    pytest.importorskip("torch")
    history = solve(near, settings(engine="gradient", device="cpu", epochs=20, **NEAR)).history["r_factor"]
    assert history[-1] < 0.2 * history[0]


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("near", [True, False])
def test_stays_at_the_truth(settings, engine, near):
    base = made()
    how, propagate = (NEAR, partial(near_field, **LENGTHS)) if near else ({"interpolation": "fourier"}, far_field)
    places = base.positions if near else np.round(base.positions)
    scan = simulate(base.object, base.probe, places, 1e6, noise=False, dtype=np.float64, propagate=propagate, **LENGTHS)
    start = State(scan.object, scan.object_origin, scan.probe, scan.positions, scan.positions)
    assert max(solve(scan, settings(engine=engine, double=True, epochs=2, **how), start).history["r_factor"]) < 1e-6


def test_results_of_a_near_detector(near, settings):
    result = reconstruct_iteratively(near, settings(epochs=20, **NEAR))
    assert result.metrics["r_factor"] < 0.08
    again = refine_result(result, near, settings(epochs=2, **NEAR))
    assert again.history["r_factor"][0] < 1.3 * result.history["r_factor"][-1]


@pytest.mark.parametrize("missing", ["wavelength", "distance", "pixel_size"])
def test_a_near_detector_needs_lengths(near, settings, missing):
    with pytest.raises(ConfigError, match="propagation = near needs the scan's wavelength, distance and pixel size"):
        solve(near.replace(**{missing: None}), settings(**NEAR))


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_a_fourier_shift_is_exact_where_a_bilinear_one_is_not(down, right):
    def wave(rows, cols):
        return np.exp(2j * np.pi * (3 * rows - 5 * cols) / 32) + 0.5 * np.cos(2 * np.pi * (7 * rows + cols) / 32)

    rows, cols = np.mgrid[:32, :32].astype(float)
    moved = fourier_shift(wave(rows, cols)[None], np.array([[down, right]]))[0]
    np.testing.assert_allclose(moved, wave(rows + down, cols + right), atol=1e-10)
    back = fourier_shift(moved[None], np.array([[-down, -right]]))[0]
    np.testing.assert_allclose(back, wave(rows, cols), atol=1e-10)


def test_a_canvas_reads_and_gathers_by_adjoint_maps():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 64)) + 1j * rng.normal(size=(60, 64))
    positions = rng.uniform(24, 36, (5, 2))
    canvas = make_canvas(np.zeros_like(image), 16, "float64", "fourier").slices[0]
    patches = rng.normal(size=(5, 16, 16)) + 1j * rng.normal(size=(5, 16, 16))
    canvas.gather(patches, np.ones((16, 16)), positions)
    canvas.apply(1.0, 1.0, 1e9)  # the same share for every pixel: the sum itself
    seen = read_patches(image, positions, 16, "fourier")[0]
    assert np.vdot(canvas.object * 1e9, image) == pytest.approx(np.vdot(patches, seen), rel=1e-6)
    reader = make_canvas(image, 16, "float64", "fourier")
    np.testing.assert_allclose(reader.patches(positions, 16), seen)


def test_fourier_shifts_find_what_bilinear_ones_blur(settings):
    """A scan between the pixels of an object that has no frequencies beyond its grid's."""
    scan = fine_scan()
    rough, exact = (
        solve(scan, settings(epochs=30, engine_batch_size=16, interpolation=shift)) for shift in ("bilinear", "fourier")
    )
    assert exact.history["r_factor"][-1] < 0.85 * rough.history["r_factor"][-1]
    assert Placed(exact).metrics(scan)["mse_phase"] < 0.1 * Placed(rough).metrics(scan)["mse_phase"]
    predicted = predictor(exact, scan, settings(interpolation="fourier"))(slice(None))
    measured = scan.amplitude(slice(None))
    assert np.abs(predicted - measured).sum() / measured.sum() < 1.2 * exact.history["r_factor"][-1]


def fine_scan():
    """Patterns of patches that are shifted exactly."""
    base = made()
    image = picture_object("camera", (88, 88), (0.6, 1.0), (-1.0, 1.0), phase_image="coins").astype(np.complex128)
    positions = raster_positions((88, 88), N, 5.5, jitter=1.5, rng=1)
    shifted = np.stack([np.fft.ifft2(np.fft.fft2(image) * _ramp(position, 88)) for position in positions])
    patches = shifted[:, :N, :N]
    field = np.fft.fftshift(np.fft.fft2(patches * base.probe[0], norm="ortho"), axes=(-2, -1))
    counts = np.random.default_rng(0).poisson(np.abs(field) ** 2).astype(np.uint32)
    return base.replace(patterns=counts, positions=positions, object=image)


def _ramp(position, size):
    turns = np.fft.fftfreq(size)
    corner = position - N // 2
    return np.exp(2j * np.pi * (corner[0] * turns[:, None] + corner[1] * turns))


@pytest.mark.parametrize(
    ("backend", "double", "how"),
    [
        ("pytorch", True, NEAR),
        ("pytorch", True, {"interpolation": "fourier"}),
        ("tensorflow", True, {"interpolation": "fourier"}),
        ("jax", False, NEAR),
    ],
)
def test_backends_walk_the_same_way(near, settings, backend, double, how):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    agree(near.subset(slice(0, 40)), settings, backend, double, correct_positions="gradient", positions_from=2, **how)


@pytest.mark.parametrize("how", [NEAR, {"interpolation": "fourier"}])
def test_the_unit_of_the_counts_does_not_matter(near, settings, how):
    scan = near.subset(slice(0, 40))
    other = scan.replace(patterns=scan.patterns.astype(np.float64) * 1e-7, probe=scan.probe * 3.0)
    one, two = (solve(s, settings(double=True, **how)) for s in (scan, other))
    np.testing.assert_allclose(two.object, one.object, atol=1e-8)
