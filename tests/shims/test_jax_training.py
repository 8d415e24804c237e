"""Training in JAX on a tiny scan: it learns, repeats, obeys every setting, equals PyTorch, and serves every backend."""

import csv
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("optax")

import jax
from safetensors.numpy import load, load_file

from ptycho.backends import get_trainer
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import crop_detector
from ptycho.errors import BackendError, ConfigError
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train
from tests.support import compiled_quickly

N = 64
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_quickly(tmp_path_factory.mktemp("compiled")):
        yield


def simulated():
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)


@pytest.fixture(scope="module")
def scan():
    return simulated()


def configured(model=None, **changes):
    """Six groups to learn from and two to watch, two a batch, so that few shapes are compiled."""
    defaults = {
        "nepochs": 2,
        "n_groups": 8,
        "batch_size": 2,
        "validation_fraction": 0.25,
        "device": "cpu",
        "checkpoint": False,
        "seed": 3,
        "backend": "jax",
    }
    model = {"N": N, "n_filters_scale": 1, "start_iterations": 2, **(model or {})}
    return TrainingConfig(model=ModelConfig(**model), **{**defaults, **changes})


def trained(scan, model=None, *, log_dir=None, progress=(), **changes):
    return train(scan, configured(model, **changes), progress, log_dir)


@pytest.fixture(scope="module")
def bundle(scan):
    return trained(scan)


PROBE = {"probe_trainable": True, "intensity_scale_trainable": False, "gradient_clip": 1e-7}
GROUPS = ({"gridsize": 2}, {"validation_fraction": 0.0, "tv_weight": 1e-3, "mae_weight": 0.1})


@pytest.fixture(scope="module")
def groups_bundle(scan):
    return trained(scan, GROUPS[0], **GROUPS[1])


class TestLearning:
    def test_the_loss_falls(self, scan):
        history = trained(scan, nepochs=4, learning_rate=3e-3).history
        assert list(history) == ["loss", "nll", "val_loss", "val_nll", "learning_rate"]
        assert {len(values) for values in history.values()} == {4}
        assert history["loss"][-1] < history["loss"][0]

    def test_same_seed_same_weights(self, scan, bundle):
        again, other = trained(scan, num_workers=2), trained(scan, seed=4)
        for name, values in bundle.params.items():
            np.testing.assert_array_equal(again.params[name], values)
        assert again.history == bundle.history
        assert any((other.params[k] != bundle.params[k]).any() for k in bundle.params)

    def test_every_epoch_is_told(self, scan):
        told = []
        trained(scan, progress=[lambda epoch, total, metrics: told.append((epoch, total, metrics["loss"]))])
        assert [t[:2] for t in told] == [(1, 2), (2, 2)]

    def test_supervised(self, scan):
        history = trained(scan, {"model_type": "supervised", "start_iterations": None}, nepochs=6).history
        assert history["realspace"][-1] < history["realspace"][0]

    def test_parameters_keep_their_shapes(self, bundle):
        assert bundle.params["log_scale"].shape == ()
        assert bundle.params["probe/real"].shape == (1, N, N)
        assert bundle.params["encoder/block0/conv0/kernel"].shape == (3, 3, 4, 32)
        assert {values.dtype for values in bundle.params.values()} == {np.dtype(np.float32)}

    def test_a_step_reuses_the_memory_of_the_last(self, scan, monkeypatch):
        from ptycho_jax.model import PtychoModule

        given, step = [], PtychoModule.training_step

        def watched(self, *args):
            given.extend((*self.trained.values(), *jax.tree.leaves(self.state)))
            return step(self, *args)

        monkeypatch.setattr(PtychoModule, "training_step", watched)
        trained(scan, nepochs=1)
        assert given
        assert all(array.is_deleted() for array in given)

    def test_a_last_smaller_batch_is_compiled_once(self, scan, monkeypatch):
        from ptycho_jax.model import PtychoModule

        modules, start = [], PtychoModule.__init__
        monkeypatch.setattr(PtychoModule, "__init__", lambda self, *args: (modules.append(self), start(self, *args))[1])
        history = trained(scan, n_groups=5, validation_fraction=0.0, nepochs=3).history
        assert len(history["loss"]) == 3
        (module,) = modules
        assert module._train._cache_size() == 2


