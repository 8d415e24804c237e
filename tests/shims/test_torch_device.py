"""A training step on another device than the host: computed on PyTorch's 'meta' device, which has shapes but no memory.

Whatever reads a value there raises, and what passes between it and the host is recorded.
"""

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import make_container
from ptycho.model.batches import make_batch
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics import lines_object, raster_positions, simulate
from ptycho.physics.probe import idealised_probe
from ptycho.physics.reassembly import group_canvas_size
from ptycho_torch.model import PtychoModule

N = 64


class Border(TorchDispatchMode):
    """Records what makes an array on the host, or brings one over; numbers alone may."""

    def __init__(self):
        super().__init__()
        self.crossed = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        arrays = [a for a in tree_leaves((args, kwargs, found)) if isinstance(a, torch.Tensor) and a.ndim]
        if any(a.device.type == "cpu" for a in arrays):
            self.crossed.append((func, [tuple(a.shape) for a in arrays]))
        return found


def module_and_batch(**settings):
    config = ModelConfig(N=N, n_filters_scale=1, start_iterations=settings.pop("start_iterations", 0), **settings)
    positions = raster_positions((90, 90), N, 6.0, jitter=1.0, rng=0)
    scan = simulate(lines_object((90, 90), 2), idealised_probe(N), positions, 1e5, seed=1)
    container = make_container(scan, config.gridsize, 4, seed=0)
    side = group_canvas_size(container.relative, N, config.gridsize)
    mask = np.ones((N, N), bool)
    mask[3, 5] = False
    model = PtychoPINN(config, get_backend("pytorch"), 1.0, side, mask=mask, merge_window=merge_window(scan.probe))
    training = TrainingConfig(model=config, mae_weight=1.0, tv_weight=1.0, probe_trainable=True)
    module = PtychoModule(model, initial_parameters(config, scan.probe, 1e5, seed=0), training)
    batch = {k: torch.from_numpy(v) for k, v in make_batch(container, np.arange(2)).items()}
    return module, batch


@pytest.mark.parametrize(
    "settings",
    [{}, {"gridsize": 2}, {"start_iterations": None, "gridsize": 2, "gaussian_smoothing_sigma": 1.0}],
    ids=["gridsize 1", "gridsize 2", "bare, smoothed"],
)
def test_nothing_passes_between_host_and_device(settings):
    module, batch = module_and_batch(**settings)
    module = module.to("meta")
    batch = {k: v.to("meta") for k, v in batch.items()}
    optimiser = module.configure_optimizers()
    with Border() as border:
        total, _ = module.loss(batch)
        total.backward()
        optimiser.step()
    assert total.device.type == "meta"
    assert border.crossed == []
    with Border() as border:  # the model by itself holds mask and window on the host: that would be seen
        module.model.loss(module.named_arrays(), batch, module.config)
    assert border.crossed


def test_the_loss_is_that_of_the_model():
    module, batch = module_and_batch(gridsize=2)
    total, terms = module.loss(batch)
    expected, parts = module.model.loss(module.named_arrays(), batch, module.config)
    assert float(total.detach()) == float(expected.detach())
    assert terms.keys() == parts.keys()
    assert not [name for name in module.state_dict() if "mask" in name or "window" in name]
