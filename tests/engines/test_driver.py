"""The loop around the engines: checkpoints, resuming, recovery, the best state."""

import logging

import numpy as np
import pytest

from ptycho.engines import State, load_state, save_state, solve
from ptycho.engines.batches import make_batches
from ptycho.engines.start import place_on_canvas
from ptycho.errors import ConfigError, DataError, OutputError
from tests.engines.conftest import Placed


class StoppedError(Exception):
    pass


def stop_after(epoch):
    def tell(done, total, metrics):
        if done == epoch:
            raise StoppedError

    return tell


OPTIONS = {"epochs": 6, "momentum": 0.3, "correct_positions": "gradient", "positions_from": 1}


def test_a_killed_run_goes_on_to_the_same_result(scan, settings, tmp_path):
    path, config = tmp_path / "state.npz", settings(**OPTIONS)
    whole = solve(scan, config)
    with pytest.raises(StoppedError):
        solve(scan, config, callbacks=[stop_after(4)], checkpoint=path, every=0.0)
    assert load_state(path, load_label(path)).epoch == 3
    done = solve(scan, config, checkpoint=path)
    np.testing.assert_allclose(done.object, whole.object, atol=1e-6)
    np.testing.assert_allclose(done.positions, whole.positions, atol=1e-5)
    np.testing.assert_allclose(done.history["r_factor"], whole.history["r_factor"], rtol=1e-5)
    kept = solve(scan, config, checkpoint=path)  # the last state is there until the caller has saved the result
    np.testing.assert_array_equal(kept.object, done.object)
    assert kept.history == done.history


def load_label(path):
    import json

    with np.load(path) as archive:
        return json.loads(str(archive["note"]))["label"]


def test_a_short_refinement_averages_and_goes_on_when_killed(scan, settings, tmp_path):
    """One epoch of small batches would bring back the noise that the last epochs of the run before averaged over."""
    start, config = solve(scan, settings(epochs=12)), settings(epochs=2)
    refined = solve(scan, config, start)
    assert Placed(refined).r_factor(scan) < Placed(start).r_factor(scan)
    assert Placed(refined).r_factor(scan) < Placed(
        solve(scan, settings(epochs=2, full_batch_epochs=0), start)
    ).r_factor(scan)
    path = tmp_path / "state.npz"
    with pytest.raises(StoppedError):
        solve(scan, config, start, checkpoint=path, every=0.0, callbacks=[stop_after(2)])
    assert path.is_file()
    resumed = solve(scan, config, start, checkpoint=path)
    np.testing.assert_allclose(resumed.object, refined.object, atol=1e-6)


@pytest.mark.parametrize("changed", [{"seed": 3}, {"damping": 0.4}])
def test_the_state_of_another_run_is_refused(scan, settings, tmp_path, changed):
    path = tmp_path / "state.npz"
    with pytest.raises(StoppedError):
        solve(scan, settings(), callbacks=[stop_after(4)], checkpoint=path, every=0.0)
    with pytest.raises(DataError, match="another scan or other settings"):
        solve(scan, settings(**changed), checkpoint=path)
    with pytest.raises(DataError, match="another scan or other settings"):
        solve(scan.subset(slice(0, 60)), settings(), checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_broken_state_is_refused(scan, settings, tmp_path, content):
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="to start anew"):
        solve(scan, settings(), checkpoint=path)


def test_a_state_that_cannot_be_written_is_said(scan, settings, tmp_path):
    with pytest.raises(OutputError):
        solve(scan, settings(), checkpoint=tmp_path / "nowhere" / "state.npz", every=0.0)


def test_states_come_back_as_they_were(tmp_path, scan):
    state = State(
        scan.object,
        (1.0, -2.0),
        scan.probe,
        scan.positions,
        scan.positions + 1,
        3,
        {"r_factor": [0.1]},
        {"m": np.ones(2)},
    )
    save_state(state, tmp_path / "s.npz")
    again = load_state(tmp_path / "s.npz")
    for name in ("object", "probe", "positions", "nominal"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    assert (again.origin, again.epoch, again.history) == (state.origin, 3, {"r_factor": [0.1]})
    np.testing.assert_array_equal(again.auxiliary["m"], np.ones(2))
    np.testing.assert_allclose(again.shifts, -1)


def test_divergence_is_recovered_from(scan, settings, monkeypatch, caplog):
    from ptycho.engines.pie import RPIE

    visit = RPIE.visit

    def broken(self, last):
        visit(self, last)
        if self.epoch == 3 and self.step == 1.0:
            self.canvas.object = self.canvas.object * np.nan
            self._residual = self._residual * np.nan

    monkeypatch.setattr(RPIE, "visit", broken)
    with caplog.at_level(logging.WARNING):
        done = solve(scan, settings(epochs=6))
    assert "diverges" in caplog.text
    assert np.isfinite(done.object).all()
    assert min(done.history["r_factor"]) < 0.2


def test_endless_divergence_is_an_error(scan, settings, monkeypatch):
    from ptycho.engines.pie import RPIE

    monkeypatch.setattr("ptycho.engines.engine.Engine.run_epoch", lambda self, last: float("nan"))
    assert RPIE
    with pytest.raises(DataError, match="diverges"):
        solve(scan, settings())


def test_callbacks_hear_of_every_epoch(scan, settings):
    heard = []
    done = solve(scan, settings(epochs=3), callbacks=[lambda *news: heard.append(news)])
    assert [news[:2] for news in heard] == [(1, 3), (2, 3), (3, 3)]
    assert [news[2]["r_factor"] for news in heard] == done.history["r_factor"]


def test_settings_are_checked(scan, settings):
    with pytest.raises(ConfigError, match="damping = 0"):
        solve(scan, settings(damping=0.0))
    with pytest.raises(ConfigError, match="engine = magic"):
        solve(scan, settings(engine="magic"))


def test_the_callers_state_is_left_alone(scan, settings):
    start = State(scan.object.copy(), scan.object_origin, scan.probe.copy(), scan.positions, scan.positions)
    solve(scan, settings(), start)
    np.testing.assert_array_equal(start.object, scan.object)
    np.testing.assert_array_equal(start.probe, scan.probe)


@pytest.mark.parametrize("kind", ["random", "compact", "sparse"])
@pytest.mark.parametrize("size", [1, 7, 16, 200])
def test_batches_hold_every_pattern_once(kind, size):
    positions = np.random.default_rng(0).uniform(0, 100, (61, 2))
    batches = make_batches(kind, positions, size, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(61))
    assert max(batch.size for batch in batches) <= size


def test_compact_batches_are_near_and_sparse_ones_far():
    positions = np.random.default_rng(0).uniform(0, 100, (160, 2))

    def spread(kind):
        batches = make_batches(kind, positions, 8, np.random.default_rng(1))
        return np.mean([np.ptp(positions[batch], axis=0).mean() for batch in batches])

    assert spread("compact") < 0.6 * spread("random")
    assert spread("sparse") > spread("random")


def test_an_object_is_placed_on_its_own_grid():
    image = np.arange(12.0).reshape(3, 4) + 0j
    canvas, origin = place_on_canvas(image, (0.25, -3.5), np.array([[1.0, 1.0], [9.0, 4.0]]), 4, 1, -7.0)
    row, col = round(0.25 - origin[0]), round(-3.5 - origin[1])
    assert (origin[0] % 1, origin[1] % 1) == (0.25, 0.5)
    np.testing.assert_array_equal(canvas[row : row + 3, col : col + 4], image)
    assert origin[0] <= -2
    assert origin[0] + canvas.shape[0] >= 12
    assert (canvas == -7.0).sum() == canvas.size - 12
