"""The model: expected counts, estimate, invariances, masks, losses and their gradients."""

import dataclasses

import numpy as np
import pytest

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import make_container
from ptycho.errors import ConfigError
from ptycho.model.batches import epoch_batches, make_batch
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics import simulate
from ptycho.physics.objects import lines_object
from ptycho.physics.patches import extract_patches
from ptycho.physics.photons import intensity_scale
from ptycho.physics.positions import raster_positions
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import far_field
from ptycho.physics.reassembly import group_canvas_size
from ptycho.workflows.estimate import Estimate

N = 64
PHOTONS = 1e5


@pytest.fixture(scope="module")
def scan():
    """A noise-free scan of 16 patterns."""
    image = lines_object((96, 96), 4)
    probe = idealised_probe(N)
    modes = np.stack([probe, 0.3 * probe * np.linspace(-1, 1, N)[:, None]]).astype(np.complex64)
    positions = raster_positions((96, 96), N, 8.0, jitter=1.0, rng=0)
    return simulate(image, modes, positions, PHOTONS, noise=False)


def setting(scan, backend="pytorch", *, B=2, mask=None, double=False, estimate=None, truth=False, **model):
    """Model, parameters (non-zero heads where they start at zero) and a batch, in the backend's arrays."""
    if backend == "pytorch":
        pytest.importorskip("torch")
    config = ModelConfig(N=N, n_filters_scale=1, **model)
    lender = get_backend(backend)
    patches = extract_patches(scan.object, scan.positions, N) if truth else None
    container = make_container(scan, config.gridsize, B, seed=0, patches=patches)
    container.estimate = estimate
    side = group_canvas_size(container.relative, N, config.gridsize)
    pinn = PtychoPINN(config, lender, intensity_scale(PHOTONS, N), side, mask, merge_window(scan.probe))
    params = initial_parameters(config, scan.probe, PHOTONS, seed=0)
    batch = make_batch(container, np.arange(B))
    if double:
        wide = {"float32": "float64", "complex64": "complex128"}
        params = {k: v.astype(np.float64) for k, v in params.items()}
        batch = {k: v.astype(wide[str(v.dtype)]) for k, v in batch.items()}
    arrays = {k: lender.asarray(v) for k, v in params.items()}
    return pinn, arrays, {k: lender.asarray(v) for k, v in batch.items()}, container


