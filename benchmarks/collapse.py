"""Whether the bare cnn collapses to a flat picture on 128 x 128 patterns, and what makes it.

    python -m benchmarks.collapse [--start glorot|kaiming] [--gate] [--epochs 10] [--seeds 3] [--photons 1.77e6]
                                  [--picture FILE.png]

The network sees nothing but the patterns (``start_iterations none``) and learns by the Poisson likelihood. Per seed one
line: the likelihood, the correlation of the stitched amplitude and phase with the truth, their spread (0 is a flat
picture), and per stage of the encoder the part of its outputs that are zero and the coefficient of variation between
patterns (0: every pattern gives the same answer). ``--start kaiming`` and ``--gate`` (a squeeze-and-excite gate after
every stage) are what PtychoPINN's PyTorch network has and this library's has not.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.reference_scene import reference_scene
from ptycho.backends import Array, Backend, get_backend
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.data import make_container
from ptycho.evaluation import register
from ptycho.model.generators import CnnGenerator, complex_from_polar
from ptycho.model.network import decode, encode
from ptycho.workflows.reconstruct import reconstruct
from ptycho.workflows.train import train


class Variant(CnnGenerator):
    """The cnn with another start of its weights, or with a gate after every encoder stage."""

    def __init__(self, start: str, gate: bool) -> None:
        self.start, self.gate = start, gate

    def init(self, config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
        """Glorot kernels and zero biases, or what PyTorch's layers start with."""
        params = super().init(config, seed)
        rng = np.random.default_rng([seed, 1])
        if self.start == "kaiming":
            for name in [n for n in params if n.endswith("/kernel")]:
                limit = float(np.prod(params[name].shape[:3])) ** -0.5
                params[name] = rng.uniform(-limit, limit, params[name].shape)
                bias = name.replace("/kernel", "/bias")
                params[bias] = rng.uniform(-limit, limit, params[bias].shape)
        for i in range(stages(params) if self.gate else 0):
            width = params[f"encoder/block{i}/conv1/bias"].shape[0]
            inner = max(1, width // 8)
            params[f"gate{i}/squeeze"] = rng.uniform(-1, 1, (width, inner)) * width**-0.5
            params[f"gate{i}/excite"] = rng.uniform(-1, 1, (inner, width)) * inner**-0.5
        return params

    def apply(self, params: dict[str, Array], x: Array, config: ModelConfig, backend: Backend) -> Array:
        """Encoder stage by stage, gated where asked, then the two decoders."""
        xp = backend.xp
        for i in range(stages(params)):
            x = encode(stage(params, i), x, backend)
            if self.gate:
                seen = [xp.mean(x, axis=(1, 2)), xp.max(xp.max(x, axis=2), axis=1)]
                logits = sum(
                    xp.clip(s @ params[f"gate{i}/squeeze"], 0.0, None) @ params[f"gate{i}/excite"] for s in seen
                )
                x = x * (0.5 * (1.0 + xp.tanh(0.5 * logits)))[:, None, None, :]
        amplitude = decode(params, x, "amplitude", backend, config.amp_activation)
        phase = decode(params, x, "phase", backend, "phase")
        return complex_from_polar(xp, amplitude, phase)


def stages(params: dict[str, Any]) -> int:
    """Stages of the encoder."""
    return sum(name.startswith("encoder/") and name.endswith("conv0/kernel") for name in params)


def stage(params: dict[str, Any], i: int) -> dict[str, Any]:
    """Parameters of one encoder stage, as an encoder of its own."""
    own = f"encoder/block{i}/"
    return {"encoder/block0/" + name.removeprefix(own): v for name, v in params.items() if name.startswith(own)}


def anatomy(bundle: Any, scan: Any, count: int = 32) -> str:
    """Zeros and variation between patterns after every stage, without gates."""
    backend = get_backend("numpy")
    container = make_container(scan, 1, count)
    x = (container.X * bundle.intensity_scale * np.exp(-bundle.params["log_scale"])).astype(np.float32)
    found = []
    for i in range(stages(bundle.params)):
        x = encode(stage(bundle.params, i), x, backend)
        variation = float(x.std(axis=0).mean() / (x.mean() + 1e-30))
        found.append(f"{float((x == 0).mean()):.2f}/{variation:.2f}")
    return "  ".join(found)


def figures(result: Any, scan: Any) -> str:
    """Correlation with the truth and spread, amplitude and phase, where the probe's light fell."""
    origin = np.round(np.asarray(result.origin) - np.asarray(scan.object_origin)).astype(int)
    height, width = result.object.shape
    truth = scan.object[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
    lit = result.weight > 0.1 * result.weight.max()
    aligned, _ = register(result.object, truth, lit)
    words = []
    for name, of in (("amplitude", np.abs), ("phase", np.angle)):
        ours, true = of(aligned)[lit], of(truth)[lit]
        words.append(f"{name} r {np.corrcoef(ours, true)[0, 1]:.2f} spread {ours.std():.3f}")
    return ", ".join(words)


def main() -> None:
    """Parse, train every seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", choices=("glorot", "kaiming"), default="glorot")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photons", type=float, default=1.77e6)
    parser.add_argument("--picture", help="PNG of amplitude and phase of the last seed beside the truth")
    args = parser.parse_args()
    network = Variant(args.start, args.gate)
    scan, _ = reference_scene(N=128, n_train=512, n_test=1, nphotons=args.photons)
    model = ModelConfig(N=128, n_filters_scale=1, start_iterations=None)
    print(f"start {args.start}, {'gated' if args.gate else 'no gate'}, {args.epochs} epochs, {args.photons:g} photons")
    for seed in range(args.seeds):
        began = time.perf_counter()
        config = TrainingConfig(model=model, nepochs=args.epochs, seed=seed, refine_probe=False)
        bundle = train(scan, config, generator=network)
        result = reconstruct(scan, bundle, generator=network)
        print(
            f"  seed {seed}: loss {bundle.history['loss'][-1]:.3f}; {figures(result, scan)}; "
            f"zeros/variation {anatomy(bundle, scan)}; {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    if args.picture:
        from benchmarks.reference import save_picture

        save_picture(args.picture, result, scan)


if __name__ == "__main__":
    main()
