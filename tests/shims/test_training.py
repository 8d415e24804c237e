"""Lightning's loop on a tiny scan: it learns, repeats, obeys every setting, and its bundle serves every backend."""

import functools

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import crop_detector
from ptycho.errors import BackendError, ConfigError
from ptycho.model.bundle import load_bundle, save_bundle
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train
from ptycho_torch.model import ModuleGenerator

N = 64


@pytest.fixture(scope="module")
def scan():
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)


def configured(model=None, **changes):
    defaults = {
        "nepochs": 2,
        "n_groups": 8,
        "batch_size": 4,
        "validation_fraction": 0.25,
        "device": "cpu",
        "checkpoint": False,
        "seed": 3,
    }
    model = {"N": N, "n_filters_scale": 1, "start_iterations": 2, **(model or {})}
    return TrainingConfig(model=ModelConfig(**model), **{**defaults, **changes})


def trained(scan, model=None, *, log_dir=None, progress=(), **changes):
    return train(scan, configured(model, **changes), progress, log_dir)


@pytest.fixture(scope="module")
def bundle(scan):
    return trained(scan)


class TestLearning:
    @pytest.mark.parametrize("passes", [2, None])
    def test_the_loss_falls(self, scan, passes):
        history = trained(scan, {"start_iterations": passes}, nepochs=4, learning_rate=3e-3).history
        assert len(history["loss"]) == len(history["val_loss"]) == 4
        assert history["loss"][-1] < history["loss"][0]

    def test_same_seed_same_weights(self, scan, bundle):
        again, other = trained(scan), trained(scan, seed=4)
        for name, values in bundle.params.items():
            np.testing.assert_array_equal(again.params[name], values)
        assert again.history == bundle.history
        assert any((other.params[k] != bundle.params[k]).any() for k in bundle.params)

    def test_every_epoch_is_told(self, scan):
        told = []
        trained(scan, progress=[lambda epoch, total, metrics: told.append((epoch, total, metrics["loss"]))])
        assert [t[:2] for t in told] == [(1, 2), (2, 2)]

    def test_gridsize_two(self, scan):
        out = trained(scan, {"gridsize": 2})
        assert np.isfinite(out.history["loss"]).all()
        assert out.params["encoder/block0/conv0/kernel"].shape[2] == 16

    def test_supervised(self, scan):
        history = trained(scan, {"model_type": "supervised", "start_iterations": None}, nepochs=6).history
        assert history["realspace"][-1] < history["realspace"][0]

    def test_parameters_keep_their_shapes(self, bundle):
        assert bundle.params["log_scale"].shape == ()
        assert bundle.params["probe/real"].shape == (1, N, N)
        assert bundle.params["encoder/block0/conv0/kernel"].shape == (3, 3, 4, 32)


