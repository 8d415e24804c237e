"""The reference simulation: train on one half of an object, reconstruct the other half, compare with the truth.

    python -m benchmarks.reference [--gridsize 1] [--passes 20|0|none] [--epochs 20] [--seed 0] [--picture FILE.png]

Prints one line per run: structural similarity and peak signal-to-noise of amplitude and phase, rings of the Fourier
ring correlation above 0.5, seconds of training and of reconstruction, and the same figures of the physics estimate
alone, so that what the network adds can be seen.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.reference_scene import reference_scene
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.evaluation import evaluate
from ptycho.workflows.reconstruct import stitch
from ptycho.workflows.train import train


def figures(result: object, truth: object) -> str:
    """SSIM, PSNR and FRC of a reconstruction in one line."""
    found = evaluate(result, truth)
    return (
        f"SSIM {found['ssim_amplitude']:.3f}/{found['ssim_phase']:.3f}  "
        f"PSNR {found['psnr_amplitude']:.1f}/{found['psnr_phase']:.1f} dB  "
        f"FRC(0.5) {found['frc_rings_0.5_amplitude']:.0f}/{found['frc_rings_0.5_phase']:.0f} "
        f"of {found['frc_n_rings']:.0f} rings"
    )


def main() -> None:
    """Parse, train, reconstruct, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gridsize", type=int, default=1)
    parser.add_argument("--passes", default="20", help="start_iterations, or none")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="PNG of amplitude and phase beside the truth")
    args = parser.parse_args()
    passes = None if args.passes == "none" else int(args.passes)
    training, testing = reference_scene(seed=args.seed)
    config = TrainingConfig(
        model=ModelConfig(N=64, gridsize=args.gridsize, n_filters_scale=1, start_iterations=passes),
        nepochs=args.epochs,
        n_groups=512,
        batch_size=16,
        seed=args.seed,
    )
    began = time.perf_counter()
    bundle = train(training, config)
    trained = time.perf_counter()
    result = stitch(testing, bundle)
    done = time.perf_counter()
    print(f"gridsize {args.gridsize}, passes {args.passes}, {args.epochs} epochs, seed {args.seed}")
    print(f"  network   {figures(result, testing)}  train {trained - began:.1f} s, reconstruct {done - trained:.1f} s")
    if result.estimate is not None:
        print(f"  estimate  {figures(result.estimate, testing)}")
    if args.picture:
        save_picture(args.picture, result, testing)


def save_picture(path: str, result: object, truth: object) -> None:
    """Amplitude and phase, reconstructed above true, on the same field."""
    import numpy as np
    from matplotlib.figure import Figure

    origin = np.round(np.asarray(result.origin) - np.asarray(truth.object_origin)).astype(int)
    height, width = result.object.shape
    true = truth.object[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
    turn = np.vdot(result.object * (result.weight > 0.1 * result.weight.max()), true)  # the global phase is free
    figure = Figure(figsize=(10, 12), layout="constrained")
    for row, image in enumerate((result.object * turn / abs(turn), true)):
        for column, values in enumerate((np.abs(image), np.angle(image))):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            axes.imshow(values, cmap="gray", vmin=(0.0, -1.2)[column], vmax=(1.3, 1.2)[column])
            axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    main()
