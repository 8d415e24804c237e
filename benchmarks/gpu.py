"""One command for a machine with an accelerator: whether all is right there, and how near to the card's limits.

    python -m benchmarks.gpu [--device cuda] [--backends pytorch tensorflow jax] [--precision 32|bf16] [--compile]
                             [--small]

First the parity of the device: patches, patterns, reassembly and an epoch of the engine against NumPy on the host, loss
and gradient of a training step against the same framework on the CPU; a difference above its limit ends with exit code
1. Then times on the device: bytes that must pass at least, over the rate of a copy measured there (Fourier transform,
windows), and operations of the convolutions over the best rate of a matrix product measured there (network). Training
is the real loop, batches and optimiser included, after its first epoch; ``--compile`` compiles PyTorch's network.
``--small`` makes everything small, to see that it works; ``--device cpu`` runs anywhere. Each framework has processes
of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backends import complex_normal, groups_of_noise
from ptycho.backends import Backend, available_backends, get_backend, get_trainer
from ptycho.config import EngineConfig, ModelConfig, TrainingConfig
from ptycho.engines import solve
from ptycho.model.batches import make_batch
from ptycho.model.pinn import PtychoPINN, initial_parameters, merge_window
from ptycho.physics import lines_object, raster_positions, simulate
from ptycho.physics.fourier import fft2
from ptycho.physics.patches import accumulate_patches, extract_patches
from ptycho.physics.photons import intensity_scale
from ptycho.physics.probe import idealised_probe
from ptycho.physics.propagation import diffraction_intensity
from ptycho.physics.reassembly import group_canvas_size, reassemble

LIMITS = {"patches": 1e-5, "patterns": 1e-4, "reassembly": 1e-4, "engine epoch": 1e-3, "loss": 1e-3, "gradient": 2e-2}
"""Largest relative difference in float32; the network's products may be rounded to ten bits on a card."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much work."""

    numbers: int = 1 << 26
    product: int = 8192
    patterns: int = 4096
    field: int = 2048
    groups: int = 1024
    batch: int = 64
    repeat: int = 10


_SMALL = Sizes(numbers=1 << 12, product=64, patterns=8, field=200, groups=4, batch=2, repeat=1)


