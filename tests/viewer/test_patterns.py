"""Measured patterns beside predicted ones, with the scan, with another scan, and without one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho.config import EngineConfig
from ptycho.data import Scan
from ptycho.engines import State, predictor
from ptycho.viewer.patterns import Patterns, Samples
from ptycho.viewer.picture import Picture
from ptycho.viewer.result import picture_of_result, result_patterns, result_state, serve_result
from ptycho.workflows.r_factor import predict_amplitudes, sample_of
from tests.support import simulated_scan, true_result

NOISE = 0.08
"""An R-factor that photon noise alone explains here; a pattern beside another one is clearly above it."""


@pytest.fixture(scope="module")
def scan():
    return simulated_scan(M=40, N=16, photons=1e5, modes=2)


@pytest.fixture(scope="module")
def result(scan):
    history = {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "r_factor": [0.5, 0.1], "seconds": [1.0, 2.0]}
    return true_result(scan, history=history)


def test_the_truth_predicts_what_was_measured(scan, result):
    patterns, picture = Patterns(scan), picture_of_result(result)
    whole = predict_amplitudes(result, result.probe, result.positions)
    for index in range(0, 40, 7):
        header, arrays = patterns.at(picture, index)
        np.testing.assert_allclose(arrays["measured"], scan.amplitude([index])[0], rtol=1e-6)
        np.testing.assert_allclose(arrays["predicted"], whole[index], rtol=0.01, atol=0.01)
        assert header["r_factor"] < NOISE
        assert np.abs(arrays["measured"] - whole[index - 1]).sum() > 1.5 * NOISE * arrays["measured"].sum()
        assert (header["row"], header["column"]) == tuple(scan.positions[index])
        assert header["note"] == ""
    assert patterns.at_hand(40) is None
    assert patterns.note() == ""


def test_every_pattern_is_predicted_with_its_own_beam(scan, result):
    rng = np.random.default_rng(1)
    components = (0.3 * rng.normal(size=(1, *scan.probe.shape[1:])) * scan.probe[:1]).astype(np.complex64)
    weights = (1 + 0.5 * rng.normal(size=(40, 2))).astype(np.complex64)
    varied = dataclasses.replace(result, components=components, weights=weights)
    state = State(scan.object, (0.0, 0.0), scan.probe, scan.positions, scan.positions)
    state.components, state.weights = components, weights
    patterns = Patterns(scan.replace(patterns=predictor(state, scan, EngineConfig())(slice(None)) ** 2))
    for index in (0, 17, 39):
        assert patterns.at(picture_of_result(varied), index)[0]["r_factor"] < 1e-3
        assert patterns.at(picture_of_result(result), index)[0]["r_factor"] > 0.05


@pytest.mark.parametrize("settings", [{"propagation": "near"}, {"interpolation": "fourier"}])
def test_an_engine_of_another_kind_predicts_in_its_own_way(scan, result, settings):
    positions = scan.positions + 0.4
    state = State(scan.object, (0.0, 0.0), scan.probe, positions, positions)
    seen = predictor(state, scan, EngineConfig(**settings))(slice(None))
    made = dataclasses.replace(
        result, positions=positions, provenance={"config": settings}, measured=None, predicted=None
    )
    patterns = result_patterns(made, scan.replace(positions=positions, patterns=seen**2), "")
    usual = Patterns(scan.replace(positions=positions, patterns=seen**2))
    for index in (0, 17, 39):
        assert patterns.at(picture_of_result(made), index)[0]["r_factor"] < 1e-3
        assert usual.at(picture_of_result(made), index)[0]["r_factor"] > 5e-3
    header, arrays = result_patterns(made, None, "Gone.").at(picture_of_result(made), 1)
    assert not arrays
    assert "without the scan" in header["note"]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 37.0])
def test_the_unit_of_the_probe_does_not_matter(scan, result, unit):
    picture = dataclasses.replace(picture_of_result(result), probe=result.probe * np.float32(unit))
    scale, r_factor = Patterns(scan).fit(picture)
    assert scale * unit == pytest.approx(1, rel=0.01)
    assert r_factor < NOISE
    assert Patterns(scan).at(picture, 5)[0]["r_factor"] < NOISE


def test_a_position_at_the_border_of_the_object_and_one_far_outside(scan, result):
    positions = np.array([[0.0, 0.0], [47.0, 47.3], [500.0, -500.0]])
    picture = dataclasses.replace(picture_of_result(result), positions=positions)
    patterns = Patterns(None, missing="gone")
    for index in range(3):
        expected = predict_amplitudes(result, result.probe, positions[index : index + 1])[0]
        np.testing.assert_allclose(patterns.at(picture, index)[1]["predicted"], expected, atol=1e-3)


def test_bad_pixels_are_neither_shown_nor_judged(scan, result):
    mask = np.ones((16, 16), bool)
    mask[2:5, 3] = False
    hot = scan.patterns.copy()
    hot[:, 2:5, 3] = 60000
    header, arrays = Patterns(scan.replace(patterns=hot, mask=mask)).at(picture_of_result(result), 4)
    np.testing.assert_array_equal(np.isnan(arrays["measured"]), ~mask)
    assert np.isfinite(arrays["predicted"]).all()
    assert header["r_factor"] < NOISE


def test_without_the_scan_the_patterns_that_the_result_keeps(scan, result):
    patterns, picture = result_patterns(result, None, "The scan is gone."), picture_of_result(result)
    kept = sample_of(40).tolist()
    assert patterns.at_hand(40) == kept
    assert patterns.note().startswith("The scan is gone.")
    for number, index in enumerate(kept):
        _, arrays = patterns.at(picture, index)
        np.testing.assert_array_equal(arrays["measured"], result.measured[number])
        np.testing.assert_array_equal(arrays["predicted"], result.predicted[number])
    header, arrays = patterns.at(picture, 1)
    assert set(arrays) == {"predicted"}
    assert "The scan is gone." in header["note"]


def test_a_result_without_kept_patterns_still_predicts(scan, result):
    bare = dataclasses.replace(result, measured=None, predicted=None)
    patterns = result_patterns(bare, None, "Gone.")
    assert patterns.at_hand(40) == []
    assert set(patterns.at(picture_of_result(bare), 0)[1]) == {"predicted"}


def test_a_scan_of_other_patterns_is_not_shown(scan, result):
    patterns = result_patterns(result, simulated_scan(M=40, N=8), "")
    assert "8 x 8" in patterns.note()
    assert "16 x 16" in patterns.note()
    assert patterns.at_hand(40) == sample_of(40).tolist()


def test_the_result_of_a_part_of_a_scan_finds_its_own_patterns(scan, result):
    chosen = np.array([3, 17, 30])
    part = dataclasses.replace(result, positions=scan.positions[chosen], measured=None, predicted=None)
    patterns, picture = result_patterns(part, scan, ""), picture_of_result(part, scan)
    for index, number in enumerate(chosen):
        _, arrays = patterns.at(picture, index)
        twins = np.flatnonzero((scan.positions == scan.positions[number]).all(axis=1))
        shown = [np.allclose(arrays["measured"], scan.amplitude([twin])[0]) for twin in twins]
        assert any(shown)


def test_positions_that_the_scan_lacks_say_so(scan, result):
    moved = scan.positions[:5].copy()
    moved[2] += 0.5
    part = dataclasses.replace(result, positions=moved, measured=None, predicted=None)
    patterns = result_patterns(part, scan, "")
    assert 2 not in patterns.at_hand(5)
    header, arrays = patterns.at(picture_of_result(part), 2)
    assert "no pattern" in header["note"]
    assert "measured" not in arrays


def test_a_pattern_that_cannot_be_read_is_a_sentence(scan, result):
    class Broken:
        shape, dtype = scan.patterns.shape, scan.patterns.dtype

        def __getitem__(self, index):
            raise OSError("the disk is gone")

    broken = Scan(patterns=Broken(), measurement="counts", positions=scan.positions, probe=scan.probe)
    header, arrays = Patterns(broken).at(picture_of_result(result), 0)
    assert "measured" not in arrays
    assert header["note"]


def test_corrected_positions_keep_their_old_places(scan, result):
    moved = dataclasses.replace(result, positions=scan.positions + np.array([0.25, -0.5]))
    places = picture_of_result(moved, scan).places()
    np.testing.assert_allclose(places[:, :2] - places[:, 2:], np.tile([0.25, -0.5], (40, 1)), atol=1e-5)
    np.testing.assert_array_equal(picture_of_result(result, scan).places()[:, :2], scan.positions.astype(np.float32))


def test_figures_and_curves_of_a_result(result):
    state = result_state(result)
    series = {chart["title"]: {each["name"]: each["y"] for each in chart["series"]} for chart in state["charts"]}
    assert series["Loss"] == {"training": [3.0, 2.0], "validation": [3.5, 2.5]}
    assert list(series["R-factor"].values()) == [[0.5, 0.1]]
    assert ["R-factor", "0.100"] in [list(tile[:2]) for tile in state["headline"]]


def test_a_result_with_nothing_known_is_served(result):
    blank = dataclasses.replace(result, weight=np.zeros_like(result.weight), history={}, metrics={})
    with_page = serve_result(blank)
    try:
        assert with_page.url.startswith("http://127.0.0.1:")
    finally:
        with_page.close()
    assert picture_of_result(blank).header(True)["images"]["object"]["levels"] == 1


def test_samples_of_another_number_are_not_trusted(result):
    odd = dataclasses.replace(result, measured=result.measured[:2], predicted=result.predicted[:2])
    assert result_patterns(odd, None, "").samples is None


def test_pictures_name_their_images(result):
    picture = picture_of_result(dataclasses.replace(result, truth=result.object))
    assert picture.names() == ["object", "truth", "probe 1", "probe 2"]
    with pytest.raises(LookupError):
        picture.pyramid("truth 2", True)
    assert isinstance(Picture(result.object, (0, 0), result.probe, result.positions).covered, type(None))
    assert Samples(np.array([0]), result.measured[:1], result.predicted[:1]).index.tolist() == [0]
