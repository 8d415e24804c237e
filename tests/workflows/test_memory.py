"""Scans larger than the memory: what is held follows from the object and the batch, not from the patterns."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from benchmarks.virtual import virtual_scan
from ptycho.backends import get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import Scan, make_container
from ptycho.workflows.estimate import scan_estimate
from ptycho.workflows.inference import Inference
from ptycho.workflows.r_factor import scan_r_factor, sum_over
from ptycho.workflows.train import training_part

ROOT = Path(__file__).parents[2]


class Repeated:
    """As many patterns as wanted, all the same."""

    def __init__(self, count, pattern):
        self.shape, self.dtype, self.pattern = (count, *pattern.shape), pattern.dtype, pattern

    def __getitem__(self, part):
        return np.broadcast_to(self.pattern, (part.stop - part.start, *self.pattern.shape))


def peak_of(work):
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


class Flat:
    """An object of ones."""

    object, origin = np.ones((120, 120), np.complex64), (-10.0, -10.0)


PROBE = np.exp(-(np.hypot(*(np.indices((16, 16)) - 8))[None] ** 2) / 20).astype(np.complex64)


def small_field(count):
    """So many patterns on a field of 90 x 90 pixels."""
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(PROBE[0], norm="ortho"))).astype(np.float32)
    where = np.random.default_rng(0).uniform(0, 90, (count - 2, 2))
    return Scan(Repeated(count, pattern), "amplitude", np.concatenate([[[0, 0], [90, 90]], where]))


@pytest.mark.parametrize(
    ("work", "counts"),
    [
        (lambda scan: scan_estimate(scan, PROBE, 1.0, 3), (1000, 6000)),
        (lambda scan: scan_r_factor(Flat(), PROBE, scan, batch_size=256), (4000, 32000)),
        (lambda scan: (scan.mean_total_counts(), scan.fingerprint()), (100_000, 400_000)),  # in pieces of 64 MiB
    ],
    ids=["estimate", "r-factor", "sum and hash"],
)
def test_memory_does_not_grow_with_the_patterns(work, counts):
    """On the same field, a pattern of 1 kB takes less than 250 bytes: its positions, and its place in an order."""
    small, large = (small_field(count) for count in counts)
    for scan in (small, large):
        scan.total_counts()  # in pieces of 64 MiB, done once
    work(small_field(100))
    assert peak_of(lambda: work(large)) - peak_of(lambda: work(small)) < 250 * (counts[1] - counts[0])


class Packed(Repeated):
    """Such patterns in pieces of 48, each of which is unpacked whole; notes which ones are."""

    frames_per_chunk = 48

    def __init__(self, count, pattern):
        super().__init__(count, pattern)
        self.unpacked = []

    def __getitem__(self, part):
        self.unpacked += range(part.start // self.frames_per_chunk, -(-part.stop // self.frames_per_chunk))
        return super().__getitem__(part)


PARAMS = {"probe/real": PROBE.real, "probe/imag": PROBE.imag, "log_scale": np.float32(0.0)}


class Copying:
    """A network that answers with the patterns, on the host."""

    backend = get_backend("numpy")

    def patches(self, params, batch):
        return np.moveaxis(batch["X"], -1, 1).astype(np.complex64)


@pytest.mark.parametrize(
    "work",
    [
        lambda scan: scan.fingerprint(),
        lambda scan: sum_over(lambda predicted, measured: np.zeros(1), Flat(), PROBE, scan, batch_size=16),
        lambda scan: scan_estimate(scan, PROBE, 1.0, 1),
        lambda scan: Inference(Copying(), make_container(scan, 1, at_most=0), None, 16).answered(PARAMS),
    ],
    ids=["hash", "r-factor", "estimate", "network"],
)
def test_a_pass_over_a_scan_unpacks_every_piece_once(work):
    scan = small_field(1000)
    store = Packed(1000, scan.patterns.sources[0].array.pattern)
    packed = scan.replace(patterns=store)
    packed.mean_total_counts()  # a pass of its own, done once
    for _ in range(2):
        assert sorted(store.unpacked) == list(range(21))
        store.unpacked.clear()
        work(packed)
    assert sorted(store.unpacked) == list(range(21))


def test_a_network_sees_the_same_batches_however_they_are_stored():
    scan = small_field(100)
    store = Packed(100, scan.patterns.sources[0].array.pattern)
    read, kept = (make_container(some, 1, at_most=0) for some in (scan.replace(patterns=store), scan.in_memory()))
    packed, plain = (Inference(Copying(), each, None, 7).answered(PARAMS).result() for each in (read, kept))
    np.testing.assert_array_equal(packed.object, plain.object)
    np.testing.assert_array_equal(packed.weight, plain.weight)


def test_a_training_looks_at_what_it_needs_of_a_large_scan(caplog):
    scan = virtual_scan(2_000_000)
    config = TrainingConfig(model=ModelConfig(N=64), training_patterns=5000)
    part = training_part(scan, config)
    assert 2500 < len(part) <= 5000
    assert "5000" in caplog.text or f"looks at {len(part)} of the 2000000" in caplog.text
    assert training_part(part, config) is part
    config.n_groups = 10_000
    assert 5000 < len(training_part(scan, config)) <= 10_000
    config.training_patterns = None
    assert training_part(scan, config) is scan


CHILD = """
import sys, warnings
warnings.simplefilter("ignore")
from benchmarks.virtual import virtual_scan
from ptycho.backends import get_trainer
from ptycho.data.readers.limits import peak_memory
from ptycho.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.workflows.run import reconstruct_scan, train_scan
from ptycho.workflows.scans import ScanOptions, open_scan

get_trainer("pytorch")
before = peak_memory()
scan = virtual_scan(int(sys.argv[1]))
config = TrainingConfig(
    model=ModelConfig(n_filters_scale=1, start_iterations=1),
    nepochs=1, n_groups=64, training_patterns=2048, batch_size=8,
)
bundle = train_scan(scan, config)
part = open_scan(scan, ScanOptions(region="500:540,500:540"))
result = reconstruct_scan(part, bundle, InferenceConfig(batch_size=16))
print(before, peak_memory(), len(part), result.metrics["r_factor"])
"""


@pytest.mark.slow
def test_sixty_gigabytes_in_two():
    """Training on a virtual scan of 60 GB and reconstructing a region of it, in a process of its own."""
    pytest.importorskip("torch")
    count, n = 60 * 10**9 // (2 * 64**2), 64
    path = os.pathsep.join([str(ROOT), str(ROOT / "shims"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(count)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    before, peak, patterns, r_factor = (float(word) for word in done.stdout.split())
    positions = 16 * count  # (row, col) of every pattern: some copies, and a tree of neighbours
    batch = 64 * n**2 * 4
    assert peak < 2e9
    assert peak - before < 6 * positions + 100 * batch + 3e8
    assert patterns > 500
    assert r_factor < 0.3
