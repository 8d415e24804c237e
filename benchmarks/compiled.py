"""What PyTorch's compiler makes of the network alone, whose arithmetic is real, forward and backward.

    python -m benchmarks.compiled [--device cpu] [--precision 32|bf16] [--mode default] [--batch 16] [--gridsize 2]

The rest of a training step is complex, and the compiler does not survive the gradients of that. Prints seconds to
compile (with an empty cache: set TORCHINDUCTOR_CACHE_DIR to a new folder), seconds per forward and backward pass
without and with it, and the largest relative difference of a gradient; on a CPU in CPU seconds. ``--mode
reduce-overhead`` takes CUDA graphs. Needs a C++ compiler on a CPU, and Triton on a GPU.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ptycho.backend import get_backend
from ptycho.config import ModelConfig
from ptycho.model.generators import CnnGenerator, channels
from ptycho_torch.model import native, neutral

Gradients = dict[str, torch.Tensor]


def clock(device: str) -> float:
    """Seconds: of the CPU for this process and the compiler's, or since whenever on a device that has finished."""
    if device != "cpu":
        torch.accelerator.synchronize()
        return time.perf_counter()
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def network(config: ModelConfig, batch: int, device: str, half: bool) -> Callable[[Callable], Gradients]:
    """A forward and backward pass of the cnn, given what is to be made of its function: gradients by name."""
    generator, backend, rng = CnnGenerator(), get_backend("pytorch"), np.random.default_rng(0)
    seen, answered = channels(config)
    moved = {k: v + 0.05 * rng.normal(size=v.shape).astype(np.float32) for k, v in generator.init(config, 0).items()}
    leaves = {k: native(k, v).to(device).requires_grad_() for k, v in moved.items()}

    def noise(depth: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(batch, config.N, config.N, depth)).astype(np.float32)).to(device)

    x, weights = noise(seen), (noise(answered), noise(answered))

    def answer(held: Gradients) -> Any:
        return generator.polar({k: neutral(k, v, ()) for k, v in held.items()}, x, config, backend)

    def passed(make: Callable[[Callable], Callable]) -> Gradients:
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half):
            total = sum((part * weight).sum() for part, weight in zip(make(answer)(leaves), weights, strict=True))
        found = torch.autograd.grad(total, list(leaves.values()))
        return {k: gradient.clone() for k, gradient in zip(leaves, found, strict=True)}

    return passed


def measure(passed: Callable[[Callable], Gradients], make: Callable, device: str, repeat: int) -> list[float]:
    """Seconds to compile, per pass eager and compiled in turns (medians), and the largest relative difference."""
    made: dict[str, Callable] = {}

    def compiled(f: Callable) -> Callable:
        return made.setdefault("f", make(f))

    def eager(f: Callable) -> Callable:
        return f

    expected = passed(eager)
    started = clock(device)
    found = passed(compiled)
    spent = clock(device) - started
    off = max(float((found[k] - v).norm() / v.norm()) for k, v in expected.items())
    times: dict[Callable, list[float]] = {eager: [], compiled: []}
    for _ in range(repeat):
        for way, seconds in times.items():
            started = clock(device)
            passed(way)
            seconds.append(clock(device) - started)
    return [spent, *(statistics.median(seconds) for seconds in times.values()), off]


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
    warnings.filterwarnings("ignore", ".*lru_cache.*")  # the compiler of what finds an array's namespace
    config = ModelConfig(N=64, n_filters_scale=1, gridsize=args.gridsize)
    passed = network(config, args.batch, args.device, args.precision == "bf16")
    spent, eager, compiled, off = measure(passed, lambda f: torch.compile(f, **settings), args.device, args.repeat)
    print("| device, precision, mode | to compile [s] | eager [s] | compiled [s] | largest difference of a gradient |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| {args.device}, {args.precision}, {args.mode} | {spent:.1f} | {eager:.4f} | {compiled:.4f} | {off:.1e} |")


if __name__ == "__main__":
    main()