class TestSettings:
    @pytest.mark.parametrize("trainable", [True, False])
    def test_probe(self, scan, trainable):
        slow, fast = (
            trained(scan, probe_trainable=trainable, nepochs=1, learning_rate=rate).params for rate in (1e-12, 1e-2)
        )
        moved = np.abs(fast["probe/real"] - slow["probe/real"]).max()
        assert (moved > 1e-3) if trainable else (moved == 0)

    @pytest.mark.parametrize("trainable", [True, False])
    def test_intensity_scale(self, scan, trainable):
        slow, fast = (
            trained(scan, intensity_scale_trainable=trainable, nepochs=1, learning_rate=rate).params["log_scale"]
            for rate in (1e-12, 1e-2)
        )
        assert (abs(fast - slow) > 1e-3) if trainable else (fast == slow)

    @pytest.mark.parametrize("validation_fraction", [0.25, 0.0, 0.05])
    @pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle", "plateau"])
    def test_every_schedule(self, scan, schedule, validation_fraction):
        """0.05 of eight groups is none: the loss itself is watched then."""
        history = trained(scan, lr_schedule=schedule, validation_fraction=validation_fraction).history
        assert np.isfinite(history["loss"]).all()
        assert ("val_loss" in history) == (validation_fraction == 0.25)
        rates = history["learning_rate"]
        if schedule in ("cosine", "onecycle"):
            assert rates[-1] < 1e-4
        else:
            assert rates == [pytest.approx(1e-3)] * 2

    def test_gradient_clip(self, scan):
        """Adam divides by the size of the gradient, unless it is clipped below Adam's epsilon."""
        start, clipped = trained(scan, nepochs=1, learning_rate=1e-12), trained(scan, nepochs=1, gradient_clip=1e-12)
        free = trained(scan, nepochs=1)

        def moved(bundle):
            return max(np.abs(bundle.params[k] - start.params[k]).max() for k in start.params)

        assert moved(clipped) < 0.1 * moved(free)

    def test_bfloat16(self, scan, bundle):
        half = trained(scan, precision="bf16")
        assert {v.dtype for v in half.params.values()} == {np.dtype(np.float32)}
        assert any((half.params[k] != bundle.params[k]).any() for k in half.params)
        assert half.history["loss"] == pytest.approx(bundle.history["loss"], rel=0.01)
        picture = reconstruct(scan, bundle).object
        assert np.linalg.norm(reconstruct(scan, half).object - picture) < 0.01 * np.linalg.norm(picture)

    @pytest.mark.parametrize("passes", [2, None])
    def test_compiled(self, scan, passes, monkeypatch):
        """Traced by PyTorch's compiler without a break, and then computed by its operations as they are."""
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
        less = {"nepochs": 2, "n_groups": 4, "validation_fraction": 0.0}
        plain, made = (trained(scan, {"start_iterations": passes}, **less, compile=way) for way in (False, True))
        assert made.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-4)

    def test_a_compiler_that_fails_is_told(self, scan, monkeypatch):
        def fails(graph, inputs):
            raise RuntimeError("no C++ compiler found")

        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=fails))
        with pytest.raises(BackendError, match=r"^compile: PyTorch's compiler cannot work here \(.*no C\+\+ compiler"):
            trained(scan, nepochs=1, compile=True)

    def test_a_network_of_complex_numbers_is_not_compiled(self, scan):
        module = ModuleGenerator(lambda config, seen, answered: torch.nn.Linear(seen, answered))
        with pytest.raises(ConfigError, match="compile: the network ModuleGenerator answers in complex numbers only"):
            train(scan, configured(compile=True), generator=module)

    def test_early_stopping(self, scan):
        history = trained(scan, nepochs=8, early_stopping_patience=1, learning_rate=1e-12, precision="32").history
        assert len(history["loss"]) < 8

    def test_divergence_is_told(self, scan):
        with pytest.raises(ConfigError, match="learning_rate: the loss became"):
            trained(scan, {"start_iterations": None, "amp_activation": "swish"}, nepochs=6, learning_rate=1e12)

    def test_the_best_epoch_is_kept_and_logs_are_written(self, scan, tmp_path):
        pytest.importorskip("tensorboard")
        out = trained(scan, checkpoint=True, tensorboard=True, log_dir=tmp_path)
        files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
        assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "logs/metrics.csv"} <= files
        assert any(name.startswith("tensorboard/events") for name in files)
        assert "val_loss" in (tmp_path / "logs" / "metrics.csv").read_text().splitlines()[0]
        assert "model.pth" in out.native

    @pytest.mark.parametrize("device", ["abacus", "cuda:99"])
    def test_unknown_device(self, scan, device):
        with pytest.raises(BackendError, match=f"device: '{device}'"):
            trained(scan, device=device)

    @pytest.mark.parametrize("device", ["cpu:0"])
    def test_numbered_cpu(self, scan, device):
        assert np.isfinite(trained(scan, device=device, nepochs=1).history["loss"]).all()


@pytest.fixture(scope="module", params=[{}, {"start_iterations": None}, {"gridsize": 2}])
def any_bundle(request, scan):
    return trained(scan, request.param, nepochs=1, learning_rate=5e-3)


class TestReconstruct:
    def test_batches_do_not_matter(self, scan, any_bundle):
        told = []
        one = reconstruct(scan, any_bundle, batch_size=3, progress=lambda done, total: told.append((done, total)))
        other = reconstruct(scan, any_bundle, batch_size=1000)
        assert told[-1] == (len(scan), len(scan))
        lit = other.weight > 0.01 * other.weight.max()
        assert np.abs(one.object - other.object)[lit].max() <= 1e-4 * np.abs(other.object[lit]).max()

    def test_a_saved_bundle_gives_the_same_object(self, scan, bundle, tmp_path):
        back = load_bundle(save_bundle(bundle, tmp_path))
        wanted, ours = reconstruct(scan, bundle), reconstruct(scan, back)
        np.testing.assert_allclose(ours.object, wanted.object, atol=1e-6)
        np.testing.assert_array_equal(ours.probe, wanted.probe)

    def test_the_native_member_holds_the_same_weights(self, bundle):
        torch = pytest.importorskip("torch")
        import io

        state = torch.load(io.BytesIO(bundle.native["model.pth"]), weights_only=True)
        kernel = state["weights.encoder/block0/conv0/kernel"].permute(1, 2, 3, 0).numpy()
        np.testing.assert_array_equal(kernel, bundle.params["encoder/block0/conv0/kernel"])

    def test_another_pattern_size_is_refused(self, scan, bundle):
        with pytest.raises(ConfigError, match="the scan's patterns are 32 x 32 and the model's are 64 x 64"):
            reconstruct(crop_detector(scan, 32), bundle)

    def test_unknown_device(self, scan, bundle):
        with pytest.raises(BackendError, match="device: 'abacus'"):
            reconstruct(scan, bundle, device="abacus")


def test_training_is_refused_before_any_work(scan):
    with pytest.raises(ConfigError, match="N: the scan's patterns are 64 x 64 and N is 128"):
        trained(scan, {"N": 128})
    with pytest.raises(BackendError, match="cannot train"):
        trained(scan, backend="numpy")
    assert get_backend("pytorch").name == "pytorch"
