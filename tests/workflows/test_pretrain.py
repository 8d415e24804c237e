"""Simulated objects lit as a measured scan was, and the weights that a training starts from."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.bundle import Bundle, save_bundle
from ptycho.model.pinn import initial_parameters
from ptycho.physics import extract_patches
from ptycho.workflows.fine_tuning import settled, start_of, with_network_of
from ptycho.workflows.pretrain import PretrainOptions, pretrain_scan, simulated_like
from ptycho.workflows.run import train_scan
from tests.backends.alone import can_train
from tests.support import simulated_scan

SCAN = simulated_scan(M=40, photons=500.0)
MEASURED = SCAN.replace(mask=np.arange(256).reshape(16, 16) != 37)


def config(**changes):
    model = ModelConfig(**{"N": 64, "n_filters_scale": 1, "start_iterations": None, **changes.pop("model", {})})
    return TrainingConfig(model=model, **{"n_groups": 50, **changes})


class TestSimulatedLike:
    @given(st.integers(1, 9), st.integers(10, 90), st.sampled_from(["mixed", "pictures"]), st.integers(0, 3))
    def test_beam_positions_photons_and_detector_are_the_scans(self, n_objects, patterns, objects, seed):
        made = simulated_like(
            MEASURED, config(n_groups=patterns, seed=seed), PretrainOptions(n_objects=n_objects, objects=objects)
        )
        assert len(made) == patterns
        assert made.measurement == "counts"
        np.testing.assert_array_equal(made.mask, MEASURED.mask)
        assert made.object_pixel_size == MEASURED.object_pixel_size
        ratio = made.probe / np.where(MEASURED.probe == 0, 1, MEASURED.probe)
        bright = np.abs(MEASURED.probe) > 0.1 * np.abs(MEASURED.probe).max()
        np.testing.assert_allclose(ratio[bright], ratio[bright].mean(), rtol=1e-5)
        lit = np.abs(made.probe) ** 2 * np.abs(extract_patches(made.object, made.positions, 16)[:, None]) ** 2
        np.testing.assert_allclose(lit.sum(axis=(1, 2, 3)).mean(), MEASURED.mean_total_counts(), rtol=1e-4)
        # every object's positions are some of the scan's, moved together
        count = made.metadata["simulation"]["n_objects"]
        assert count == max(n_objects, -(-patterns // 40))
        for part in np.array_split(np.arange(patterns), count):
            if part.size:
                steps = made.positions[part] - made.positions[part[0]]
                moved = MEASURED.positions[:, None] - MEASURED.positions
                assert any(
                    all((np.abs(differences - step).max(axis=1) < 1e-9).any() for step in steps)
                    for differences in np.moveaxis(moved, 1, 0)
                )

    def test_the_seed_says_everything(self):
        one, same, other = (simulated_like(SCAN, config(seed=seed)) for seed in (1, 1, 2))
        assert one.fingerprint() == same.fingerprint() != other.fingerprint()

    def test_amplitudes_stay_amplitudes(self):
        made = simulated_like(SCAN.replace(measurement="amplitude"), config(nphotons=1e4))
        assert made.measurement == "amplitude"
        assert made.mean_total_counts() == pytest.approx(1e4, rel=0.02)

    def test_contrast_keeps_its_limits(self):
        made = simulated_like(SCAN, config(), PretrainOptions(amplitude_min=0.9, phase=0.1))
        assert np.abs(made.object).min() > 0.9 - 1e-5
        assert np.abs(np.angle(made.object)).max() < 0.1 + 1e-5
        assert np.ptp(np.angle(made.object)) > 0.05


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle whose weights nobody would draw."""
    settings = config(model={"n_filters_scale": 1})
    params = initial_parameters(settings.model, np.ones((1, 64, 64), np.complex64), 1e3, seed=7)
    folder = tmp_path_factory.mktemp("trained")
    save_bundle(Bundle(params, settings, 1.0, 1e3, 64), folder)
    return folder, params


class TestStart:
    def test_the_model_is_the_bundles(self, trained):
        asked = TrainingConfig(start_model=trained[0], nepochs=3)
        found = settled(asked)
        assert found == dataclasses.replace(asked, model=config().model)
        assert asked.model == ModelConfig(), "what the caller holds is not changed"
        assert settled(found) == found
        assert settled(TrainingConfig()) == TrainingConfig()

    @pytest.mark.parametrize(
        ("name", "value"), [("N", 128), ("gridsize", 2), ("n_filters_scale", 3), ("architecture", "cnn-cartesian")]
    )
    def test_contradictions_are_refused_by_name(self, trained, name, value):
        asked = TrainingConfig(model=ModelConfig(**{name: value}), start_model=trained[0])
        with pytest.raises(ConfigError, match=f"^{name}: {value} given, and the model in"):
            settled(asked)

    def test_a_default_counts_where_it_was_chosen(self, trained):
        asked = TrainingConfig(start_model=trained[0])
        with pytest.raises(ConfigError, match=r"n_filters_scale: 2 given, and the model in .* has 1"):
            settled(asked, {"n_filters_scale"})
        assert settled(asked, {"nepochs"}).model.n_filters_scale == 1

    def test_probe_and_scale_are_the_scans(self, trained):
        start = start_of(TrainingConfig(start_model=trained[0]))
        own = initial_parameters(config().model, np.full((2, 64, 64), 1j, np.complex64), 1e6, seed=0)
        found = with_network_of(own, start)
        assert set(found) == set(own)
        for name, values in found.items():
            network = not name.startswith("probe/") and name != "log_scale"
            np.testing.assert_array_equal(values, trained[1][name] if network else own[name])

    def test_another_network_is_refused(self, trained):
        start = start_of(TrainingConfig(start_model=trained[0]))
        own = initial_parameters(config(model={"probe_big": False}).model, np.ones((1, 64, 64), complex), 1e3, seed=0)
        with pytest.raises(ConfigError, match="start_model: the bundle is of another network"):
            with_network_of(own, start)


def test_fine_tuning_starts_better_than_from_nothing(tmp_path):
    """The network sees bare patterns, so that what it knows comes from its training alone."""
    if not can_train("pytorch"):
        pytest.skip("pytorch cannot train here")
    beam, new = (simulated_scan(M=16, N=64, photons=1e5, seed=seed) for seed in (1, 2))
    settings = config(n_groups=32, nepochs=5, batch_size=8, device="cpu", checkpoint=False, learning_rate=3e-3)
    bundle = pretrain_scan(beam, settings, PretrainOptions(n_objects=2))
    assert not bundle.config.refine_probe
    save_bundle(bundle, tmp_path)
    once = dataclasses.replace(settings, nepochs=1, learning_rate=1e-9)
    tuned = train_scan(new, dataclasses.replace(once, model=ModelConfig(), start_model=tmp_path))
    untrained = train_scan(new, once)
    assert tuned.history["loss"][0] < untrained.history["loss"][0]
    assert tuned.manifest["started_from"]["simulated"] == bundle.manifest["simulated"]