class TestSettings:
    def test_the_scale_is_trained_by_default_and_not_the_probe(self, scan, bundle):
        still = trained(scan, learning_rate=1e-12).params
        assert np.abs(bundle.params["log_scale"] - still["log_scale"]) > 1e-4
        np.testing.assert_array_equal(bundle.params["probe/real"], still["probe/real"])

    @pytest.mark.parametrize(
        ("schedule", "validation_fraction"), [("cosine", 0.25), ("onecycle", 0.25), ("plateau", 0.25), ("plateau", 0.0)]
    )
    def test_every_schedule(self, scan, schedule, validation_fraction):
        history = trained(scan, lr_schedule=schedule, validation_fraction=validation_fraction).history
        assert np.isfinite(history["loss"]).all()
        assert ("val_loss" in history) == (validation_fraction == 0.25)
        if schedule == "plateau":
            assert history["learning_rate"] == [1e-3] * 2
        else:
            assert history["learning_rate"][-1] < 1e-4

    @pytest.mark.parametrize("steps", [1, 2, 10, 100])
    @pytest.mark.parametrize("course", ["constant", "cosine", "onecycle"])
    def test_schedules_are_pytorchs(self, course, steps):
        torch = pytest.importorskip("torch")
        from ptycho.model.schedules import Schedule

        ours, adam = Schedule(configured(lr_schedule=course), steps), torch.optim.Adam([torch.ones(1)], lr=1e-3)
        theirs = {
            "constant": lambda: torch.optim.lr_scheduler.ConstantLR(adam, factor=1.0),
            "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps),
            "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, total_steps=steps + 1),
        }[course]()
        for step in range(steps + 1):
            group = adam.param_groups[0]
            np.testing.assert_allclose(ours.at(step), (group["lr"], group["betas"][0]), rtol=1e-9, atol=1e-12)
            adam.step()
            if step < steps:
                theirs.step()

    def test_the_plateau_is_pytorchs(self):
        torch = pytest.importorskip("torch")
        from ptycho.model.schedules import Schedule

        ours, adam = Schedule(configured(lr_schedule="plateau"), 1), torch.optim.Adam([torch.ones(1)], lr=1e-3)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.5, patience=2, threshold=0.0, min_lr=1e-4)
        rates = []
        for loss in (3.0, 2.0, 2.0, 2.1, 2.0, 1.9, -1.0, -1.1, *[-1.1] * 20):
            ours.watch(loss)
            theirs.step(loss)
            assert ours.at(0) == (adam.param_groups[0]["lr"], 0.9)
            rates.append(ours.rate)
        assert min(rates) == 1e-4

    def test_bfloat16(self, scan, bundle):
        half = trained(scan, precision="bf16")
        assert {v.dtype for v in half.params.values()} == {np.dtype(np.float32)}
        assert any((half.params[k] != bundle.params[k]).any() for k in half.params)
        assert half.history["loss"] == pytest.approx(bundle.history["loss"], rel=0.01)
        picture = reconstruct(scan, bundle).object
        assert np.linalg.norm(reconstruct(scan, half).object - picture) < 0.01 * np.linalg.norm(picture)

    def test_early_stopping(self, scan):
        history = trained(scan, nepochs=8, early_stopping_patience=1, learning_rate=1e-12).history
        assert len(history["loss"]) < 8

    def test_divergence_is_told(self, scan):
        with pytest.raises(ConfigError, match="learning_rate: the loss became"):
            trained(scan, nepochs=6, learning_rate=1e30, **PROBE)

    def test_an_unknown_strategy(self, scan):
        with pytest.raises(ConfigError, match="strategy: got 'fsdp'"):
            trained(scan, strategy="fsdp")

    @pytest.mark.parametrize("device", ["abacus", "cuda:99"])
    def test_unknown_device(self, scan, bundle, device):
        with pytest.raises(BackendError, match=f"device: '{device}'"):
            trained(scan, device=device)
        with pytest.raises(BackendError, match=f"device: '{device}'"):
            reconstruct(scan, bundle, device=device)

    def test_more_devices_than_there_are(self, scan):
        with pytest.raises(BackendError, match="device: 'cpu' asks for 64 and JAX sees"):
            trained(scan, devices=64)

    def test_numbered_cpu(self, scan, bundle):
        assert trained(scan, device="cpu:0").history == bundle.history


