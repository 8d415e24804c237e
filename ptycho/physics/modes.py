"""Incoherent modes of a partly coherent probe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from ptycho.errors import DataError

__all__ = ["probe_modes"]


def probe_modes(
    probe: np.ndarray, n: int, fractions: Sequence[float] | None = None, dtype: DTypeLike | None = None
) -> np.ndarray:
    r"""Orthogonal modes of a partly coherent beam around one coherent probe.

    Mode k is the probe times the k-th monomial in (row, col), made orthogonal to the modes before it (as
    Hermite-Gauss modes are made); so the first mode is the probe itself.

    Parameters
    ----------
    probe : (N, N) complex.
    n : number of modes.
    fractions : part of the total power in each mode; made to sum to 1. By default each holds a quarter of the
        previous one's power.
    dtype : complex dtype of the result; by default the probe's.

    Returns
    -------
    (n, N, N) complex, mutually orthogonal, with the total power of ``probe``.

    Raises
    ------
    DataError
        The probe is not one finite, non-zero mode; ``n`` < 1 or more than a probe of this size can carry; or the
        fractions are negative, all zero or of wrong number.
    """
    wave = np.asarray(probe)
    if wave.ndim == 3 and wave.shape[0] == 1:
        wave = wave[0]
    if wave.ndim != 2 or wave.shape[0] != wave.shape[1]:
        raise DataError(f"probe: got shape {np.shape(probe)}; expected one mode, (N, N).")
    power = float((np.abs(wave.astype(np.complex128)) ** 2).sum())
    if not 0 < power < math.inf:
        raise DataError("probe: is zero or not finite; expected a wave that holds light.")
    if not 1 <= n <= wave.size:
        raise DataError(f"n: got {n}; expected the number of modes, from 1.")
    parts = 0.25 ** np.arange(n) if fractions is None else np.asarray(fractions, dtype=np.float64)
    if parts.shape != (n,) or not (np.isfinite(parts).all() and (parts >= 0).all() and parts.sum() > 0):
        raise DataError(f"fractions: got {fractions}; expected {n} numbers from 0 that do not all vanish.")
    size = wave.shape[0]
    axis = (np.arange(size) - size // 2) / (size / 2)
    degrees = [(total - k, k) for total in range(n) for k in range(total + 1)][:n]
    trials = np.stack([(axis[:, None] ** row * axis[None, :] ** col * wave).ravel() for row, col in degrees], axis=-1)
    basis, triangle = np.linalg.qr(trials.astype(np.complex128))
    diagonal = np.diagonal(triangle)
    independent = int(np.count_nonzero(np.abs(diagonal) > 1e-12 * np.abs(diagonal[0])))
    if independent < n:
        raise DataError(f"n: got {n} modes, but a probe of this size carries only {independent}; choose fewer modes.")
    basis = basis * (diagonal / np.abs(diagonal))  # QR leaves the sign open: the first mode is +probe
    return (basis.T.reshape(n, size, size) * np.sqrt(power * parts / parts.sum())[:, None, None]).astype(
        wave.dtype if dtype is None else dtype
    )
