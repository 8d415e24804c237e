"""The registry of networks: the cnn by name, others by entry point or by hand, and what is refused."""

import importlib.metadata

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.bundle import load_bundle, save_bundle
from ptycho.model.generators import CnnGenerator, available_generators, channels, complex_from_polar, find_generator
from ptycho.model.pinn import initial_parameters
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train

N = 64


class Pixelwise:
    """The smallest network there is: one 3 x 3 convolution to a gain and a turn."""

    def init(self, config, seed):
        seen, answered = channels(config)
        rng = np.random.default_rng(seed)
        return {"only/kernel": 0.01 * rng.normal(size=(3, 3, seen, 2 * answered)), "only/bias": np.zeros(2 * answered)}

    def apply(self, params, x, config, backend):
        heads = backend.conv2d(x, params["only/kernel"], params["only/bias"])
        half = heads.shape[-1] // 2
        return complex_from_polar(backend.xp, 1.0 + heads[..., :half], heads[..., half:])


class Wrong(Pixelwise):
    def apply(self, params, x, config, backend):
        return backend.xp.real(super().apply(params, x, config, backend))


class Thief(Pixelwise):
    def init(self, config, seed):
        return {"log_scale": np.zeros(())}


@pytest.fixture(scope="module")
def scan():
    positions = raster_positions((90, 90), N, 8.0, jitter=1.0, rng=0)
    return simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)


def configured(backend="pytorch", **model):
    return TrainingConfig(
        model=ModelConfig(**{"N": N, "n_filters_scale": 1, "start_iterations": 2, **model}),
        nepochs=3, n_groups=8, batch_size=4, device="cpu", checkpoint=False, learning_rate=3e-3, backend=backend,
    )  # fmt: skip


@pytest.fixture
def registered(monkeypatch):
    """One more package that registers a network, and one that is broken."""
    real = importlib.metadata.entry_points

    def entry_points(**chosen):
        points = list(real(**chosen))
        if chosen == {"group": "ptycho.generators"}:
            module = Pixelwise.__module__
            points += [
                importlib.metadata.EntryPoint("pixelwise", f"{module}:Pixelwise", chosen["group"]),
                importlib.metadata.EntryPoint("broken", "no_such_package:net", chosen["group"]),
            ]
        return points

    monkeypatch.setattr("ptycho.model.generators.entry_points", entry_points)
    monkeypatch.setitem(__import__("sys").modules, Pixelwise.__module__, __import__("sys").modules[__name__])
    find_generator.cache_clear()
    yield
    find_generator.cache_clear()


class TestRegistry:
    def test_the_cnn_is_there(self):
        assert "cnn" in available_generators()
        assert isinstance(find_generator("cnn"), CnnGenerator)

    def test_an_installed_package_adds_its_own(self, registered):
        assert {"broken", "cnn", "pixelwise"} <= set(available_generators())
        assert type(find_generator("pixelwise")).__name__ == "Pixelwise"

    def test_unknown_and_broken_names_are_told(self, registered):
        with pytest.raises(ConfigError, match=r"architecture: got 'resnet'; choose one of broken, cnn, .*pixelwise"):
            find_generator("resnet")
        with pytest.raises(ConfigError, match="architecture: 'broken' is registered but cannot be imported"):
            find_generator("broken")

    def test_an_unknown_name_is_refused_before_any_work(self, scan):
        pytest.importorskip("lightning")
        with pytest.raises(ConfigError, match="architecture: got 'resnet'"):
            train(scan, configured(architecture="resnet"))

    @pytest.mark.parametrize(
        ("model", "wanted"),
        [({}, (4, 1)), ({"start_iterations": None}, (1, 1)), ({"gridsize": 2}, (16, 4)),
         ({"gridsize": 2, "start_iterations": None, "object_big": False}, (4, 1))],
    )  # fmt: skip
    def test_channels(self, model, wanted):
        assert channels(ModelConfig(**model)) == wanted


