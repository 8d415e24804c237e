"""Keras's loop on a tiny scan: it learns, obeys every setting, equals PyTorch, and its bundle serves every backend."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from ptycho.backends import get_backend, get_trainer
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import crop_detector, make_container
from ptycho.errors import BackendError, ConfigError
from ptycho.model.batches import epoch_batches, make_batch
from ptycho.model.bundle import load_bundle
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train
from ptycho_tensorflow.data import PtychoData
from ptycho_tensorflow.model import Adam, PtychoModel

# Keras hands TensorFlow's variables to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

N = 64
ROOT = Path(__file__).parents[2]


def simulated():
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)


@pytest.fixture(scope="module")
def scan():
    return simulated()


def configured(model=None, **changes):
    """Six groups to learn from and two to watch, two a batch, so that few graphs are made."""
    defaults = {
        "nepochs": 2,
        "n_groups": 8,
        "batch_size": 2,
        "validation_fraction": 0.25,
        "device": "cpu",
        "checkpoint": False,
        "seed": 3,
        "backend": "tensorflow",
    }
    model = {"N": N, "n_filters_scale": 1, "start_iterations": 2, **(model or {})}
    return TrainingConfig(model=ModelConfig(**model), **{**defaults, **changes})


def trained(scan, model=None, *, log_dir=None, progress=(), **changes):
    return train(scan, configured(model, **changes), progress, log_dir)


def moved(bundle, start):
    return max(np.abs(bundle.params[k] - start.params[k]).max() for k in start.params)


STILL = {"nepochs": 1, "learning_rate": 1e-12}
"""A rate at which nothing moves: the weights are those that every backend starts from."""

ALL = {"validation_fraction": 0.0}

TOLD: list = []


@pytest.fixture(scope="module")
def bundle(scan):
    told = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: TOLD.append(epoch))
    progress = [lambda epoch, total, metrics: TOLD.append((epoch, total, metrics)), told]
    return trained(scan, nepochs=3, learning_rate=3e-3, progress=progress)


@pytest.fixture(scope="module")
def still(scan):
    """A rate that moves nothing: the loss does not fall, so the rate does, and the training stops early."""
    return trained(scan, nepochs=9, learning_rate=1e-12, lr_schedule="plateau", early_stopping_patience=4)


GROUPS = (
    {"gridsize": 2},
    {
        "validation_fraction": 0.0,
        "mae_weight": 0.1,
        "probe_trainable": True,
        "intensity_scale_trainable": False,
        "lr_schedule": "cosine",
    },
)


@pytest.fixture(scope="module")
def groups_bundle(scan):
    return trained(scan, GROUPS[0], **GROUPS[1])


class TestLearning:
    def test_the_loss_falls(self, bundle):
        history = bundle.history
        assert list(history) == ["loss", "nll", "val_loss", "val_nll", "learning_rate"]
        assert {len(values) for values in history.values()} == {3}
        assert history["loss"][-1] < history["loss"][0]

    def test_every_epoch_is_told(self, bundle):
        assert TOLD[::2] == [0, 1, 2]  # Keras's own callback, which counts from 0
        assert [t[:2] for t in TOLD[1::2]] == [(1, 3), (2, 3), (3, 3)]
        assert [t[2]["val_loss"] for t in TOLD[1::2]] == bundle.history["val_loss"]

    def test_same_seed_same_training(self, scan, bundle, still):
        again = trained(scan, nepochs=3, learning_rate=3e-3, num_workers=2)
        np.testing.assert_allclose(again.history["loss"], bundle.history["loss"], rtol=1e-5)
        assert moved(again, bundle) < 0.1 * moved(again, still)

    def test_supervised(self, scan):
        history = trained(scan, {"model_type": "supervised", "start_iterations": None}, nepochs=8, **ALL).history
        assert history["realspace"][-1] < history["realspace"][0]

    def test_parameters_keep_their_shapes(self, bundle, groups_bundle):
        assert bundle.params["log_scale"].shape == ()
        assert bundle.params["probe/real"].shape == (1, N, N)
        assert bundle.params["encoder/block0/conv0/kernel"].shape == (3, 3, 4, 32)
        assert groups_bundle.params["encoder/block0/conv0/kernel"].shape == (3, 3, 16, 32)
        assert {values.dtype for values in bundle.params.values()} == {np.dtype(np.float32)}


class TestData:
    @pytest.mark.parametrize("workers", [0, 3])
    def test_batches_and_order_are_the_cores(self, scan, workers):
        container, config = make_container(scan, 2, 7), configured(batch_size=3, num_workers=workers)
        data = PtychoData(container, config)
        for epoch in (None, 0, 1):
            data.epoch = epoch
            batches = list(data.dataset())
            orders = epoch_batches(7, 3, config.seed, epoch)
            assert len(batches) == len(data.dataset()) == len(orders) == 3
            for batch, index in zip(batches, orders, strict=True):
                wanted = make_batch(container, index)
                assert set(batch) == set(wanted)
                for name, values in wanted.items():
                    np.testing.assert_array_equal(batch[name].numpy(), values)
                    assert batch[name].dtype == values.dtype


class TestSettings:
    def test_the_scale_is_trained_by_default_and_not_the_probe(self, bundle, still):
        assert np.abs(bundle.params["log_scale"] - still.params["log_scale"]) > 1e-4
        np.testing.assert_array_equal(bundle.params["probe/real"], still.params["probe/real"])

    def test_what_is_trained_is_chosen(self, scan, groups_bundle):
        pytest.importorskip("lightning")
        start = trained(scan, GROUPS[0], backend="pytorch", **GROUPS[1], **STILL)
        assert np.abs(groups_bundle.params["probe/imag"] - start.params["probe/imag"]).max() > 1e-4
        assert groups_bundle.params["log_scale"] == start.params["log_scale"]

    def test_no_validation(self, groups_bundle):
        assert set(groups_bundle.history) == {"loss", "nll", "mae", "learning_rate"}
        np.testing.assert_allclose(groups_bundle.history["learning_rate"], [5e-4, 0.0], atol=1e-10)

    def test_plateau_and_early_stopping(self, still):
        np.testing.assert_allclose(still.history["learning_rate"], [1e-12] * 4 + [5e-13], rtol=1e-5)

    def test_adam_is_pytorchs(self):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(0)
        start = rng.normal(size=200).astype(np.float32)
        theirs, ours = torch.nn.Parameter(torch.tensor(start)), keras.Variable(start)
        their_adam, our_adam = torch.optim.Adam([theirs], lr=0.1), Adam(0.1, epsilon=1e-8)
        our_adam.build([ours])
        for _ in range(5):  # gradients around epsilon, where the two places of epsilon differ
            gradient = (rng.normal(size=200) * 10.0 ** rng.uniform(-9, 0, size=200)).astype(np.float32)
            theirs.grad = torch.tensor(gradient)
            their_adam.step()
            our_adam.apply([tf.constant(gradient)], [ours])
        np.testing.assert_allclose(ours.value.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-5)

    def test_gradient_clip(self, scan, bundle, still):
        """Adam divides by the size of the gradient, unless it is clipped below Adam's epsilon."""
        clipped = trained(scan, nepochs=1, learning_rate=3e-3, gradient_clip=1e-12, **ALL)
        assert moved(clipped, still) < 0.01 * moved(bundle, still)

    def test_bfloat16(self, scan):
        pytest.importorskip("lightning")
        model = {"start_iterations": None, "gridsize": 2}
        full = trained(scan, model, nepochs=1, backend="pytorch", **ALL)
        half = trained(scan, model, nepochs=1, precision="bf16", **ALL)
        assert {v.dtype for v in half.params.values()} == {np.dtype(np.float32)}
        assert half.history["loss"][0] == pytest.approx(full.history["loss"][0], rel=0.05)
        assert half.history["loss"][0] != pytest.approx(full.history["loss"][0], rel=1e-6)

    @pytest.mark.parametrize(("precision", "kind"), [("bf16", "bfloat16"), ("32", "float32")])
    def test_only_the_network_is_halved(self, precision, kind):
        params = {"encoder/kernel": np.ones((3, 3, 1, 1), np.float32), "log_scale": np.float32(1.0)}
        model = PtychoModel(None, params, configured(precision=precision))
        arrays = model._arrays({name: weight.value for name, weight in model.named.items()})
        assert {name: a.dtype.name for name, a in arrays.items()} == {"encoder/kernel": kind, "log_scale": "float32"}

    def test_divergence_is_told(self, scan):
        with pytest.raises(ConfigError, match="learning_rate: the loss became nan in epoch 1"):
            trained(scan, {"start_iterations": None, "amp_activation": "swish"}, learning_rate=1e12)

    @pytest.mark.parametrize(
        ("setting", "error", "words"),
        [
            ({"device": "abacus"}, BackendError, "device: 'abacus'"),
            ({"device": "cuda:99"}, BackendError, "device: 'cuda:99'"),
            ({"devices": 64}, BackendError, "device: 'cpu' asks for 64 and TensorFlow sees"),
            ({"strategy": "fsdp"}, ConfigError, "strategy: got 'fsdp'"),
        ],
    )
    def test_hardware_that_is_not_there(self, setting, error, words):
        tf.config.list_logical_devices()  # TensorFlow has started: the CPU can no longer be divided
        with pytest.raises(error, match=words):
            get_trainer("tensorflow")(configured(**setting))

    def test_keras_on_another_framework(self, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(BackendError, match=r"Keras runs on 'jax' .* set KERAS_BACKEND=tensorflow"):
            get_trainer("tensorflow")(configured())

    def test_unknown_device_of_a_reconstruction(self, scan, bundle):
        with pytest.raises(BackendError, match="device: 'abacus'"):
            reconstruct(scan, bundle, device="abacus")


@pytest.fixture(scope="module")
def run(scan, tmp_path_factory):
    """Folder and bundle of a training whose rate is too high: its last epoch is not its best."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("run")
    changes = {"learning_rate": 0.3, "checkpoint": True, "tensorboard": True, "device": "cpu:0"}
    return folder, trained(scan, log_dir=folder, nepochs=3, **changes)


class TestFiles:
    def test_the_best_epoch_is_kept(self, run):
        folder, out = run
        assert int(np.argmin(out.history["val_loss"])) < 2
        best, last = (keras.saving.load_model(folder / "checkpoints" / f"{name}.keras") for name in ("best", "last"))
        for name, values in out.params.items():
            np.testing.assert_array_equal(best.to_params()[name], values)
        assert any((last.to_params()[k] != out.params[k]).any() for k in out.params)
        found = {p.name for p in (folder / "checkpoints").iterdir()}
        assert found == {".ptychopinn.json", "best.keras", "last.keras", "training.json"}

    def test_a_checkpoint_holds_the_optimiser(self, run):
        last = keras.saving.load_model(run[0] / "checkpoints" / "last.keras")
        assert isinstance(last.optimizer, Adam)
        assert int(last.optimizer.iterations) == 9
        assert max(float(tf.reduce_max(m.value)) for m in last.optimizer._momentums) > 0

    def test_the_losses_are_logged(self, run):
        folder, out = run
        with (folder / "logs" / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
        for name, values in out.history.items():
            assert [float(row[name]) for row in rows] == values

    def test_tensorboard_reads_the_losses(self, run):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run[0] / "tensorboard" / "validation")).Reload()
        found = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors("epoch_loss")]
        np.testing.assert_allclose(found, run[1].history["val_loss"], rtol=1e-6)

    def test_keras_loads_the_native_member_in_safe_mode(self, scan, groups_bundle, tmp_path):
        path = tmp_path / "model.keras"
        path.write_bytes(groups_bundle.native["model.keras"])
        model = keras.saving.load_model(path, safe_mode=True)
        for name, values in groups_bundle.params.items():
            np.testing.assert_array_equal(model.to_params()[name], values)
        lender = get_backend("tensorflow")
        batch = {k: lender.asarray(v) for k, v in make_batch(make_container(scan, 2, 2), np.arange(2)).items()}
        batch["start"] = tf.ones((2, 4, N, N), tf.complex64)
        params = {k: lender.asarray(v) for k, v in groups_bundle.params.items()}
        assert model.model.merge_window is not None
        np.testing.assert_array_equal(model(batch), model.model.patches(params, batch))


def two_devices(devices):
    """A training on batches of three groups, and one to watch: neither can be shared equally by two devices."""
    changes = {"n_groups": 7, "batch_size": 3, "validation_fraction": 0.15, "devices": devices, "checkpoint": True}
    return trained(simulated(), learning_rate=1e-4, gradient_clip=1e-4, strategy="mirrored", **changes)


class TestDevices:
    def test_two_give_the_losses_of_one(self, tmp_path):
        code = (
            "import sys, ptycho_tensorflow; from pathlib import Path\n"
            "from ptycho.model.bundle import save_bundle\n"
            "from tests.shims.test_tensorflow_training import tf, two_devices\n"
            "save_bundle(two_devices(2), Path(sys.argv[1]))\n"
            "print(len(tf.config.list_logical_devices('CPU')))\n"
        )
        bare = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        told = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=bare, capture_output=True, text=True, check=True
        )
        assert (told.stdout.split(), told.stderr) == (["2"], "")
        one, two = two_devices(1), load_bundle(tmp_path)
        assert list(one.history) == list(two.history)
        for name, values in one.history.items():
            np.testing.assert_allclose(two.history[name], values, rtol=1e-4, err_msg=name)
        for name, values in one.params.items():
            np.testing.assert_allclose(two.params[name], values, atol=1e-4, err_msg=name)


def test_another_pattern_size_is_refused(scan, bundle):
    with pytest.raises(ConfigError, match="the scan's patterns are 32 x 32 and the model's are 64 x 64"):
        reconstruct(crop_detector(scan, 32), bundle)


def test_the_configuration_travels_in_the_native_member(bundle):
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(bundle.native["model.keras"])) as archive:
        config = json.loads(archive.read("config.json"))["config"]
    assert config["config"]["learning_rate"] == 3e-3
    assert config["shapes"]["log_scale"] == []
