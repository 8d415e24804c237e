"""What object, probe and positions predict: the forward model of the engines, on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptycho.config.engines import EngineSettings
from ptycho.data import Scan
from ptycho.engines.exit_waves import slice_illuminations
from ptycho.engines.object_canvas import make_canvas, slices_of
from ptycho.engines.propagator import make_propagator
from ptycho.engines.state import State
from ptycho.physics.fourier import fftshift2
from ptycho.physics.propagation import intensity

__all__ = ["predictor"]


def predictor(state: State, scan: Scan, config: EngineSettings) -> Callable[[np.ndarray | slice], np.ndarray]:
    """A function from some patterns to the amplitudes (k, N, N) that a state predicts for them, sqrt(photons).

    Parameters
    ----------
    state : of an engine.
    scan : what was measured; of the near field, and of slices, its lengths are read.
    config : how the engine propagates and reads the object.

    Raises
    ------
    ConfigError
        The scan does not say what its propagation, or that between slices, needs.
    """
    size = state.probe.shape[-1]
    kind = np.result_type(state.object, np.complex64)
    canvas = make_canvas(state.object.astype(kind), size, str(np.empty(0, kind).real.dtype), config.interpolation)
    propagator = make_propagator(scan, config, np.asarray, len(canvas.slices), state.spacing)

    def predicted(index: np.ndarray | slice) -> np.ndarray:
        slices = slices_of(canvas.patches(state.positions[index] - np.asarray(state.origin), size), 3)
        waves = slice_illuminations(slices, state.probes(index), propagator)
        field = propagator.forward(slices[-1][:, None, :, :] * waves[-1])
        return fftshift2(np.sqrt(np.sum(intensity(field), axis=1)))

    return predicted
