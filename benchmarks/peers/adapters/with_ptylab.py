"""PtyLab (ptylab) on the work in an NPZ file: ePIE, or mPIE with momentum. It rounds positions to whole pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from exchange import Watch, answer, given

_PIXEL, _WAVELENGTH, _DETECTOR = 1e-6, 1e-9, 1e-4


def measurement(path: Path, work: dict[str, Any], side: int) -> None:
    """PtyLab's own file; lengths in metres, of a made-up geometry whose pixel is one micrometre."""
    size = work["probe"].shape[-1]
    with h5py.File(path, "w") as file:
        file["ptychogram"] = work["counts"]
        file["encoder"] = (work["positions"] - side // 2) * _PIXEL
        file["wavelength"], file["dxd"] = _WAVELENGTH, _DETECTOR
        file["zo"] = _PIXEL * size * _DETECTOR / _WAVELENGTH
        file["entrancePupilDiameter"] = size * _PIXEL / 2


def main() -> None:
    """Reconstruct."""
    import PtyLab
    from PtyLab import Engines

    work, watch = given(), Watch()
    side = int(max(work["shape"]) + 1) // 2 * 2
    algorithm = getattr(Engines, {"epie": "ePIE", "mpie": "mPIE"}[work["algorithm"]])
    watch.ready()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.hdf5"
        measurement(path, work, side)
        _, state, params, _, engine = PtyLab.easyInitialize(str(path), algorithm, "CPM", dummyMonitor=True)
    params.gpuSwitch, params.positionOrder, params.fftshiftSwitch = False, "random", True
    state.No = side
    state.object = np.ones((1, 1, 1, 1, side, side), np.complex64)
    state.probe = work["probe"][None, None, :, None].astype(np.complex64)
    state.npsm = len(work["probe"])
    engine.numIterations = work["epochs"]
    for _, number in engine.reconstruct_stepwise():
        if number == len(work["positions"]) - 1:
            watch.epoch()
    size = work["probe"].shape[-1]
    where = np.asarray(state.positions) + size // 2
    answer(watch, state.object[0, 0, 0, 0], (0.0, 0.0), state.probe[0, 0, :, 0], "integer", positions=where)


if __name__ == "__main__":
    main()