class Counter:
    """A backend that adds up the operations of the convolutions that pass through it."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self.operations = backend, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def conv2d(self, x: Any, kernel: Any, bias: Any) -> Any:
        """See :class:`ptycho.backends.Backend`."""
        self.operations += 2 * int(np.prod(x.shape[:3])) * int(np.prod(kernel.shape))
        return self._backend.conv2d(x, kernel, bias)


@dataclasses.dataclass
class Network:
    """The cnn at N = 64 on groups of noise."""

    backend: Backend
    place: Any
    sizes: Sizes

    def __post_init__(self) -> None:
        self.config = ModelConfig(N=64, gridsize=2, n_filters_scale=1)
        self.container = groups_of_noise(self.config, self.sizes.groups)
        probe = idealised_probe(64)[None]
        side = group_canvas_size(self.container.relative, 64, 2)
        scale, window = intensity_scale(1e6, 64), merge_window(probe)
        self.model = PtychoPINN(self.config, self.backend, scale, side, merge_window=window)
        self.params = initial_parameters(self.config, probe, 1e6, seed=0)
        rng = np.random.default_rng(0)
        for name, values in self.params.items():  # the last layers start from zero, and would hide the others
            if name.endswith("/kernel"):
                self.params[name] = values + 0.01 * rng.normal(size=values.shape).astype(np.float32)

    def lent(self, values: dict[str, np.ndarray]) -> dict[str, Any]:
        """On the device."""
        return {name: self.backend.asarray(array, device=self.place) for name, array in values.items()}

    def batch(self) -> dict[str, Any]:
        """The first groups."""
        return self.lent(make_batch(self.container, np.arange(min(self.sizes.batch, self.sizes.groups))))

    def operations(self) -> int:
        """Of the convolutions, forward, for one batch."""
        counter = Counter(self.backend)
        counted: Any = dataclasses.replace(self.model, backend=counter)
        counted.patches(self.lent(self.params), self.batch())
        return counter.operations


def results(backend: Backend, place: Any, device: str, sizes: Sizes, learns: bool) -> dict[str, np.ndarray]:
    """What the device computes, on the host."""
    rng = np.random.default_rng(0)
    image, probe = complex_normal(rng, (160, 160)), idealised_probe(64)[None].astype(np.complex64)
    where = rng.uniform(34, 126, (32, 2)).astype(np.float32)
    lent = [backend.asarray(values, device=place) for values in (image, where, probe)]
    patches = extract_patches(lent[0], lent[1], 64)
    found = {
        "patches": patches,
        "patterns": diffraction_intensity(patches, lent[2]),
        "reassembly": reassemble(patches, lent[1], shape=(160, 160), origin=(0.0, 0.0)).object,
    }
    arrays = {name: backend.to_numpy(values) for name, values in found.items()}
    scan = simulate(
        lines_object((100, 100), 2), idealised_probe(64), raster_positions((100, 100), 64, 5.0), 1e5, seed=1
    )
    config = EngineConfig(epochs=1, full_batch_epochs=0, backend=backend.name, device=device)
    arrays["engine epoch"] = solve(scan, config).object
    if learns:
        network = Network(backend, place, dataclasses.replace(sizes, groups=4, batch=4))
        training = TrainingConfig(model=network.config)
        slope = backend.jit(backend.value_and_grad(lambda w, b: network.model.loss(w, b, training)[0]))
        loss, gradient = slope(network.lent(network.params), network.batch())
        arrays["loss"] = backend.to_numpy(loss)
        arrays["gradient"] = np.concatenate([backend.to_numpy(gradient[k]).ravel() for k in sorted(gradient)])
    return arrays


def seconds(backend: Backend, call: Callable[[], Any], repeat: int) -> float:
    """Median time of a call after two that compile and warm up, until its result is there."""
    times = []
    for _ in range(2 + repeat):
        began = time.perf_counter()
        result = call()
        backend.to_numpy(result[(0,) * result.ndim])  # waits for what was started
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def rates(backend: Backend, place: Any, sizes: Sizes) -> dict[str, float]:
    """Bytes per second of a copy on the device, operations per second of a matrix product by precision."""
    numbers = backend.asarray(np.zeros(sizes.numbers, np.float32), device=place)
    copy = backend.jit(lambda a: a + 1.0)
    found = {"copy": 8.0 * sizes.numbers / seconds(backend, lambda: copy(numbers), sizes.repeat)}
    product = backend.jit(lambda a: a @ a)
    for precision, kind in {"32": "float32", "bf16": "bfloat16"}.items():
        square = backend.asarray(np.ones((sizes.product, sizes.product), np.float32), dtype=kind, device=place)
        took = seconds(backend, lambda square=square: product(square), sizes.repeat)
        found[precision] = 2.0 * sizes.product**3 / took
    return found


def streams(backend: Backend, place: Any, sizes: Sizes) -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """Name, bytes that must be read and written at least, and the work."""
    rng = np.random.default_rng(0)
    for size in (64, 128):
        count = max(2, sizes.patterns * 64**2 // size**2)
        stack = backend.asarray(complex_normal(rng, (count, size, size)), device=place)
        probe = backend.asarray(idealised_probe(size)[None].astype(np.complex64), device=place)
        transform, forward = backend.jit(fft2), backend.jit(diffraction_intensity)
        pixels, name = count * size**2, f"{count} of {size} x {size}"
        yield f"fft, {name}", 16.0 * pixels, lambda f=transform, s=stack: f(s)
        yield f"patterns, {name}", 12.0 * pixels, lambda f=forward, s=stack, p=probe: f(s, p)
    shape = (sizes.field, sizes.field)
    places = rng.uniform(33, sizes.field - 34, (sizes.patterns, 2)).astype(np.float32)
    image, where, patches = (
        backend.asarray(values, device=place)
        for values in (complex_normal(rng, shape), places, complex_normal(rng, (sizes.patterns, 64, 64)))
    )
    gather = backend.jit(lambda a, p: extract_patches(a, p, 64))
    scatter = backend.jit(lambda a, p: accumulate_patches(a, p, shape))
    least = 8.0 * sizes.patterns * 64**2
    yield f"gather, {sizes.patterns} of 64 x 64", least, lambda: gather(image, where)
    yield f"scatter, {sizes.patterns} of 64 x 64", least, lambda: scatter(patches, where)


def trained(network: Network, **settings: Any) -> float:
    """Seconds of a batch in the real training loop, after the first epoch, with these settings of the training."""
    ends: list[float] = []
    sizes = network.sizes
    config = TrainingConfig(model=network.config, nepochs=3, batch_size=sizes.batch, checkpoint=False, **settings)
    told = [lambda epoch, of, metrics: ends.append(time.perf_counter())]
    get_trainer(network.backend.name)(config, told).fit(network.model, network.params, network.container)
    return (ends[-1] - ends[0]) / (len(ends) - 1) / (-(-sizes.groups // sizes.batch))


def figures(backend: Backend, place: Any, sizes: Sizes, **settings: Any) -> Iterator[str]:
    """Rows of the table; the settings are the training's."""
    limit = rates(backend, place, sizes)
    yield f"limit: copy | - | {limit['copy'] / 1e9:.3g} GB/s | 1"
    for kind in ("32", "bf16"):
        yield f"limit: matrix product, {kind} | - | {limit[kind] / 1e12:.3g} TFLOP/s | 1"
    for name, least, work in streams(backend, place, sizes):
        took = seconds(backend, work, sizes.repeat)
        yield f"{name} | {took * 1e3:.3g} ms | {least / took / 1e9:.3g} GB/s | {least / took / limit['copy']:.2g}"
    network = Network(backend, place, sizes)
    operations, params, batch = network.operations(), network.lent(network.params), network.batch()
    patterns = batch["X"].shape[0] * batch["X"].shape[-1]
    infer = backend.jit(network.model.patches)
    took = seconds(backend, lambda: infer(params, batch), sizes.repeat)
    rate = operations / took
    shown = f"{took / patterns * 1e6:.3g} us | {rate / 1e12:.3g} TFLOP/s | {rate / limit['32']:.2g}"
    yield f"inference, 32, a pattern | {shown}"
    took, precision = trained(network, **settings), settings["precision"]
    rate = 3 * operations / took  # the backward pass does the forward's work twice
    shown = f"{took / patterns * 1e6:.3g} us | {rate / 1e12:.3g} TFLOP/s | {rate / limit[precision]:.2g}"
    yield f"training, {precision}, a pattern | {shown}"