@pytest.fixture(scope="module")
def run(scan, tmp_path_factory):
    """Folder and bundle of a training whose rate is too high: its last epoch is not its best."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("run")
    return folder, trained(scan, log_dir=folder, learning_rate=0.3, nepochs=3, checkpoint=True, tensorboard=True)


class TestFiles:
    def test_the_best_epoch_is_kept(self, run):
        folder, out = run
        best = int(np.argmin(out.history["val_loss"])) + 1
        assert best < 3
        files = {name: load_file(folder / "checkpoints" / f"{name}.safetensors") for name in ("best", "last")}
        for name, values in out.params.items():
            np.testing.assert_array_equal(files["best"][name], values)
        assert any((files["last"][k] != out.params[k]).any() for k in out.params)
        found = {p.name for p in (folder / "checkpoints").iterdir()}
        assert found == {".ptychopinn.json", "best.safetensors", "last.safetensors", "training.json"}

    def test_a_checkpoint_holds_the_optimiser(self, run):
        state = load_file(run[0] / "checkpoints" / "last.safetensors")
        moments = [
            name for name in state if name.startswith("optimiser/") and name.endswith("encoder/block0/conv0/bias")
        ]
        assert len(moments) == 2
        assert all(np.abs(state[name]).max() > 0 for name in moments)
        assert {int(v) for k, v in state.items() if k.startswith("optimiser/") and k.endswith("count")} == {9}

    def test_the_losses_are_logged(self, run):
        folder, out = run
        with (folder / "logs" / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
        assert [int(row["step"]) for row in rows] == [3, 6, 9]
        for name, values in out.history.items():
            assert [float(row[name]) for row in rows] == values

    def test_tensorboard_reads_the_losses(self, run):
        from tensorboard.compat.proto.event_pb2 import Event

        (path,) = (run[0] / "tensorboard").glob("events.out.tfevents.*")
        data, events = path.read_bytes(), []
        while data:  # length, checksum, message, checksum
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
        assert events[0].file_version == "brain.Event:2"
        entries = events[1:]
        assert [e.step for e in entries] == [3, 6, 9]
        found = [{v.tag: v.simple_value for v in e.summary.value}["val_loss"] for e in entries]
        np.testing.assert_allclose(found, run[1].history["val_loss"], rtol=1e-6)

    def test_tensorboard_that_is_not_installed(self, scan, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
        with pytest.raises(BackendError, match=r"tensorboard: .* pip install ptychopinn\[jax\]"):
            trained(scan, tensorboard=True, log_dir=tmp_path)

    def test_a_disk_that_is_full_leaves_no_half_written_checkpoint(self, tmp_path, monkeypatch):
        from ptycho_jax.persistence import save_checkpoint

        path = tmp_path / "checkpoints" / "best.safetensors"
        save_checkpoint(path, {"a": np.zeros(3)}, {}, "{}")
        monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, {"a": np.ones(3)}, {}, "{}")
        assert sorted(p.name for p in path.parent.iterdir()) == [".ptychopinn.json", "best.safetensors"]
        np.testing.assert_array_equal(load_file(path)["a"], np.zeros(3))

    def test_the_native_member_holds_the_same_weights(self, bundle):
        native = load(bundle.native["model.jax.safetensors"])
        assert set(native) == set(bundle.params)
        for name, values in bundle.params.items():
            np.testing.assert_array_equal(native[name], values)


def test_clipped_steps_are_pytorchs(scan):
    """A gradient clipped to the size of Adam's epsilon is no longer divided by its size: every step can be compared."""
    pytest.importorskip("lightning")
    changes = {"n_groups": 10, "validation_fraction": 0.2, "nepochs": 5, "lr_schedule": "onecycle", **PROBE}
    ours, theirs = (trained(scan, backend=name, **changes) for name in ("jax", "pytorch"))
    still = trained(scan, n_groups=10, validation_fraction=0.2, nepochs=1, learning_rate=1e-12, **PROBE).params
    for name, values in theirs.params.items():
        moved = np.linalg.norm(values - still[name])
        assert np.linalg.norm(ours.params[name] - values) <= 2e-2 * moved + 1e-7, name
    assert np.abs(ours.params["probe/real"] - still["probe/real"]).max() > 1e-4
    assert ours.params["log_scale"] == still["log_scale"]


_TWO_DEVICES = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import numpy as np
import jax
from ptycho_jax.data import PtychoData
from tests.shims.test_jax_training import Columns, GROUPS, configured, simulated, trained
assert len(jax.devices()) == 2
data = PtychoData(Columns(7), None, configured(batch_size=4), jax.devices())
assert [batch["X"].sharding.is_fully_replicated for batch in data.training_batches(0)] == [False, True]
model, changes = GROUPS
print(json.dumps(trained(simulated(), model, devices=2, **changes).history))
"""


class Columns:
    """Groups that are there to be counted."""

    patches = estimate = None

    def __init__(self, groups):
        self.X, self.positions = np.zeros((groups, 2, 2, 1)), np.zeros((groups, 1, 2))

    def __len__(self):
        return len(self.X)


class TestDevices:
    def test_two_give_the_losses_of_one(self, groups_bundle):
        """With groups whose patches are merged, and a loss that is a sum over the batch."""
        env = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PLATFORMS": "cpu",
        }
        command = [sys.executable, "-c", _TWO_DEVICES, json.dumps([str(ROOT), str(ROOT / "shims")])]
        run = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
        history, wanted = json.loads(run.stdout), groups_bundle.history
        assert set(history) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)

    def test_a_batch_that_they_cannot_share(self, monkeypatch):
        from ptycho_jax import training

        monkeypatch.setattr(training, "find_devices", lambda name, count: list(range(count)))
        with pytest.raises(ConfigError, match="batch_size: 4 groups cannot be shared equally by 3 devices"):
            get_trainer("jax")(configured(batch_size=4, devices=3))


def test_another_pattern_size_is_refused(scan, bundle):
    with pytest.raises(ConfigError, match="the scan's patterns are 32 x 32 and the model's are 64 x 64"):
        reconstruct(crop_detector(scan, 32), bundle)
