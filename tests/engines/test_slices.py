"""Objects of several slices: the forward model and its adjoint, recovery, parity, corrections, results, bad input."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.backends import get_backend
from ptycho.engines import State, predictor, solve
from ptycho.engines.exit_waves import exit_wave_change, propagate_slice_changes
from ptycho.engines.gradient import pattern_loss
from ptycho.engines.object_canvas import slices_of
from ptycho.engines.pie import object_numerator
from ptycho.engines.propagator import FAR, free_space
from ptycho.engines.start import resliced
from ptycho.errors import ConfigError, DataError
from ptycho.evaluation import compare
from ptycho.physics import (
    focused_probe,
    incoming_waves,
    multislice_intensity,
    near_field,
    picture_object,
    probe_modes,
    raster_positions,
    simulate,
)
from ptycho.physics.fourier import fft2
from ptycho.viewer.result import picture_of_result, result_patterns
from ptycho.workflows.inference import Stitched
from ptycho.workflows.refine import reconstruct_iteratively, refine_result
from ptycho.workflows.results import load_reconstruction, save_reconstruction
from tests.engines.conftest import N
from tests.engines.test_pie import OTHERS, agree

LENGTHS = {"wavelength": 1e-10, "pixel_size": 1e-8}
SPACING = 2e-5
"""Five times the depth of field, 4 pixel^2 / wavelength."""
TWO = {"slices": 2, "slice_spacing": SPACING}


def pictures():
    images = [picture_object(name, (88, 88), (0.8, 1.0), (-0.8, 0.8)) for name in ("camera", "coins")]
    return np.stack(images).astype(np.complex128)


def thick(slices, modes=1, positions=None, **changes):
    """A scan of slices whose beams overlap well."""
    probe = focused_probe(N, aperture=0.5, size=0.45, dtype=np.complex128)
    probe = probe_modes(probe, modes, [0.7, 0.3]) if modes > 1 else probe
    positions = raster_positions((88, 88), N, 5.5, jitter=1.5, rng=1) if positions is None else positions
    return simulate(slices, probe, positions, seed=5, **{"spacing": SPACING, **LENGTHS, **changes})


@pytest.fixture(scope="module")
def scan():
    return thick(pictures())


@pytest.fixture(scope="module")
def clean():
    return thick(pictures(), noise=False, dtype=np.float64)


def truth_of(scan, image=None):
    image = pictures() if image is None else image
    return State(image, (0.0, 0.0), scan.probe, scan.positions, scan.positions, spacing=SPACING)


def r_factor(state, scan, config):
    predicted, measured = predictor(state, scan, config)(slice(None)), scan.amplitude()
    return np.abs(predicted - measured).sum() / measured.sum()


def errors(state):
    """RMSE of the phase of every slice, radians."""
    placed = [Stitched(one, state.weight, state.origin, state.probe, None) for one in state.object]
    pairs = zip(placed, pictures(), strict=True)
    return [compare(one, image, (0.0, 0.0), trim=8).metrics["mse_phase"] ** 0.5 for one, image in pairs]


def test_counts_are_those_of_propagation_by_hand():
    options = {"nphotons": None, "noise": False, "dtype": np.float64}
    found = thick(pictures(), modes=2, positions=[[40.0, 37.0]], **options)
    first, second = pictures()[:, 40 - N // 2 : 40 + N // 2, 37 - N // 2 : 37 + N // 2]
    waves = [second * near_field(first * mode, SPACING, **LENGTHS) for mode in found.probe]
    total = sum(np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2 for wave in waves)
    np.testing.assert_allclose(found.patterns[0], total, rtol=1e-9, atol=1e-9 * total.max())
    np.testing.assert_allclose(found.object, pictures().prod(axis=0))


def test_an_empty_slice_shows_in_no_pattern(clean, settings):
    one = pictures()[0]
    thin = predictor(truth_of(clean, one), clean, settings())(slice(0, 9))
    behind = predictor(truth_of(clean, np.stack([one, np.ones_like(one)])), clean, settings())(slice(0, 9))
    before = predictor(truth_of(clean, np.stack([np.ones_like(one), one])), clean, settings())(slice(0, 9))
    np.testing.assert_allclose(behind, thin, atol=1e-9 * thin.max())
    assert np.abs(before - thin).max() > 0.01 * thin.max()  # the probe has spread on its way to it


def test_one_slice_is_the_object_as_it_always_was(scan, settings):
    plain, one = (solve(scan, settings(slices=number)) for number in (None, 1))
    assert one.object.ndim == 2
    np.testing.assert_array_equal(one.object, plain.object)
    np.testing.assert_array_equal(one.probe, plain.probe)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_other_numbers_of_slices_keep_the_product(before, after, seed):
    rng = np.random.default_rng(seed)
    stack = resliced(rng.normal(size=(before, 5, 6)) + 1j * rng.normal(size=(before, 5, 6)), before)
    found = resliced(stack, after)
    assert len(slices_of(found)) == after
    products = [np.prod(slices_of(image), axis=0) for image in (stack, found)]
    np.testing.assert_allclose(products[1], products[0], atol=1e-12)


def waves_at_random(backend, count=3, modes=2):
    """Slices without absorption, a probe, amplitudes, and the way to the detector, of a backend."""
    rng = np.random.default_rng(7)
    phases = rng.normal(size=(3, count, N, N))
    probe = rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N))
    lent = [backend.asarray(values) for values in (np.exp(1j * phases), probe, rng.uniform(0, 2, (count, N, N)))]
    there, back = (free_space(N, d, 1e-10, 1e-8, backend.asarray) for d in (SPACING, -SPACING))
    return (*lent, FAR._replace(gap=(there, back)))


def test_a_change_goes_back_by_the_adjoint_of_the_way_there():
    patches, probe, measured, detector = waves_at_random(get_backend("numpy"))
    change = exit_wave_change(patches, probe, measured, None, "amplitude", 1.0, detector)
    rng = np.random.default_rng(1)
    moved = rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape)
    there = propagate_slice_changes(change.slices, list(moved), detector)
    back = sum(
        np.vdot(part, object_numerator(lit.illumination, lit.exit_change))
        for part, lit in zip(moved, change.slices, strict=True)
    )
    assert np.vdot(there, change.exit_change) == pytest.approx(back, rel=1e-10)
    before, after = (
        image[-1][:, None] * incoming_waves(list(image), probe, detector.gap[0])[-1]
        for image in (patches, patches + 1e-7 * moved)
    )
    np.testing.assert_allclose((after - before) / 1e-7, there, atol=1e-5 * np.abs(there).max())


def test_the_updates_of_rpie_point_down_the_loss():
    pytest.importorskip("torch")
    backend = get_backend("pytorch")
    patches, probe, measured, detector = waves_at_random(backend)
    xp = backend.xp

    def loss(leaves):
        predicted = multislice_intensity(list(leaves["re"] + 1j * leaves["im"]), probe, detector.gap[0], fft2)
        return pattern_loss(predicted, measured, None, "amplitude", 1.0)

    slope = backend.value_and_grad(loss)({"re": xp.real(patches), "im": xp.imag(patches)})[1]
    change = exit_wave_change(patches, probe, measured, None, "amplitude", 1.0, detector)
    for number, lit in enumerate(change.slices):
        update = backend.to_numpy(object_numerator(lit.illumination, lit.exit_change))
        down = -backend.to_numpy(slope["re"][number] + 1j * slope["im"][number]) * len(update) / 2
        np.testing.assert_allclose(update, down, atol=1e-6 * np.abs(down).max())


@pytest.mark.parametrize(
    ("engine", "options", "worst"),
    [
        ("rpie", {"momentum": 0.5}, 0.04),
        ("epie", {"momentum": 0.5, "engine_batch_size": 4}, 0.08),
        ("lsqml", {}, 0.08),
        ("gradient", {"device": "cpu"}, 0.1),
    ],
)
def test_two_slices_are_told_apart(scan, settings, engine, options, worst):
    if engine == "gradient":
        pytest.importorskip("torch")
    config = settings(**{"engine": engine, "epochs": 25, "engine_batch_size": None, **TWO, **options})
    done = solve(scan, config)
    assert done.object.shape[0] == 2
    assert done.spacing == SPACING
    assert max(errors(done)) < worst
    assert r_factor(done, scan, config) < 2 * r_factor(truth_of(scan), scan, config)


def test_one_slice_does_not_explain_two(scan, settings):
    config = settings(epochs=30)
    assert r_factor(solve(scan, config), scan, config) > 3 * r_factor(truth_of(scan), scan, config)


@pytest.mark.parametrize("engine", ["rpie", "epie", "lsqml"])
@pytest.mark.parametrize("near", [True, False])
def test_stays_at_the_truth(clean, settings, engine, near):
    scan, how = clean, {}
    if near:
        lengths = {"distance": 1e-4, **LENGTHS}
        options = {"propagate": lambda wave: near_field(wave, **lengths), "distance": 1e-4}
        scan, how = thick(pictures(), noise=False, dtype=np.float64, **options), {"propagation": "near"}
    done = solve(scan, settings(engine=engine, double=True, epochs=2, **how), truth_of(scan))
    assert max(done.history["r_factor"]) < 1e-6


MOVING = {"correct_positions": "gradient", "positions_from": 1, "opr_modes": 1, "opr_from": 2, "epochs": 4}


@pytest.mark.parametrize(
    ("backend", "double", "more"),
    [
        ("pytorch", True, MOVING),
        ("tensorflow", True, {"full_batch_epochs": 0}),
        ("jax", False, {"full_batch_epochs": 0}),
    ],
)
def test_backends_walk_the_same_way(settings, backend, double, more):
    if importlib.util.find_spec(OTHERS[backend]) is None:
        pytest.skip(f"{OTHERS[backend]} is not installed")
    mask = np.ones((N, N), dtype=bool)
    mask[3, 4] = False
    scan = thick(pictures(), modes=2, mask=mask).subset(slice(0, 40))
    agree(scan, settings, backend, double, **TWO, **more)


def test_frameworks_differentiate_alike(scan, settings):
    pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    part, options = scan.subset(slice(0, 40)), {"engine": "gradient", "device": "cpu", "double": True, "epochs": 3}
    one, two = (solve(part, settings(**options, **TWO, backend=name)) for name in ("pytorch", "tensorflow"))
    np.testing.assert_allclose(two.object, one.object, atol=1e-8)


def test_slices_go_with_everything_else(scan, settings):
    options = {
        "momentum": 0.5,
        "interpolation": "fourier",
        "noise": "poisson",
        "amplitude_limit": 1.3,
        "phase_limit": 2.0,
    }
    config = settings(epochs=25, object_tv=1e-3, object_smoothness=1e-3, modes=2, **TWO, **options)
    done = solve(thick(pictures(), modes=2), config)
    assert done.object.shape[0] == done.probe.shape[0] == 2
    assert max(errors(done)) < 0.15
    assert np.abs(done.object).max() <= 1.3 * (1 + 1e-6)


def test_positions_are_corrected(scan, settings):
    wrong = scan.positions + np.random.default_rng(1).normal(0, 0.7, scan.positions.shape)
    config = settings(epochs=25, correct_positions="gradient", positions_from=3, momentum=0.5, **TWO)
    moved = solve(scan.replace(positions=wrong), config).positions - scan.positions
    assert np.linalg.norm(moved - moved.mean(axis=0), axis=1).mean() < 0.15


def test_a_killed_run_goes_on_to_the_same_result(scan, settings, tmp_path):
    config, path = settings(double=True, momentum=0.5, **TWO), tmp_path / "state.npz"
    whole = solve(scan, config)

    def stop(done, total, metrics):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(scan, config, callbacks=[stop], checkpoint=path, every=0.0)
    done = solve(scan, config, checkpoint=path)
    np.testing.assert_allclose(done.object, whole.object, atol=1e-9)
    assert done.spacing == SPACING


def test_results_keep_their_slices(scan, settings, tmp_path):
    result = reconstruct_iteratively(scan, settings(epochs=12, momentum=0.5, **TWO))
    np.testing.assert_allclose(result.object, result.slices.prod(axis=0), atol=1e-5)
    save_reconstruction(result, tmp_path / "out")
    assert 'alt="slices"' in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("reconstruction.h5", "reconstruction.npz"):
        again = load_reconstruction(tmp_path / "out" / name)
        np.testing.assert_array_equal(again.slices, result.slices)
        assert again.slice_spacing == SPACING
    refined = refine_result(again, scan, settings(epochs=1))
    assert refined.slices.shape == result.slices.shape
    assert refined.history["r_factor"][0] < 1.3 * result.history["r_factor"][-1]
    thin = refine_result(again, scan, settings(epochs=1, slices=1))
    assert thin.slices is None
    assert thin.metrics["r_factor"] > 2 * refined.metrics["r_factor"]


def test_the_page_of_a_result_shows_and_predicts_with_all_slices(scan, settings):
    result = reconstruct_iteratively(scan, settings(epochs=8, momentum=0.5, **TWO))
    picture = picture_of_result(result, scan)
    assert picture.names()[:3] == ["object", "slice 1", "slice 2"]
    assert picture.header(True)["images"]["slice 2"]["shape"] == list(result.object.shape)
    np.testing.assert_array_equal(picture.pyramid("slice 2", False).image, result.slices[1])
    assert result_patterns(result, scan, "").at(picture, 40)[0]["r_factor"] < 1.5 * result.metrics["r_factor"]


def test_a_result_of_one_slice_is_shared_out(scan, settings):
    result = reconstruct_iteratively(scan, settings(epochs=5))
    two = refine_result(result, scan, settings(epochs=10, momentum=0.5, **TWO))
    assert two.metrics["r_factor"] < 0.6 * result.metrics["r_factor"]
    assert two.slices.shape == (2, *result.object.shape)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "options", "named"),
        [
            ({}, {"slice_spacing": None}, "slice_spacing, in metres"),
            ({"wavelength": None}, {}, "the scan's wavelength, in metres"),
            ({"pixel_size": None}, {}, "the object's pixel size, in metres"),
        ],
    )
    def test_a_length_that_is_not_known(self, scan, settings, changes, options, named):
        with pytest.raises(ConfigError, match=f"slices = 2 needs {named}"):
            solve(scan.replace(**changes), settings(**{**TWO, **options}))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"slice_spacing": 1e-5}, "slice_spacing = 1e-05 needs slices"),
            ({**TWO, "engine": "difference_map"}, "slices = 2 is for rpie, epie, lsqml and gradient"),
            ({**TWO, "correct_positions": "correlation"}, "correct_positions = correlation compares flat patches"),
            ({"slices": 0}, "slices = 0 is not possible"),
            ({**TWO, "slice_spacing": -1e-6}, "slice_spacing = -1e-06 is not possible"),
        ],
    )
    def test_settings_that_do_not_go_together(self, scan, settings, options, message):
        with pytest.raises(ConfigError, match=message):
            solve(scan, settings(**options))

    @pytest.mark.parametrize(
        ("slices", "changes", "message"),
        [
            (pictures(), {"spacing": None}, "spacing: got None"),
            (pictures(), {"wavelength": None}, "wavelength: got None"),
            (pictures()[0], {}, "spacing: got 2e-05 for one slice"),
            (np.ones((1, 2, 88, 88)), {}, "or slices"),
        ],
    )
    def test_scans_that_cannot_be_simulated(self, slices, changes, message):
        with pytest.raises(DataError, match=message):
            thick(slices, **changes)
