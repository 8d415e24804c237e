"""PtychoPINN's names for driving its PyTorch side: settings, scans, trainings, checkpoints, stitching."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from ptycho import params
from ptycho.config import torch_fields
from ptycho.data import save_npz
from ptycho.errors import ConfigError, DataError
from ptycho.model.bundle import load_bundle
from ptycho_torch.api import base_api
from ptycho_torch.api.base_api import (
    ConfigManager,
    DataloaderFormats,
    InferenceEngine,
    Orchestration,
    PtychoDataLoader,
    PtychoModel,
    Trainer,
)
from tests.support import simulated_scan

torch = pytest.importorskip("torch")

from ptycho_torch import lightning_utils  # noqa: E402
from ptycho_torch.lightning_utils import find_best_checkpoint, read_checkpoint, save_checkpoint  # noqa: E402
from ptycho_torch.model import PtychoPINN_Lightning  # noqa: E402

NAMES = ("data_config", "model_config", "training_config", "inference_config")


@pytest.fixture(scope="module")
def few():
    return simulated_scan(30, 16)


def arrays(scan, dtype="uint16"):
    return scan.counts().astype(dtype), scan.probe, scan.positions


def loader(scan, manager=None, **options):
    return PtychoDataLoader.from_np(*arrays(scan), config_manager=manager, **options)


def new_model(manager):
    return PtychoModel._new_model(PtychoPINN_Lightning, manager)


def loaded(trained, gridsize=1, **changes):
    """A model with the settings of its training, as one that was read from a checkpoint."""
    side = {"grid_size": (gridsize, gridsize)}
    manager = ConfigManager(data_config=side, model_config={"n_filters_scale": 1, "amp_activation": "sigmoid"})
    manager.update(**changes)
    model = new_model(manager)
    model.model.bundle = trained[gridsize]["bundle"]
    return model


def kept(model):
    return {name: getattr(model, name) for name in NAMES}


class TestSettings:
    def test_five_objects(self):
        given = torch_fields.TrainingConfig(epochs=3)
        manager = ConfigManager(training_config=given, data_config={"N": 128})
        assert manager.training_config is given
        assert [type(each) for each in manager.to_tuple()] == [
            torch_fields.DataConfig,
            torch_fields.ModelConfig,
            torch_fields.TrainingConfig,
            torch_fields.InferenceConfig,
            torch_fields.DatagenConfig,
        ]
        assert manager.data_config.N == 128
        other = ConfigManager.from_configs({"mode": "Supervised"}, {"N": 128})
        assert (other.model_config.mode, other.data_config.N) == ("Supervised", 128)

    def test_updates(self):
        manager = ConfigManager()
        data = manager.data_config
        manager.update(data_config={"N": 128}, training_config={"epochs": 2}, datagen_config=None)
        assert (data.N, manager.training_config.epochs) == (128, 2)
        with pytest.raises(ConfigError, match="unknown key epoch: did you mean epochs"):
            manager.update(data_config={"N": 64}, training_config={"epoch": 2})
        with pytest.raises(ConfigError, match="update has the unknown key data"):
            manager.update(data={"N": 64})
        assert data.N == 128

    def test_a_loaded_models_architecture_stays(self, trained):
        model = loaded(trained)
        manager = ConfigManager.from_loaded_model(model)
        assert (manager.measurement, manager.data_config) == ("counts", model.model.data_config)
        manager.validate_arch_compatibility(model)
        manager.update(inference_config={"middle_trim": 20}, data_config={"K": 9})
        with pytest.raises(ConfigError, match=re.escape("data_config.N = 128 instead of 64")):
            manager.update(inference_config={"middle_trim": 30}, data_config={"N": 128})
        assert (manager.inference_config.middle_trim, manager.data_config.N) == (20, 64)
        other = ConfigManager(model_config={"amp_activation": "relu"}, data_config={"N": 128})
        with pytest.raises(ConfigError, match=r"data_config\.N = 128 .* model_config\.amp_activation = 'relu'"):
            other.validate_arch_compatibility(model)

    def test_an_untrained_model_has_none(self):
        with pytest.raises(ConfigError, match="neither trained nor loaded"):
            ConfigManager.from_loaded_model(new_model(None))
        with pytest.raises(ConfigError, match="neither trained nor loaded"):
            _ = PtychoModel().bundle


def changed(item):
    """Another possible value of a field than its default."""
    words = {
        "mode": "Supervised",
        "amp_activation": "relu",
        "loss_function": "MAE",
        "torch_loss_mode": "mae",
        "scheduler": "Cosine",
        "device": "cpu",
        "grid_size": (3, 3),
        "N": 128,
        "C": 7,
        "n_devices": 4,
        "patch_weighting": "uniform",
        "train_data_file": "other.npz",
        "test_data_file": "other.npz",
    }
    if item.name in words:
        return words[item.name]
    default = [] if item.default is dataclasses.MISSING else item.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    return {tuple: (0.2, 0.7), list: ["x"], str: "other"}.get(type(default), 3)


@pytest.mark.parametrize("name", [*NAMES, "datagen_config"])
def test_no_setting_is_ignored_silently(few, caplog, name):
    """Every field of the five objects changes what is done, or is named in the log; and nothing is named unasked."""

    def asked(**settings):
        caplog.clear()
        manager = ConfigManager(training_config={"n_devices": 2})  # with one there is no strategy
        manager.update(**{name: settings})
        work = Trainer(new_model(manager), loader(few, manager, output_dir="out"), manager)
        return work._config(manager), base_api._stitching(manager.inference_config), caplog.text

    *usual, said = asked()
    assert not said
    for item in dataclasses.fields(getattr(ConfigManager(), name)):
        if item.name == "measurement_domain":  # see TestScans
            continue
        *done, said = asked(**{item.name: changed(item)})
        named = re.search(rf"\b{item.name}\b.*without effect", said) is not None
        assert (done != usual) != named, (item.name, said)


def test_what_was_asked_for_anyway_is_not_named(few, caplog):
    manager = ConfigManager(
        data_config={"grid_size": (1, 1), "C": 1},
        model_config={"C_model": 1, "C_forward": 1, "decoder_last_amp_channels": 1, "probe_mask": None},
        training_config={"orchestrator": "Lightning", "strategy": "ddp_spawn"},
    )
    config = Trainer(new_model(manager), loader(few, manager), manager)._config(manager)
    assert not caplog.records
    assert (config.n_groups, config.nphotons, config.backend, config.device) == (30, 1e5, "pytorch", "auto")


def test_a_mask_is_the_disc_and_says_so(few, caplog):
    manager = ConfigManager(model_config={"probe_mask": np.ones((64, 64))})
    assert Trainer(new_model(manager), loader(few, manager), manager)._config(manager).model.probe_mask
    assert caplog.messages == ["the values of probe_mask: accepted, without effect here."]


class TestScans:
    def test_a_folder_has_one_scan(self, few, tmp_path, caplog):
        with pytest.raises(DataError, match=r"holds no \.npz; expected one scan"):
            PtychoDataLoader(tmp_path)
        save_npz(few, tmp_path / "b.npz")
        found = PtychoDataLoader(tmp_path, output_dir=tmp_path / "out", timestamp="now", data_format="tensordict")
        assert (found.file, found.data_format) == (tmp_path / "b.npz", DataloaderFormats.TENSORDICT)
        assert found.output_dir == str(tmp_path / "out" / "run_now")
        assert (len(found), found.scan.fingerprint()) == (30, few.fingerprint())
        save_npz(few, tmp_path / "a.npz")
        with pytest.raises(DataError, match=r"holds a\.npz, b\.npz; expected one scan"):
            PtychoDataLoader(tmp_path)
        assert PtychoDataLoader(tmp_path / "a.npz").file == tmp_path / "a.npz"
        save_npz(few, tmp_path / "train_data.npz")
        caplog.clear()
        assert PtychoDataLoader(str(tmp_path)).file == tmp_path / "train_data.npz"
        assert "train_data.npz is trained on; not on a.npz, b.npz" in caplog.text

    def test_arrays(self, few):
        found = loader(few, output_dir="out")
        np.testing.assert_array_equal(found.scan.positions, few.positions)
        assert (found.scan.measurement, found.data_format) == ("counts", DataloaderFormats.NUMPY)
        assert (found.output_dir, loader(few).output_dir) == ("out", None)
        assert loader(few, output_dir="out", timestamp="now").output_dir == str(Path("out", "run_now"))
        assert PtychoDataLoader.from_np(few.counts(), None, few.positions).scan.probe is None

    def test_what_arrays_hold(self, few, caplog):
        caplog.set_level(logging.INFO)

        def held(dtype, domain="count_intensity", trained=None, **options):
            manager = ConfigManager(data_config={"measurement_domain": domain})
            manager.measurement = trained
            return PtychoDataLoader.from_np(*arrays(few, dtype), config_manager=manager, **options).scan.measurement

        assert held("float32") == "counts"
        assert "The patterns are float32 and taken for counts by measurement_domain" in caplog.text
        assert held("float32", "normalized_amplitude") == "amplitude"
        assert held("float32", "normalized_amplitude", "counts") == "counts"
        assert held("float32", trained="amplitude") == "amplitude"
        assert "taken for amplitude by the model's training" in caplog.text
        assert held("uint16", "normalized_amplitude", "amplitude") == "counts"
        assert held("float32", trained="counts", measurement="amplitude") == "amplitude"
        with pytest.raises(ConfigError, match="measurement_domain = photons is not possible"):
            held("float32", "photons")

    def test_what_files_hold(self, few, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        save_npz(few, tmp_path / "scan.npz")
        assert PtychoDataLoader(tmp_path).scan.measurement == "counts"
        assert "scan.npz holds counts of uint16" in caplog.text
        amplitude = {"measurement_domain": "normalized_amplitude"}
        assert PtychoDataLoader(tmp_path, data_config=amplitude).scan.measurement == "amplitude"

    def test_what_has_no_effect_is_named(self, few, tmp_path, caplog):
        save_npz(few, tmp_path / "scan.npz")
        PtychoDataLoader(tmp_path, memory_map_dir="elsewhere")
        loader(few, scaling_constant=2.0)
        assert [each.split(":")[0] for each in caplog.messages] == ["memory_map_dir", "scaling_constant"]
        with pytest.raises(ConfigError, match="data_format = npz is not possible: expected one of lightning_module"):
            PtychoDataLoader(tmp_path, data_format="npz")


class TestTraining:
    @pytest.fixture
    def work(self, scan, trained, tmp_path, monkeypatch):
        """A training whose core is done already."""
        seen = []
        monkeypatch.setattr(base_api, "train", lambda *given, **_: seen.append(given) or trained[1]["bundle"])
        manager = ConfigManager(data_config={"grid_size": (1, 1)}, training_config={"epochs": 3})
        found = loader(scan, manager, output_dir=tmp_path / "out")
        return Trainer._from_lightning(new_model(manager), found, "lightning", manager), seen

    def test_it_hands_on(self, work, scan, tmp_path):
        trainer, seen = work
        trainer._trainer.callbacks.append("mine")
        assert trainer.train(orchestration="lightning", experiment_name="") == str(tmp_path / "out")
        ((given, config, callbacks, folder),) = seen
        np.testing.assert_array_equal(given.patterns, scan.patterns)
        np.testing.assert_array_equal(given.positions, scan.positions)
        np.testing.assert_array_equal(given.probe, scan.probe)
        assert (config.nepochs, config.model.gridsize, callbacks) == (3, 1, ["mine"])
        assert folder == tmp_path / "out"
        assert params.get("nepochs") == 3
        assert params.get("measurement") == "counts"
        checkpoint = find_best_checkpoint(tmp_path / "out")
        assert checkpoint == tmp_path / "out" / "checkpoints" / "best-checkpoint.ckpt"
        bundle, configs = read_checkpoint(checkpoint)
        assert bundle.intensity_scale == load_bundle(tmp_path / "out").intensity_scale
        assert configs["training_config"] == trainer.config_manager.training_config
        assert trainer.ptycho_model.bundle.measurement == "counts"

    def test_what_has_no_effect_is_named(self, work, caplog):
        trainer, _ = work
        trainer.train(Orchestration.MLFLOW, "experiment")
        assert [each.split(":")[0] for each in caplog.messages] == ["orchestration = mlflow", "experiment_name"]
        with pytest.raises(ConfigError, match="orchestration = wandb is not possible"):
            trainer.train("wandb")

    def test_settings_of_model_and_loader(self, few):
        model, found = new_model(ConfigManager(model_config={"mode": "Supervised"})), loader(few)
        trainer = Trainer._from_lightning(model, found, training_config={"epochs": 7})
        manager = trainer.config_manager
        assert (manager.model_config.mode, manager.training_config.epochs) == ("Supervised", 7)
        assert manager.data_config is found.data_config


class TestCheckpoints:
    def test_round_trip(self, trained, tmp_path):
        settings = {
            "training_config": {"notes": "a", "learning_rate": np.float64(0.5), "output_dir": Path("x")},
            "model_config": {"probe_mask": np.ones((64, 64))},
        }
        model = loaded(trained, 2, **settings)
        bundle, path = model.bundle, tmp_path / "model.ckpt"
        save_checkpoint(bundle, kept(model), path)
        found, configs = read_checkpoint(path)
        assert dataclasses.replace(found, params={}, native={}, manifest={}) == dataclasses.replace(
            bundle, params={}, native={}, manifest={}
        )
        assert found.params.keys() == bundle.params.keys()
        for name, values in bundle.params.items():
            np.testing.assert_array_equal(found.params[name], values)
            assert found.params[name].shape == values.shape
        assert configs["data_config"] == model.data_config
        assert configs["training_config"] == dataclasses.replace(model.training_config, output_dir="x")
        assert configs["model_config"].probe_mask not in (None, False)
        assert PtychoModel._extract_configs_from_checkpoint(path) == tuple(configs[name] for name in NAMES)

    def test_it_is_what_lightning_keeps(self, trained, tmp_path):
        """The parameters as the LightningModule of a training has them."""
        from ptycho_torch.model_manager import create_torch_model_with_gridsize

        model = loaded(trained)
        save_checkpoint(model.bundle, kept(model), tmp_path / "model.ckpt")
        content = torch.load(tmp_path / "model.ckpt", weights_only=True)
        module = create_torch_model_with_gridsize(1, 64, {"n_filters_scale": 1, "start_iterations": 5})
        module.load_state_dict(content["state_dict"])
        for name, values in module.to_params().items():
            np.testing.assert_array_equal(values, model.bundle.params[name])

    def test_loading_publishes(self, trained, tmp_path):
        model = loaded(trained, 2)
        save_checkpoint(model.bundle, kept(model), tmp_path / "model.ckpt")
        found = PtychoPINN_Lightning.load_from_checkpoint(tmp_path / "model.ckpt", **kept(model))
        assert found.data_config is model.data_config
        assert (params.get("gridsize"), params.get("measurement")) == (2, "counts")
        assert params.get("intensity_scale") == model.bundle.intensity_scale
        with pytest.raises(ConfigError, match=re.escape("data_config.grid_size = (1, 1) instead of (2, 2)")):
            PtychoPINN_Lightning.load_from_checkpoint(
                tmp_path / "model.ckpt", data_config=torch_fields.DataConfig(grid_size=(1, 1))
            )

    def test_which_is_best(self, tmp_path):
        assert find_best_checkpoint(tmp_path) is None
        folder = tmp_path / "checkpoints"
        folder.mkdir()
        assert find_best_checkpoint(str(tmp_path)) is None
        for name in ("epoch=3.ckpt", "last.ckpt", "best.ckpt", "best-checkpoint.ckpt"):
            (folder / name).touch()
            assert find_best_checkpoint(tmp_path) == folder / name

    def test_other_files_are_refused(self, trained, tmp_path):
        path = tmp_path / "model.ckpt"
        with pytest.raises(DataError, match="there is no such checkpoint"):
            read_checkpoint(path)
        torch.save({"state_dict": {}, "hyper_parameters": {}}, path)
        with pytest.raises(DataError, match="a checkpoint without a model of this library"):
            read_checkpoint(path)
        torch.save({"ptychopinn": {}}, path)
        with pytest.raises(DataError, match="do not fit together"):
            read_checkpoint(path)
        path.write_bytes(b"GARBAGE")
        with pytest.raises(DataError, match="not a checkpoint that can be read without running code"):
            read_checkpoint(path)

    def test_nothing_in_it_is_run(self, tmp_path):
        class Malice:
            def __reduce__(self):
                return Path.touch, (tmp_path / "was here",)

        torch.save({"ptychopinn": Malice()}, tmp_path / "model.ckpt", pickle_module=pickle)
        with pytest.raises(DataError, match="without running code"):
            read_checkpoint(tmp_path / "model.ckpt")
        assert not (tmp_path / "was here").exists()

    def test_damage_is_found(self, trained, tmp_path):
        model = loaded(trained)
        path = tmp_path / "model.ckpt"
        save_checkpoint(model.bundle, kept(model), path)
        whole = path.read_bytes()
        weights = np.ascontiguousarray(model.bundle.params["probe/real"]).tobytes()
        at = whole.index(weights) + 100
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match="does not match its checksum"):
            read_checkpoint(path)
        for part in range(1, 10):
            path.write_bytes(whole[: len(whole) * part // 10])
            with pytest.raises(DataError, match="not a checkpoint"):
                read_checkpoint(path)


class TestStitching:
    def test_the_middle_is_the_middle(self, trained, scan):
        """Wherever the scan lies, and whatever surrounds it: the same object around the middle of its positions."""
        model, scan = loaded(trained), scan.subset(np.r_[0:24, 30:36])  # the mean of the positions lies elsewhere
        engine = InferenceEngine(model, ConfigManager.from_loaded_model(model))
        found = engine.predict_and_stitch(loader(scan))
        assert (found.dtype, found.device.type) == (torch.complex64, "cpu")
        moved = engine.predict_and_stitch(loader(scan.replace(positions=scan.positions + np.array([300.5, -41.0]))))
        np.testing.assert_allclose(found, moved, atol=1e-3)
        assert all(side % 2 == 0 for side in found.shape)
        middle = (scan.positions.min(axis=0) + scan.positions.max(axis=0)) / 2
        first = np.round(middle).astype(int) - np.array(found.shape) // 2
        inner = [slice(side // 2 - 20, side // 2 + 20) for side in found.shape]
        true = scan.object[tuple(slice(part.start + f, part.stop + f) for part, f in zip(inner, first, strict=True))]
        seen = found.numpy()[tuple(inner)]
        assert abs(np.vdot(seen, true)) / (np.linalg.norm(seen) * np.linalg.norm(true)) > 0.998

    def test_it_is_the_cores(self, trained, scan, monkeypatch):
        asked = []

        def stop(*given, **options):
            asked.append((given, options))
            raise LookupError

        monkeypatch.setattr(base_api, "stitch", stop)
        model = loaded(trained, inference_config={"patch_weighting": "uniform", "middle_trim": 24, "batch_size": 9})
        engine = InferenceEngine(model, data_config={"K": 8}, training_config={"device": "cuda:1"})
        with pytest.raises(LookupError):
            engine.predict_and_stitch(loader(scan))
        (((_, bundle), options),) = asked
        assert bundle is model.bundle
        assert options == {
            "backend": "pytorch",
            "device": "cuda:1",
            "neighbor_count": 8,
            "window": "crop",
            "crop": 24,
            "batch_size": 9,
        }

    def test_weights_that_are_not_there(self):
        with pytest.raises(ConfigError, match="patch_weighting = gauss is not possible: expected probe or uniform"):
            base_api._stitching(torch_fields.InferenceConfig(patch_weighting="gauss"))

    def test_gaps_are_one(self):
        image = np.full((2, 3), 5 + 0j)
        grown = base_api._around(image, (-3.0, 1.0))
        assert grown.shape == (6, 8)
        np.testing.assert_array_equal(grown[0:2, 5:8], image)
        assert grown.sum() == 30 + 42


def test_callbacks_of_lightning_take_part(scan):
    """In the loop itself, with its trainer and its module."""
    import lightning

    from ptycho.workflows.train import train
    from tests.compat.conftest import small

    class Listener(lightning.Callback):
        seen: list = []  # noqa: RUF012  # one instance

        def on_train_epoch_end(self, trainer, pl_module):
            self.seen.append((trainer.current_epoch, float(trainer.callback_metrics["loss"]), type(pl_module).__name__))

    told = []
    progress = (Listener(), lambda epoch, *_: told.append(epoch))
    bundle = train(scan, small(nepochs=2), progress)
    assert Listener.seen == [(epoch, bundle.history["loss"][epoch], "PtychoModule") for epoch in range(2)]
    assert told == [1, 2]
    assert lightning_utils.BEST.endswith(".ckpt")
