"""ptycho on the work in an NPZ file, as its peers get it."""

from __future__ import annotations

from exchange import Watch, answer, given


def main() -> None:
    """Reconstruct."""
    from ptycho.config import EngineConfig
    from ptycho.data import Scan
    from ptycho.engines import solve

    work, watch = given(), Watch()
    scan = Scan(work["counts"], "counts", work["positions"], work["probe"])
    config = EngineConfig(engine=work["algorithm"], epochs=work["epochs"], seed=work["seed"])
    watch.ready()
    state = solve(scan, config, callbacks=[watch.epoch])
    answer(watch, state.object, state.origin, state.probe, "bilinear", own=state.history["r_factor"][-1])


if __name__ == "__main__":
    main()
