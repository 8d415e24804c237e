"""A training that was broken off goes on to the weights and losses that it would have had, in every framework."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError, DataError, OutputError
from ptycho.model.bundle import BUNDLE_NAME, save_bundle
from ptycho.model.checkpoints import Checkpoints
from ptycho.model.training import TrainingPlan
from ptycho.workflows.resume import is_finished, may_replace
from ptycho.workflows.run import train_scan
from ptycho.workflows.train import train
from tests import support
from tests.backends.alone import can_train

SCAN = support.simulated_scan(M=20, N=64)
VARIANTS = {
    "pytorch": [
        {"lr_schedule": "constant", "validation_fraction": 0.0},
        {"lr_schedule": "cosine", "num_workers": 1},
        {"lr_schedule": "plateau", "learning_rate": 1e-12, "nepochs": 6, "early_stopping_patience": 4},
    ],
    "tensorflow": [],
    "jax": [],
}
EVERYWHERE = {"lr_schedule": "onecycle", "gradient_clip": 1e-3, "precision": "bf16", "probe_trainable": True}
CASES = [(name, changes) for name, own in VARIANTS.items() for changes in (EVERYWHERE, *own)]


def configured(backend="pytorch", **changes):
    """Six groups to learn from and two to watch, two a batch."""
    settings = {"nepochs": 4, "n_groups": 8, "batch_size": 2, "validation_fraction": 0.25, "device": "cpu", **changes}
    model = ModelConfig(N=64, n_filters_scale=1, start_iterations=None)
    return TrainingConfig(model=model, backend=backend, **settings)


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly(tmp_path_factory):
    with support.compiled_quickly(tmp_path_factory.mktemp("compiled")):
        yield


class KilledError(Exception):
    """In the place of a kill."""


def broken_off(config, folder, after):
    """Train until so many epochs are done."""

    def stop(epoch, n_epochs, metrics):
        if epoch == after:
            raise KilledError

    with pytest.raises(KilledError):
        train(SCAN, config, [stop], folder)


def same(one, other):
    assert one.history == other.history
    for name, values in one.params.items():
        np.testing.assert_array_equal(other.params[name], values)


# JAX, where an earlier test has loaded it, warns of the fork that a worker needs.
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
@pytest.mark.parametrize(("backend", "changes"), CASES, ids=[f"{name}-{c['lr_schedule']}" for name, c in CASES])
def test_the_weights_and_losses_of_one_that_was_not(backend, changes, tmp_path):
    if not can_train(backend):
        pytest.skip(f"{backend} cannot train here")
    config, told = configured(backend, **changes), []
    whole = train(SCAN, config, log_dir=tmp_path / "whole")
    broken_off(config, tmp_path / "broken", 2)
    shutil.copytree(tmp_path / "broken", tmp_path / "damaged")
    resumed = train(SCAN, config, [lambda epoch, *_: told.append(epoch)], tmp_path / "broken", resume=True)
    same(resumed, whole)
    assert told == list(range(3, len(whole.history["loss"]) + 1))
    tables = [(tmp_path / name / "logs" / "metrics.csv").read_text() for name in ("whole", "broken")]
    assert tables[0] == tables[1]
    same(train(SCAN, config, log_dir=tmp_path / "broken", resume=True), whole)  # nothing is left to train
    if changes is EVERYWHERE:
        for name in ("last", "best"):
            damaged_is_refused(config, tmp_path / "damaged", name)


def damaged_is_refused(config, folder: Path, name: str):
    """Cut short, one byte flipped in the middle of a weight, or not there."""
    (file,) = (folder / "checkpoints").glob(f"{name}.*")
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0x10
    for damaged in (content[: len(content) // 2], bytes(flipped), b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}\.\w+: no checkpoint from which .* start anew with --force"):
            train(SCAN, config, log_dir=folder, resume=True)
    file.write_bytes(content)


def test_more_epochs(tmp_path):
    pytest.importorskip("lightning")
    whole = train(SCAN, configured(nepochs=4))
    train(SCAN, configured(nepochs=2), log_dir=tmp_path)
    same(train(SCAN, configured(nepochs=4), log_dir=tmp_path, resume=True), whole)


def test_nothing_to_go_on_with(tmp_path, caplog):
    pytest.importorskip("lightning")
    fresh = train(SCAN, configured(nepochs=1), log_dir=tmp_path, resume=True)
    assert "no training to resume" in caplog.text
    same(fresh, train(SCAN, configured(nepochs=1)))
    with pytest.raises(ConfigError, match="resume: only a training with checkpoints goes on"):
        train(SCAN, configured(nepochs=1), resume=True)
    with pytest.raises(ConfigError, match="resume: only a training with checkpoints goes on"):
        train(SCAN, configured(nepochs=1, checkpoint=False), log_dir=tmp_path, resume=True)


def test_without_resume_it_starts_anew(tmp_path):
    pytest.importorskip("lightning")
    broken_off(configured(), tmp_path, 2)
    (tmp_path / "checkpoints" / ".thesis.part").touch()  # of another program
    told = []
    train(SCAN, configured(nepochs=1, seed=5), [lambda epoch, *_: told.append(epoch)], tmp_path, overwrite=True)
    assert told == [1]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        ".ptychopinn.json",
        ".thesis.part",
        "best.ckpt",
        "last.ckpt",
        "training.json",
    }
    assert len((tmp_path / "logs" / "metrics.csv").read_text().splitlines()) == 2


def test_a_full_disk_keeps_the_epochs_before(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    config, sync, written = configured(), os.fsync, []
    whole = train(SCAN, config)

    def full(file):
        written.append(file)
        if len(written) > 6:
            raise OSError(28, "No space left on device")
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: No space left on device; .* --resume goes on"):
        train_scan(SCAN, config, log_dir=tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))
    same(train_scan(SCAN, config, log_dir=tmp_path, resume=True), whole)


def test_a_killed_one_that_wrote_its_results(tmp_path):
    """The bundle is written before what is reconstructed with it: only both, in this order, are all."""
    pytest.importorskip("lightning")
    config = configured(nepochs=1, output_dir=tmp_path)
    save_bundle(train(SCAN, config, log_dir=tmp_path), tmp_path)
    assert is_finished(SCAN, config, [BUNDLE_NAME])
    results = [BUNDLE_NAME, "report.html"]
    assert not is_finished(SCAN, config, results)
    report = tmp_path / "report.html"
    report.touch()
    assert is_finished(SCAN, config, results)
    os.utime(report, (1, 1))  # of an earlier bundle
    assert not is_finished(SCAN, config, results)
    report.touch()
    assert not is_finished(SCAN, configured(nepochs=2, output_dir=tmp_path), results)
    assert not is_finished(support.simulated_scan(M=20, N=64, seed=1), config, results)


def test_to_go_on_and_to_start_anew_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--force starts it anew; give one of the two"):
        may_replace(SCAN, configured(output_dir=tmp_path), [], resume=True, force=True)


class TestWhichTraining:
    @pytest.fixture
    def begun(self, tmp_path):
        Checkpoints(tmp_path, configured()).begin(SCAN, going_on=False)
        return tmp_path

    def check(self, folder, scan=SCAN, **changes):
        Checkpoints(folder, configured(**changes)).check(scan)

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"nepochs": 5},
            {"num_workers": 2},
            {"output_dir": Path("else")},
            {"tensorboard": True},
            {"device": "auto"},
            {"devices": 2},
        ],
    )
    def test_what_may_differ(self, begun, changes):
        self.check(begun, **changes)

    @pytest.mark.parametrize(
        "changes",
        [{"nepochs": 3}, {"batch_size": 4}, {"learning_rate": 2e-3}, {"backend": "jax"}, {"precision": "bf16"},
         {"gradient_clip": 1.0}, {"seed": 1}, {"early_stopping_patience": 3}, {"lr_schedule": "cosine"}],
    )  # fmt: skip
    def test_what_may_not(self, begun, changes):
        (name,) = changes
        with pytest.raises(ConfigError, match=rf"^{name}: {changes[name]} given, and the training in .* has "):
            self.check(begun, **changes)

    @pytest.mark.parametrize(("schedule", "fine"), [("plateau", True), ("cosine", False), ("onecycle", False)])
    def test_more_epochs_where_the_rate_does_not_ask(self, tmp_path, schedule, fine):
        Checkpoints(tmp_path, configured(lr_schedule=schedule)).begin(SCAN, going_on=False)
        if fine:
            self.check(tmp_path, lr_schedule=schedule, nepochs=9)
            return
        with pytest.raises(ConfigError, match=r"nepochs: 9 given, and the training in .* has 4"):
            self.check(tmp_path, lr_schedule=schedule, nepochs=9)

    def test_a_model_of_other_settings(self, begun):
        config = configured()
        config.model.n_filters_scale = 2
        with pytest.raises(ConfigError, match="n_filters_scale: 2 given"):
            Checkpoints(begun, config).check(SCAN)

    def test_another_scan(self, begun):
        with pytest.raises(DataError, match=r"scan: the training in .* learned from other data"):
            self.check(begun, support.simulated_scan(M=20, N=64, seed=1))

    @pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b'{"settings": 1, "scan": "a"}'])
    def test_a_folder_that_does_not_say(self, begun, content):
        label = begun / "checkpoints" / "training.json"
        label.unlink()
        if content is not None:
            label.write_bytes(content)
        with pytest.raises(DataError, match=r"training\.json"):
            self.check(begun)


class TestCourse:
    @given(
        losses=st.lists(st.floats(-3, 3).map(lambda v: round(v, 1)), min_size=2, max_size=12),
        part=st.floats(0, 1),
        schedule=st.sampled_from(["constant", "cosine", "onecycle", "plateau"]),
        patience=st.none() | st.integers(1, 3),
        watched=st.booleans(),
    )
    def test_text_between_two_epochs_changes_nothing(self, losses, part, schedule, patience, watched):
        config = configured(lr_schedule=schedule, early_stopping_patience=patience, nepochs=len(losses))
        whole, first = TrainingPlan(config, 3), TrainingPlan(config, 3)
        when = 1 + int(part * (len(losses) - 2))
        for number, loss in enumerate(losses):
            told = {"loss": 1.0, "val_loss": loss} if watched else {"loss": loss}
            if number == when:
                resumed = TrainingPlan(config, 3)
                resumed.go_on(first.to_json(), Path("last"))
                first = resumed
            assert first.add(told) == whole.add(told)
            assert first.to_json() == whole.to_json()
            assert first.finished == whole.finished
            assert first.schedule.at(first.step + 1) == whole.schedule.at(whole.step + 1)

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"epoch": 2}', '{"epoch": 2, "history": {"loss": [1]}, "best": 1, "waited": 0}', "null"],
    )
    def test_other_texts_are_refused(self, text):
        with pytest.raises(DataError, match="last: no checkpoint from which this training could go on"):
            TrainingPlan(configured(), 1).go_on(text, Path("last"))

    def test_a_figure_that_is_not_told_of_every_epoch(self, tmp_path):
        plan = TrainingPlan(configured(), 1)
        plan.add({"loss": 1.0})
        plan.add({"loss": 1.0, "other": 2.0})
        plan.write_table(tmp_path / "table.csv")
        assert math.isnan(plan.history["other"][0])
        again = TrainingPlan(configured(), 1)
        again.go_on(plan.to_json(), tmp_path)
        assert json.dumps(again.history) == json.dumps(plan.history)
