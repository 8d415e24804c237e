"""What a training shows to those that look on: the object that its network makes of the scan by then."""

import numpy as np
import pytest

from ptycho import ModelConfig, TrainingConfig
from ptycho.backends import get_backend
from ptycho.observers import Observer, notify
from ptycho.workflows.live_reconstruction import LiveReconstruction, with_live_reconstruction
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.simulate import SimulationConfig, simulate_scan
from ptycho.workflows.train import train


class Looking:
    """A callback that looks at everything it is offered."""

    def __init__(self):
        self.epochs, self.seen = [], []

    def __call__(self, epoch, n_epochs, metrics):
        self.epochs.append((epoch, n_epochs))

    def observe(self, make_snapshot):
        self.seen.append(make_snapshot())


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(SimulationConfig(size=96, N=64, positions="raster", step=8, nphotons=1e5))


def quick(learner, **changes):
    model = ModelConfig(N=64, n_filters_scale=1, **changes)
    return TrainingConfig(model=model, backend=learner.name, nepochs=1, n_groups=64, batch_size=8, device="cpu")


def test_a_training_shows_what_its_network_makes_of_the_scan(learner, scan):
    looking = Looking()
    bundle = train(scan, quick(learner, start_iterations=None), [looking])
    assert looking.epochs == [(1, 1)]
    (shown,) = looking.seen
    made = reconstruct(scan, bundle, batch_size=16, device="cpu")
    assert shown.object.shape == made.object.shape
    assert shown.origin == made.origin
    covered = made.weight > 0.1 * made.weight.max()
    assert np.abs(shown.object - made.object)[covered].max() < 1e-3
    assert np.ptp(np.abs(shown.object[covered])) > 1e-3  # an object, and not a plane
    assert np.allclose(shown.probe, bundle.probe, rtol=1e-5)


def test_the_network_is_not_asked_while_nobody_looks(scan, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("ptycho.workflows.inference.Inference.stitched", lambda *_: pytest.fail("it was asked"))
    offered = []

    class Waiting(Looking):
        def observe(self, make_snapshot):
            offered.append(make_snapshot)

    class Plain:
        def __call__(self, epoch, n_epochs, metrics):
            pass

    train(scan, quick(get_backend("pytorch"), start_iterations=2), [Waiting(), Plain()])
    assert len(offered) == 1


def test_only_those_that_look_are_wrapped():
    plain, looking = print, Looking()
    wrapped = with_live_reconstruction([plain, looking])
    assert wrapped[0] is plain
    assert isinstance(wrapped[1], LiveReconstruction)
    assert isinstance(wrapped[1], Observer)
    notify(wrapped[1], lambda: pytest.fail("there is no network yet"))
    notify(plain, lambda: pytest.fail("it does not look on"))
    wrapped[1](2, 3, {"loss": 1.0})
    assert looking.epochs == [(2, 3)]


def test_a_reconstruction_shows_how_the_object_grows(scan):
    pytest.importorskip("torch")
    bundle = train(scan, quick(get_backend("pytorch"), start_iterations=2))
    counted = []

    class Counting(Looking):
        def __call__(self, done, total):
            counted.append((done, total))

    looking = Counting()
    made = reconstruct(scan, bundle, batch_size=8, device="cpu", progress=looking)
    covered = [np.count_nonzero(each.weight) for each in looking.seen]
    assert len(covered) == len(counted) > 1
    assert covered == sorted(covered)
    assert covered[0] < covered[-1]
    assert np.array_equal(looking.seen[-1].object, made.object)
