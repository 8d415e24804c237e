"""phaser (phaserem) on the work in an NPZ file: its conventional engine, ePIE or LSQ-ML, on JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
from exchange import Watch, answer, given

_SETTINGS: dict[str, dict[str, Any]] = {
    "epie": {"type": "epie", "beta_object": 0.5, "beta_probe": 0.5},
    "lsqml": {"type": "lsqml", "beta_object": 0.5, "beta_probe": 0.5},
}
_GROUPING = 16


def raw(_: Any, props: Any) -> dict[str, Any]:
    """What phaser's own file readers give; its patterns have the zero frequency in the corner."""
    from phaser.utils.num import Sampling

    work = given()
    counts = np.fft.ifftshift(work["counts"], axes=(-2, -1))
    sampling = Sampling(counts.shape[-2:], sampling=(1.0, 1.0))
    mask = np.ones(counts.shape[-2:], np.float32)
    return {"patterns": counts, "mask": mask, "sampling": sampling, "wavelength": 1.0}


def main() -> None:
    """Reconstruct."""
    import pane
    from phaser.execute import execute_engine, initialize_reconstruction
    from phaser.observer import Observer
    from phaser.plan import ReconsPlan
    from phaser.state import IterState, PixelatedObjectState, PixelatedProbeState, ReconsState, ScanState
    from phaser.utils.num import Sampling
    from phaser.utils.object import ObjectSampling

    work, watch = given(), Watch()
    size = work["probe"].shape[-1]
    engine = {
        "type": "conventional",
        "niter": work["epochs"],
        "grouping": _GROUPING,
        "probe_modes": len(work["probe"]),
        "noise_model": {"type": "amplitude"},
        "solver": _SETTINGS[work["algorithm"]],
        "group_constraints": [],
        "iter_constraints": [],
        "buffer_n_groups": None,
        "calc_error_fraction": 0.0,
    }
    plan = pane.from_data(
        {"name": "work", "backend": "jax", "raw_data": {"type": "__main__:raw"}, "engines": [engine]}, ReconsPlan
    )

    class Told(Observer):
        def update_iteration(self, state: Any, i: int, n: int, errors: Any) -> None:
            watch.epoch()

    # phaser counts from the middle between the pixels (N - 1)/2 of a cut-out, the work from its pixel N//2
    places = (work["positions"] - 0.5).astype(np.float32)
    state = ReconsState(
        iter=IterState.empty(),
        wavelength=1.0,
        probe=PixelatedProbeState(Sampling((size, size), sampling=(1.0, 1.0)), work["probe"]),
        object=PixelatedObjectState(
            ObjectSampling(tuple(work["shape"]), (1.0, 1.0), (0.0, 0.0)),
            np.ones((1, *work["shape"]), np.complex64),
            np.array([], np.float32),
        ),
        scan=ScanState(places, places),
    )
    watch.ready()
    ready = initialize_reconstruction(plan, seed=work["seed"], init_state=state, override_observers=Told())
    done = execute_engine(ready, plan.engines[0]).state.to_numpy()
    corner = np.asarray(done.object.sampling.corner)
    answer(watch, done.object.data[0], corner, done.probe.data, "probe")


if __name__ == "__main__":
    main()