def awake(params, lender, seed=3):
    """Heads and biases that start at zero, moved away from it."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, values in params.items():
        host = lender.to_numpy(values)
        if name.endswith(("/centre/kernel", "/border/kernel", "/full/kernel")):
            host = (host + 0.02 * rng.normal(size=host.shape)).astype(host.dtype)
        if name.endswith("/bias"):  # dark pixels leave the kink of the ReLU
            host = (host + 0.05 * rng.normal(size=host.shape)).astype(host.dtype)
        moved[name] = lender.asarray(host)
    return moved


def true_params(pinn, params, scan):
    """Parameters whose probe is the simulated one."""
    power = sum(float((pinn.backend.to_numpy(params[k]) ** 2).sum()) for k in ("probe/real", "probe/imag"))
    log_scale = 0.5 * np.log((np.abs(scan.probe) ** 2).sum() / power)
    return {**params, "log_scale": pinn.backend.asarray(np.float32(log_scale))}


class TestPhysics:
    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_true_patches_predict_the_simulated_counts(self, backend, scan, gridsize):
        pinn, params, _, container = setting(scan, backend.name, gridsize=gridsize)
        params = true_params(pinn, params, scan)
        truth = extract_patches(scan.object, container.positions, N)
        counts = backend.to_numpy(pinn.expected_counts(params, backend.asarray(truth)))
        wanted = scan.patterns[container.indices]
        assert np.linalg.norm(counts - wanted) < 1e-3 * np.linalg.norm(wanted)

    def test_merging_the_true_patches_changes_little(self, backend, scan):
        pinn, params, batch, container = setting(scan, backend.name, gridsize=2)
        truth = backend.asarray(extract_patches(scan.object, container.positions, N))
        merged = pinn.consistent(truth, batch["relative"])
        params = true_params(pinn, params, scan)
        counts = backend.to_numpy(pinn.expected_counts(params, merged))
        wanted = scan.patterns[container.indices]
        # patches at fractions are blurred a little, which is why only the correction is merged
        assert np.linalg.norm(counts - wanted) < 5e-2 * np.linalg.norm(wanted)

    def test_the_measured_amplitude_is_recovered_from_X(self, scan):
        pinn, _, batch, container = setting(scan, "numpy")
        measured = (batch["X"][..., 0] * pinn.intensity_scale) ** 2
        np.testing.assert_allclose(measured, scan.patterns[container.indices[:, 0]], rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_untrained_it_returns_the_estimate(self, backend, scan, gridsize):
        estimate = Estimate(scan.object, np.ones(scan.object.shape, np.float32), (0.0, 0.0), scan.probe)
        pinn, params, batch, container = setting(scan, backend.name, estimate=estimate, gridsize=gridsize)
        patches = backend.to_numpy(pinn.patches(params, batch))
        np.testing.assert_allclose(patches, extract_patches(scan.object, container.positions, N), atol=1e-6)

    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_patches_are_the_estimate_times_the_correction(self, backend, scan, gridsize):
        estimate = Estimate(scan.object, np.ones(scan.object.shape, np.float32), (0.0, 0.0), scan.probe)
        pinn, params, batch, _ = setting(scan, backend.name, estimate=estimate, gridsize=gridsize)
        params = awake(params, backend)
        factor, patches = (backend.to_numpy(f(params, batch)) for f in (pinn.correction, pinn.patches))
        assert np.abs(factor - 1).max() > 1e-3
        np.testing.assert_allclose(patches, backend.to_numpy(batch["start"]) * factor, atol=1e-5)

    def test_without_passes_it_starts_from_the_flat_object_and_its_update(self, backend, scan):
        pinn, params, batch, _ = setting(scan, backend.name, start_iterations=0)
        patches = backend.to_numpy(pinn.patches(params, batch))
        level = float(pinn.flat_level(params))
        assert patches.std() > 0.01
        assert np.abs(patches[:, :, :8, :8] - level).max() < 0.1 * level  # dark corners keep the flat object

    def test_flat_level_explains_the_mean_pattern(self, scan):
        pinn, params, _, _ = setting(scan, "numpy")
        power = float((np.abs(pinn.probe(params)) ** 2).sum())
        assert float(pinn.flat_level(params)) ** 2 * power == pytest.approx(PHOTONS, rel=1e-4)

    def test_probe_mask_cuts_the_probe(self, scan):
        pinn, params, _, _ = setting(scan, "numpy", probe_mask=True)
        open_, _, _, _ = setting(scan, "numpy")
        cut, whole = np.abs(pinn.probe(params)), np.abs(open_.probe(params))
        r = np.hypot(*(np.indices((N, N)) - (N - 1) / 2))
        assert not cut[:, r > N // 4 + 1].any()
        np.testing.assert_allclose(cut[:, r < N // 4 - 1], whole[:, r < N // 4 - 1])
        assert whole[:, r > N // 4 + 1].any()

    def test_smoothing_keeps_a_flat_wave_and_dims_the_rim(self, scan):
        smooth, params, _, container = setting(scan, "numpy", gaussian_smoothing_sigma=0.8)
        sharp, _, _, _ = setting(scan, "numpy")
        flat = np.ones((1, N, N), np.complex64)
        np.testing.assert_allclose(smooth._smoothed_far_field(flat), far_field(flat), atol=1e-3)
        truth = extract_patches(scan.object, container.positions, N)
        low, high = (m.expected_counts(params, truth) for m in (smooth, sharp))
        assert low[..., :4, :].sum() < 0.2 * high[..., :4, :].sum()

    @pytest.mark.parametrize("sigma", [0.5, 0.8])
    def test_smoothing_is_the_gaussian_of_three_pixels(self, backend, scan, sigma):
        pinn, _, _, _ = setting(scan, backend.name, gaussian_smoothing_sigma=sigma)
        spike = np.zeros((1, N, N), np.complex64)
        spike[0, 20, 30] = 1.0
        line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
        spread = np.zeros_like(spike)
        spread[0, 19:22, 29:32] = np.outer(line, line) / line.sum() ** 2
        ours = backend.to_numpy(pinn._smoothed_far_field(backend.asarray(spike)))
        np.testing.assert_allclose(ours, far_field(spread), atol=1e-6)

    def test_one_object_for_a_group(self, backend, scan):
        pinn, params, batch, _ = setting(scan, backend.name, gridsize=2, object_big=False, start_iterations=None)
        patches = pinn.patches(params, batch)
        assert tuple(patches.shape) == (2, 4, N, N)
        counts = pinn.expected_counts(params, patches)
        assert tuple(counts.shape) == (2, 4, N, N)
        assert np.isfinite(backend.to_numpy(counts)).all()

    def test_single_patches_are_left_as_they_are(self, scan):
        pinn, _, batch, _ = setting(scan, "numpy")
        patches = np.ones((2, 1, N, N), np.complex64)
        assert pinn.consistent(patches, batch["relative"]) is patches


VARIANTS = [
    {},
    {"start_iterations": None},
    {"start_iterations": 0},
    {"gridsize": 2},
    {"gridsize": 2, "start_iterations": None, "amp_activation": "swish", "pad_object": False},
]


class TestLoss:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_gradient_against_differences(self, scan, variant):
        weights = TrainingConfig(nll_weight=1.0, mae_weight=0.7, tv_weight=1e-3)
        pinn, params, batch, _ = setting(scan, double=True, **variant)
        params = awake(params, pinn.backend)

        def loss(p):
            return pinn.loss(p, batch, weights)[0]

        value, gradient = pinn.backend.value_and_grad(loss)(params)
        assert np.isfinite(float(value))
        # what the pattern decides is a constant of the differentiation, so only the network's weights are compared
        corrects = variant.get("start_iterations", 1) is not None
        names = [k for k in params if not corrects or not k.startswith(("probe/", "log_scale"))]
        rng = np.random.default_rng(0)
        step = {k: pinn.backend.asarray(rng.normal(size=tuple(params[k].shape))) for k in names}
        size = 1e-7

        def moved(sign):
            return {k: v + sign * size * step[k] if k in step else v for k, v in params.items()}

        numeric = float(loss(moved(1)) - loss(moved(-1))) / (2 * size)
        analytic = sum(float((gradient[k] * step[k]).sum()) for k in names)
        assert analytic == pytest.approx(numeric, rel=1e-3)
        assert abs(analytic) > 0

    def test_probe_and_scale_have_gradients(self, scan):
        pinn, params, batch, _ = setting(scan)
        _, gradient = pinn.backend.value_and_grad(lambda p: pinn.loss(p, batch, TrainingConfig())[0])(params)
        for name in ("probe/real", "probe/imag", "log_scale"):
            assert np.isfinite(gradient[name].numpy()).all()
            assert np.abs(gradient[name].numpy()).max() > 0

    def test_terms_and_weights(self, backend, scan):
        pinn, params, batch, _ = setting(scan, backend.name, truth=True)
        weights = TrainingConfig(
            nll_weight=0.5, mae_weight=2.0, tv_weight=0.1, realspace_weight=3.0, realspace_mae_weight=0.5
        )
        total, terms = pinn.loss(params, batch, weights)
        assert set(terms) == {"nll", "mae", "realspace", "tv"}
        parts = {k: float(v) for k, v in terms.items()}
        wanted = 0.5 * parts["nll"] + 2 * parts["mae"] + 1.5 * parts["realspace"] + 0.1 * parts["tv"]
        assert float(total) == pytest.approx(wanted, rel=1e-5)

    def test_frameworks_agree(self, scan):
        values = []
        for name in ("numpy", "pytorch"):
            pinn, params, batch, _ = setting(scan, name, gridsize=2)
            values.append(float(pinn.loss(awake(params, pinn.backend), batch, TrainingConfig(mae_weight=1.0))[0]))
        assert values[0] == pytest.approx(values[1], rel=1e-4)

    def test_the_truth_has_the_least_loss(self, scan):
        pinn, params, batch, container = setting(scan, "numpy")
        params = true_params(pinn, params, scan)
        truth = extract_patches(scan.object, container.positions, N)
        losses = []
        for patches in (truth, 0.9 * truth, np.ones_like(truth)):
            still = dataclasses.replace(pinn)
            object.__setattr__(still, "patches", lambda p, b, patches=patches: patches)
            losses.append(float(still.loss(params, batch, TrainingConfig())[0]))
        assert losses[0] == min(losses)
        assert losses[0] < losses[1] - 1e-3

    @pytest.mark.parametrize("passes", [0, 1, None])
    def test_bad_pixels_change_nothing(self, backend, scan, passes):
        mask = np.ones((N, N), dtype=bool)
        mask[30:34, 28] = mask[5, 5] = False
        pinn, params, batch, _ = setting(scan, backend.name, mask=mask, start_iterations=passes)
        params = awake(params, backend)
        host = backend.to_numpy(batch["X"]).copy()
        host[:, ~mask] = 0.0
        clean = {**batch, "X": backend.asarray(host)}
        wanted = float(pinn.loss(params, clean, TrainingConfig(mae_weight=1.0))[0])
        if passes is not None:  # the bare network sees the pattern, in which bad pixels are 0
            host = host.copy()
            host[:, ~mask] = 1e4
        hot = {**batch, "X": backend.asarray(host)}
        assert float(pinn.loss(params, hot, TrainingConfig(mae_weight=1.0))[0]) == pytest.approx(wanted, rel=1e-5)
        plain = dataclasses.replace(pinn, mask=None)
        assert float(plain.loss(params, clean, TrainingConfig(mae_weight=1.0))[0]) != pytest.approx(wanted, rel=1e-4)

    def test_every_term_is_a_mean_over_the_groups(self, backend, scan):
        pinn, params, batch, _ = setting(scan, backend.name, B=4, truth=True)
        params = awake(params, backend)
        weights = TrainingConfig(mae_weight=1.0, tv_weight=0.1, realspace_weight=1.0, realspace_mae_weight=1.0)
        whole = pinn.loss(params, batch, weights)[1]
        halves = [pinn.loss(params, {k: v[i : i + 2] for k, v in batch.items()}, weights)[1] for i in (0, 2)]
        assert set(whole) == {"nll", "mae", "realspace", "tv"}
        for name, value in whole.items():
            assert float(value) == pytest.approx(sum(float(half[name]) for half in halves) / 2, rel=1e-4)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_groups_do_not_see_their_batch(self, backend, scan, variant):
        pinn, params, batch, _ = setting(scan, backend.name, B=3, **variant)
        params = awake(params, backend)
        together = backend.to_numpy(pinn.patches(params, batch))
        last = {k: v[2:3] for k, v in batch.items()}
        alone = backend.to_numpy(pinn.patches(params, last))
        np.testing.assert_allclose(alone, together[2:3], atol=2e-5)

    def test_supervised(self, backend, scan):
        options = {"model_type": "supervised", "start_iterations": None}
        pinn, params, batch, _ = setting(scan, backend.name, truth=True, **options)
        total, terms = pinn.loss(params, batch, TrainingConfig())
        assert set(terms) == {"realspace"}
        assert float(total) > 0
        told = {**batch, "patches": pinn.patches(params, batch)}
        assert float(pinn.loss(params, told, TrainingConfig())[0]) == pytest.approx(0.0, abs=1e-6)

    def test_supervised_needs_the_truth(self, scan):
        pinn, params, batch, _ = setting(scan, "numpy", model_type="supervised", start_iterations=None)
        with pytest.raises(ConfigError, match="needs a scan with its object"):
            pinn.loss(params, batch, TrainingConfig())

    def test_unknown_architecture(self, scan):
        pinn, params, batch, _ = setting(scan, "numpy")
        other = dataclasses.replace(pinn, config=ModelConfig(N=N, architecture="transformer"))
        with pytest.raises(ConfigError, match="architecture: got 'transformer'"):
            other.patches(params, batch)


class TestParameters:
    def test_brightest_patterns_mean_full_transmission(self, scan):
        params = initial_parameters(ModelConfig(N=N), scan.probe, PHOTONS, 0, brightness=1.7)
        power = (params["probe/real"] ** 2 + params["probe/imag"] ** 2).sum() * np.exp(2 * params["log_scale"])
        assert power == pytest.approx(1.7 * PHOTONS, rel=1e-4)

    def test_the_power_in_the_file_does_not_matter(self, scan):
        one = initial_parameters(ModelConfig(N=N), scan.probe, PHOTONS, 0)
        other = initial_parameters(ModelConfig(N=N), 1e4 * scan.probe, PHOTONS, 0)
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)

    def test_all_float32_on_the_host(self, scan):
        params = initial_parameters(ModelConfig(N=N), scan.probe, PHOTONS, 0)
        assert {type(v) for v in params.values()} == {np.ndarray}
        assert {v.dtype for v in params.values()} == {np.dtype(np.float32)}
        assert params["log_scale"].shape == ()


class TestBatches:
    def test_every_group_once(self):
        batches = epoch_batches(11, 4, seed=1, epoch=2)
        assert [len(b) for b in batches] == [4, 4, 3]
        assert sorted(np.concatenate(batches)) == list(range(11))

    def test_order_is_fixed_by_seed_and_epoch(self):
        def order(seed, epoch):
            return np.concatenate(epoch_batches(50, 7, seed, epoch)).tolist()

        assert order(0, 1) == order(0, 1)
        assert order(0, 1) != order(0, 2)
        assert order(0, 1) != order(1, 1)
        assert order(3, None) == list(range(50))
