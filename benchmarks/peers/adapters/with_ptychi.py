"""Pty-Chi (ptychi) on the work in an NPZ file: rPIE, LSQ-ML, or gradients by PyTorch's differentiation."""

from __future__ import annotations

from typing import Any

import numpy as np
from exchange import Watch, allow_torchvision, answer, given


def settings(algorithm: str, api: Any) -> Any:
    """Options of an algorithm, its step lengths and batches."""
    if algorithm == "rpie":
        options = api.RPIEOptions()
        options.object_options.alpha = options.probe_options.alpha = 0.5
        options.reconstructor_options.batch_size = 16
    elif algorithm == "lsqml":
        options = api.LSQMLOptions()
        options.reconstructor_options.batch_size = 32
        options.reconstructor_options.noise_model = api.NoiseModels.GAUSSIAN
    else:
        options = api.AutodiffPtychographyOptions()
        options.reconstructor_options.batch_size = 32
        for part, step in ((options.object_options, 0.005), (options.probe_options, 0.005)):
            part.optimizer, part.step_size = api.Optimizers.ADAM, step
    return options


def main() -> None:
    """Reconstruct."""
    allow_torchvision()
    import ptychi.api as api
    from ptychi.api.task import PtychographyTask

    work, watch = given(), Watch()
    options = settings(work["algorithm"], api)
    shape = np.asarray(work["shape"])
    centre = np.round(shape / 2)
    options.data_options.data = work["counts"]
    options.reconstructor_options.num_epochs = work["epochs"]
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.random_seed = work["seed"]
    options.object_options.initial_guess = np.ones((1, *shape), np.complex64)
    # Pty-Chi's transform is not unitary
    options.probe_options.initial_guess = work["probe"][None] / work["probe"].shape[-1]
    options.probe_position_options.position_y_px = work["positions"][:, 0] - centre[0]
    options.probe_position_options.position_x_px = work["positions"][:, 1] - centre[1]
    watch.ready()
    with PtychographyTask(options) as task:
        for _ in range(work["epochs"]):
            task.run(1)
            watch.epoch()
        image = task.get_data_to_cpu("object", as_numpy=True)[0]
        probe = task.get_data_to_cpu("probe", as_numpy=True)[0]
    answer(watch, image, (0.0, 0.0), probe, "patch")


if __name__ == "__main__":
    main()
