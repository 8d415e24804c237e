"""PtyRAD (ptyrad) on the work in an NPZ file: Adam through its forward model, amplitude noise."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
from exchange import Watch, allow_torchvision, answer, given

_STEPS = {"obja": 5e-3, "objp": 5e-3, "probe": 5e-3, "probe_pos_shifts": 0.0, "obj_tilts": 0.0, "slice_thickness": 0.0}
_BATCH = 32


def leave_out_plots() -> None:
    """PtyRAD 1.0.0 runs on Python 3.11, as it says, but for a file of its plots: nothing is drawn there."""
    if sys.version_info >= (3, 12):
        return
    for name in ("basic", "model"):
        empty = types.ModuleType(f"ptyrad.plotting.{name}")
        empty.__dict__.update(plot_pos_grouping=_nothing, plot_summary=_nothing)
        sys.modules[empty.__name__] = empty


def _nothing(*_: Any, **__: Any) -> None:
    """No plot."""


def main() -> None:
    """Reconstruct."""
    allow_torchvision()
    leave_out_plots()
    from ptyrad.params.ptyrad_params import PtyRADParams
    from ptyrad.solver import PtyRADSolver, reconstruction

    work, watch = given(), Watch()
    counts, size = work["counts"], work["probe"].shape[-1]
    init = {
        # of the beam only the pixel counts here, and it is given
        "probe_kv": 80.0, "probe_conv_angle": 20.0, "meas_calibration": {"mode": "dx", "value": 1.0},
        "meas_Npix": size, "pos_N_scan_slow": len(counts), "pos_N_scan_fast": 1, "pos_scan_step_size": 1.0,
        "probe_pmode_max": len(work["probe"]), "obj_Nlayer": 1, "obj_slice_thickness": 1.0,
        "meas_source": "custom", "meas_params": counts,
        "probe_source": "custom", "probe_params": work["probe"],
        "pos_source": "custom", "pos_params": work["positions"] - size // 2,
        "obj_source": "custom", "obj_params": np.ones((1, 1, *work["shape"]), np.complex64),
    }  # fmt: skip
    params = PtyRADParams(
        init_params=init,
        model_params={"update_params": {k: {"start_iter": 1 if lr else None, "lr": lr} for k, lr in _STEPS.items()}},
        loss_params={"loss_single": {"state": True, "weight": 1.0, "dp_pow": 0.5}},
        constraint_params={},
        recon_params={"NITER": work["epochs"], "BATCH_SIZE": {"size": _BATCH, "grad_accumulation": 1},
                      "SAVE_ITERS": None, "output_dir": "", "copy_params": False},
    ).model_dump()  # fmt: skip
    reconstruction.recon_step = watch.around(reconstruction.recon_step)
    watch.ready()
    solver = PtyRADSolver(params, device="cpu", seed=work["seed"])
    solver.run()
    model = solver.reconstruct_results
    image = (model.opt_obja * np.e ** (1j * model.opt_objp)).detach().numpy()[0, 0]
    answer(watch, image, (0.0, 0.0), model.get_complex_probe_view().detach().numpy(), "probe")


if __name__ == "__main__":
    main()
