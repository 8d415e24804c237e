"""The scene that reconstructions are compared on: one lines object, two halves, a million photons.

The object is 392 x 392 pixels with amplitude 0.3 to 1 and phase -0.8 to 0.8 rad; 1000 training positions lie
uniformly at random in its left half and 1000 test positions in its right half, so that no pixel is seen by both.
The probe is PtychoPINN's idealised disc.

    python -m benchmarks.reference_scene OUT_DIR      writes train.npz and test.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ptycho.data.scan import Scan
from ptycho.physics.objects import lines_object
from ptycho.physics.probe import idealised_probe
from ptycho.physics.simulation import random_positions, simulate


def reference_scene(
    seed: int = 0,
    *,
    side: int = 392,
    N: int = 64,
    n_train: int = 1000,
    n_test: int = 1000,
    nphotons: float = 1e6,
    probe: np.ndarray | None = None,
) -> tuple[Scan, Scan]:
    """Training and test scan of the two halves of one lines object, with one probe.

    Parameters
    ----------
    seed : of the object, the positions and the photon noise.
    side : of the object, pixels.
    N : side of a pattern, pixels.
    n_train, n_test : positions in the left and in the right half.
    nphotons : mean expected photons per pattern over both halves.
    probe : (N, N) or (P, N, N) complex; by default PtychoPINN's idealised disc.

    Returns
    -------
    (training scan, test scan), both with the whole object and the scaled probe.
    """
    draw_object, draw_train, draw_test, draw_photons = np.random.default_rng(seed).spawn(4)
    shape = (side, side)
    left, right = ((0, side), (0, side // 2)), ((0, side), (side // 2, side))
    positions = np.concatenate(
        [
            random_positions(shape, N, n_train, draw_train, region=left),
            random_positions(shape, N, n_test, draw_test, region=right),
        ]
    )
    scan = simulate(
        lines_object(shape, draw_object),
        idealised_probe(N) if probe is None else probe,
        positions,
        nphotons,
        draw_photons,
        name=f"lines reference, seed {seed}",
    )
    return scan.subset(np.arange(n_train)), scan.subset(np.arange(n_train, n_train + n_test))


def main() -> None:
    """Write both scans as NPZ files."""
    from ptycho.data import save_npz

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="directory for train.npz and test.npz; created if absent")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, scan in zip(("train", "test"), reference_scene(arguments.seed), strict=True):
        save_npz(scan, arguments.out / f"{name}.npz")


if __name__ == "__main__":
    main()