class TestOwnNetwork:
    @pytest.mark.parametrize("passes", [2, None])
    def test_trains_and_reconstructs_from_a_file(self, scan, passes, tmp_path):
        pytest.importorskip("lightning")
        bundle = train(scan, configured(start_iterations=passes), generator=Pixelwise())
        assert bundle.history["loss"][-1] < bundle.history["loss"][0]
        wanted = reconstruct(scan, bundle, generator=Pixelwise())
        back = load_bundle(save_bundle(bundle, tmp_path))
        found = reconstruct(scan, back, backend="numpy", generator=Pixelwise())
        lit = wanted.weight > 0.01 * wanted.weight.max()
        assert np.abs(found.object - wanted.object)[lit].max() <= 1e-4 * np.abs(wanted.object[lit]).max()

    def test_by_name(self, scan, registered):
        pytest.importorskip("lightning")
        named = train(scan, configured(architecture="pixelwise"))
        handed = train(scan, configured(), generator=Pixelwise())
        np.testing.assert_array_equal(named.params["only/kernel"], handed.params["only/kernel"])
        assert reconstruct(scan, named).object.shape == reconstruct(scan, handed, generator=Pixelwise()).object.shape

    def test_an_answer_that_is_no_patch_is_told(self, scan):
        pytest.importorskip("lightning")
        with pytest.raises(ConfigError, match=r"the network 'cnn' returned .*float32 of shape"):
            train(scan, configured(), generator=Wrong())

    def test_the_models_own_names_are_kept(self, scan):
        with pytest.raises(ConfigError, match="names a parameter 'log_scale'"):
            initial_parameters(ModelConfig(N=N), scan.probe, 1e5, 0, generator=Thief())


class TestTorchModule:
    def build(self, config, seen, answered):
        torch = pytest.importorskip("torch")

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first = torch.nn.Conv2d(seen, 8, 3, padding=1)
                self.norm = torch.nn.GroupNorm(2, 8)
                self.last = torch.nn.Conv2d(8, 2 * answered, 3, padding=1)

            def forward(self, x):
                y = self.last(torch.relu(self.norm(self.first(x.permute(0, 3, 1, 2))))).permute(0, 2, 3, 1)
                return torch.complex(1 + y[..., :answered], y[..., answered:])

        return Net()

    def test_a_module_trains(self, scan):
        pytest.importorskip("lightning")
        from ptycho_torch.model import ModuleGenerator

        network = ModuleGenerator(self.build)
        bundle = train(scan, configured(), generator=network)
        assert bundle.history["loss"][-1] < bundle.history["loss"][0]
        start = network.init(bundle.config.model, 0)
        assert bundle.params["network/first/weight"].shape == (8, 4, 3, 3)
        assert all((bundle.params[k] != start[k]).any() for k in start)
        again = train(scan, configured(), generator=ModuleGenerator(self.build))
        np.testing.assert_array_equal(again.params["network/last/weight"], bundle.params["network/last/weight"])
        assert np.isfinite(reconstruct(scan, bundle, generator=network).object).all()

    def test_running_statistics_are_refused(self):
        torch = pytest.importorskip("torch")
        from ptycho_torch.model import ModuleGenerator

        network = ModuleGenerator(lambda config, seen, answered: torch.nn.BatchNorm2d(seen))
        with pytest.raises(ConfigError, match="the module has a buffer 'running_mean'"):
            network.init(ModelConfig(N=N), 0)


def test_numpy_runs_the_cnn_too():
    config = ModelConfig(N=N, n_filters_scale=1, start_iterations=None)
    network = find_generator("cnn")
    answer = network.apply(network.init(config, 0), np.ones((1, N, N, 1), np.float32), config, get_backend("numpy"))
    assert answer.shape == (1, N, N, 1)
    assert answer.dtype == np.complex64
