"""What PyTorch's compiler makes of the network, forward and backward: what ``--compile`` does to a training step.

    python -m benchmarks.compiled [--device cpu] [--precision 32|bf16] [--mode default] [--batch 16] [--gridsize 2]

The rest of a training step is complex, and the compiler does not survive the gradients of that, so it stays as it is.
Prints seconds to compile (with an empty cache: set TORCHINDUCTOR_CACHE_DIR to a new folder), seconds per forward and
backward pass without and with it, and the largest relative difference of a gradient; on a CPU in CPU seconds. ``--mode
reduce-overhead`` takes CUDA graphs. Needs a C++ compiler on a CPU, and Triton on a GPU.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ptycho.backends import get_backend
from ptycho.config import ModelConfig
from ptycho.model.generators import CnnGenerator, Generator, channels
from ptycho_torch.model import CompiledGenerator, native, neutral

Gradients = dict[str, torch.Tensor]


def clock(device: str) -> float:
    """Seconds: of the CPU for this process and the compiler's, or since whenever on a device that has finished."""
    if device != "cpu":
        torch.accelerator.synchronize()
        return time.perf_counter()
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def passes(config: ModelConfig, batch: int, device: str, half: bool) -> Callable[[Generator], Gradients]:
    """A forward and backward pass of a network with the weights of the cnn: gradients by name."""
    backend, rng = get_backend("pytorch"), np.random.default_rng(0)
    seen, answered = channels(config)
    moved = {
        k: v + 0.05 * rng.normal(size=v.shape).astype(np.float32) for k, v in CnnGenerator().init(config, 0).items()
    }
    leaves = {k: native(k, v).to(device).requires_grad_() for k, v in moved.items()}

    def noise(depth: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(batch, config.N, config.N, depth)).astype(np.float32)).to(device)

    x, weights = noise(seen), torch.complex(noise(answered), noise(answered))

    def passed(network: Generator) -> Gradients:
        held = {k: neutral(k, v, ()) for k, v in leaves.items()}
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half):
            total = (network.apply(held, x, config, backend) * weights).real.sum()
        found = torch.autograd.grad(total, list(leaves.values()))
        return {k: gradient.clone() for k, gradient in zip(leaves, found, strict=True)}

    return passed


def measure(passed: Callable[[Generator], Gradients], compiled: Generator, device: str, repeat: int) -> list[float]:
    """Seconds to compile, per pass eager and compiled in turns (medians), and the largest relative difference."""
    eager = CnnGenerator()
    expected = passed(eager)
    started = clock(device)
    found = passed(compiled)
    spent = clock(device) - started
    off = max(float((found[k] - v).norm() / v.norm()) for k, v in expected.items())
    times: list[list[float]] = [[], []]
    for _ in range(repeat):
        for network, seconds in zip((eager, compiled), times, strict=True):
            started = clock(device)
            passed(network)
            seconds.append(clock(device) - started)
    return [spent, *map(statistics.median, times), off]


def main() -> None:
    """Parse, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--mode", default="default", help="of torch.compile")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--gridsize", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=8)
    args = parser.parse_args()
    settings = {"mode": args.mode} if args.compiler == "inductor" else {"backend": args.compiler}
    config = ModelConfig(N=64, n_filters_scale=1, gridsize=args.gridsize)
    passed = passes(config, args.batch, args.device, args.precision == "bf16")
    network = CompiledGenerator(CnnGenerator(), **settings)
    spent, eager, compiled, off = measure(passed, network, args.device, args.repeat)
    print("| device, precision, mode | to compile [s] | eager [s] | compiled [s] | largest difference of a gradient |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {args.device}, {args.precision}, {args.mode} | {spent:.1f} | {eager:.4f} | {compiled:.4f} | {off:.1e} |")


if __name__ == "__main__":
    main()
