"""PtychoPINN's name for setting the probe that outside callers read from the settings dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.backends import to_numpy
from ptycho.config.published import cfg
from ptycho.errors import DataError
from ptycho.physics import normalise_probe, probe_from_patterns

__all__ = ["set_probe_guess"]


def set_probe_guess(X_train: Any = None, probe_guess: Any = None) -> NDArray[np.complexfloating]:
    """Put a normalised probe under ``"probe"`` into ``ptycho.params.cfg``.

    Parameters
    ----------
    X_train
        (B, N, N, C) normalised amplitudes, from which the probe is estimated where none is given; any framework.
    probe_guess
        (N, N), (N, N, 1) or (P, N, N) complex, any framework.

    Returns
    -------
    (N, N, 1) or (P, N, N, 1) complex
        The probe as given or estimated, before it is normalised. A model has its own probe and does not read this one.

    Raises
    ------
    DataError
        Neither is given, or the probe is not of this shape, or dark.
    """
    if probe_guess is None and X_train is None:
        raise DataError("Neither X_train nor probe_guess is given: one of them is needed for a probe.")
    if probe_guess is None:
        amplitudes = np.moveaxis(to_numpy(X_train), -1, 1)
        probe = probe_from_patterns(amplitudes.reshape(-1, *amplitudes.shape[-2:]), measurement="amplitude")
    else:
        probe = np.asarray(to_numpy(probe_guess))
        probe = probe[..., 0] if probe.ndim == 3 and probe.shape[-1] == 1 else probe
        probe = probe.astype(np.result_type(probe.dtype, np.complex64))
    cfg["probe"] = normalise_probe(probe, cfg["probe_scale"])[..., None]
    return probe[..., None]