def child(args: argparse.Namespace) -> None:
    """In a process of one framework: write what is computed, or print the rows."""
    backend, sizes = get_backend(args.backends[0]), _SMALL if args.small else Sizes()
    place = backend.best_device() if args.device == "auto" else args.device
    if args.write is not None:
        np.savez(args.write, **results(backend, place, args.device, sizes, backend.name != "numpy"))
        return
    settings = {"device": args.device, "precision": args.precision, "compile": args.compile}
    for line in figures(backend, place, sizes, **settings):
        print(f"| {line} |", flush=True)


def run(name: str, args: argparse.Namespace, device: str, write: Path | None = None) -> None:
    """A process of one framework; only on the host it does not see any card."""
    words = ["--in-this-process", "--backends", name, "--device", device, "--precision", args.precision]
    words += ["--compile"] * args.compile + ["--small"] * args.small
    words += [] if write is None else ["--write", str(write)]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    subprocess.run(command, env=os.environ | hidden, check=True)


def parity(name: str, args: argparse.Namespace, host: dict[str, np.ndarray], folder: Path) -> list[str]:
    """Print the differences of one framework; the names of those that are too large."""
    run(name, args, args.device, folder / "there.npz")
    run(name, args, "cpu", folder / "here.npz")
    bad = []
    with np.load(folder / "there.npz") as there, np.load(folder / "here.npz") as here:
        for what, limit in LIMITS.items():
            expected, found = host.get(what, here[what]), there[what]
            difference = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
            good = difference <= limit
            bad += [] if good else [f"{name}: {what}"]
            print(f"| {name}, {what} | {difference:.1e} | {limit:.0e} | {'yes' if good else 'NO'} |", flush=True)
    return bad


def card() -> str:
    """The first card by its name, as far as the driver's tool tells."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA card"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return told[0] if told else "no NVIDIA card"


def main() -> None:
    """Parity, then times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--backends", nargs="+", default=[n for n in available_backends() if n != "numpy"])
    parser.add_argument("--precision", default="32", choices=("32", "bf16"), help="of the network in the training")
    parser.add_argument("--compile", action="store_true", help="the network in the training")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_this_process:
        child(args)
        return
    print(f"device {args.device}; {card()}\n\n| parity | difference | limit | good |\n| --- | --- | --- | --- |")
    host, bad = results(get_backend("numpy"), None, "cpu", _SMALL, learns=False), []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.backends:
            bad += parity(name, args, host, Path(folder))
    for name in args.backends:
        print(f"\n| {name} | time | rate | of the limit |\n| --- | --- | --- | --- |", flush=True)
        run(name, args, args.device)
    if bad:
        sys.exit(f"Not as on the host: {', '.join(bad)}.")


if __name__ == "__main__":
    main()
