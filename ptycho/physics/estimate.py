r"""An object from a scan by plain physics: where the network starts from.

One pattern cannot tell an object from its twin image, and a network that sees only detector pixels has to learn the
Fourier transform before it learns anything else. So the network is given what the physics already knows: the object
estimate at each position, and the change that the pattern asks for,

.. math:: \Delta O = \frac{\sum_p P_p^* (\psi'_p - \psi_p)}{\sum_p |P_p|^2 + \alpha \max_r \sum_p |P_p|^2},
          \qquad \psi'_p = D^{-1}\left[\frac{\sqrt{I}}{\sqrt{\sum_q |D\psi_q|^2}}\, D\psi_p\right],

the object update of the extended ptychographical iterative engine with all positions in parallel. Sources: Maiden,
Rodenburg, Ultramicroscopy 109, 1256 (2009); Thibault, Menzel, Nature 494, 68 (2013) for the modes; Nesterov momentum as
in Maiden, Johnson, Li, Optica 4, 736 (2017).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ptycho.backend import Array, NumpyBackend, array_namespace
from ptycho.physics.fourier import fft2, ifft2, ifftshift2
from ptycho.physics.patches import extract_patches, spread_patches
from ptycho.physics.propagation import illuminate, intensity
from ptycho.physics.reassembly import canvas_for

__all__ = ["Estimate", "estimate_object", "modulus_update", "wave_change"]

_host = NumpyBackend.xp


def modulus_update(
    patches: Array, probe: Array, amplitude: Array, mask: Array | None = None, damping: float = 0.05
) -> Array:
    r"""Change of the object patches that would bring the predicted amplitude to the measured one.

    Parameters
    ----------
    patches : (..., N, N) complex, the current object patches.
    probe : (P, N, N) complex, sqrt(photons).
    amplitude : (..., N, N) real, measured, sqrt(counts), zero frequency at the centre.
    mask : (N, N) real or bool, 1 on good detector pixels; elsewhere the prediction is kept.
    damping : :math:`\alpha`; where the probe is weaker than this part of its peak the change fades out.

    Returns
    -------
    (..., N, N) complex, dimensionless. No gradient is meant to pass through it, though one would.
    """
    xp = array_namespace(patches, probe, amplitude)
    power = xp.sum(intensity(probe), axis=0)
    difference = wave_change(patches, probe, amplitude, mask)
    numerator = xp.sum(xp.conj(probe) * difference, axis=-3)
    return numerator / xp.astype(power + damping * xp.max(power), numerator.dtype)


def wave_change(patches: Array, probe: Array, amplitude: Array, mask: Array | None = None) -> Array:
    """Change of the exit waves, (..., P, N, N), that brings the predicted amplitude to the measured one.

    Parameters
    ----------
    patches, probe, amplitude, mask : as for :func:`modulus_update`.
    """
    xp = array_namespace(patches, probe, amplitude)
    field = fft2(illuminate(patches, probe))
    predicted = xp.sqrt(xp.sum(intensity(field), axis=-3))
    measured = ifftshift2(amplitude)
    if mask is not None:  # what a bad pixel shows must not count, not even as NaN
        good = xp.astype(ifftshift2(xp.astype(mask, measured.dtype)), xp.bool)
        measured = xp.where(good, measured, xp.zeros_like(measured))
    # of each pattern on its own, so that the result does not depend on what else is in the batch
    tiny = 1e-6 * xp.max(measured, axis=(-2, -1), keepdims=True) + 1e-30
    # times (ratio - 1): the difference of the waves in one inverse transform
    change = measured / (predicted + tiny) - 1.0
    if mask is not None:
        change = xp.where(good, change, xp.zeros_like(change))
    return ifft2(field * xp.astype(change[..., None, :, :], field.dtype))


class Estimate(NamedTuple):
    """What plain physics makes of a scan."""

    object: np.ndarray
    """(H, W) complex64, dimensionless."""
    weight: np.ndarray
    """(H, W) float32, the summed probe intensity."""
    origin: tuple[float, float]
    """Position (row, col) of pixel [0, 0]."""
    probe: np.ndarray
    """(P, N, N) complex64, sqrt(photons); refined where that was asked for."""


def estimate_object(
    amplitude: Callable[[np.ndarray], np.ndarray],
    positions: np.ndarray,
    probe: np.ndarray,
    passes: int,
    *,
    mask: np.ndarray | None = None,
    start: float = 1.0,
    momentum: float = 0.5,
    refine_probe: bool = False,
    chunk: int = 128,
    on_pass: Callable[[int, int], None] | None = None,
) -> Estimate:
    """Object of a scan after some passes of parallel updates from a flat one, on the host.

    Parameters
    ----------
    amplitude : from pattern indices (k,) to their measured amplitudes (k, N, N), sqrt(counts).
    positions : (M, 2) float, (row, col) of the patch centres in pixels.
    probe : (P, N, N) complex, sqrt(photons).
    passes : each visits every pattern once; 0 leaves the object flat.
    mask : (N, N), 1 on good detector pixels.
    start : transmission of the flat object.
    momentum : part of the last change that is kept in the next, 0 to below 1; 0.5 saves half of the passes.
    refine_probe : update the probe modes by the same rule, from the second pass on.
    chunk : patterns held in memory at once; the result does not depend on it beyond rounding.
    on_pass : called with the number of passes done and their total.

    Returns
    -------
    Estimate
        On the canvas that holds every patch.
    """
    size = probe.shape[-1]
    shape, origin = canvas_for(positions, size)
    on_canvas = positions - _host.asarray(origin)
    everyone = _host.arange(positions.shape[0])
    chunks = [everyone[first : first + chunk] for first in range(0, positions.shape[0], chunk)]
    modes = _host.astype(probe, np.complex64)
    estimate = _host.full(shape, start, dtype=np.complex64)
    velocity = _host.zeros(shape, dtype=np.complex64)
    for done in range(passes + 1):
        power = _host.sum(intensity(modes), axis=0)
        change, dose = _Accumulator(shape, size, np.complex128), _Accumulator(shape, size, np.float64)
        probe_change, light = _host.zeros_like(modes), _host.zeros((size, size), dtype=np.float32)
        for index in chunks:
            dose.add(_host.broadcast_to(power, (index.size, size, size)), on_canvas[index])
            if done == passes:
                continue
            patches = extract_patches(estimate, on_canvas[index], size)
            difference = wave_change(patches, modes, amplitude(index), mask)
            change.add(_host.sum(_host.conj(modes) * difference, axis=-3), on_canvas[index])
            if refine_probe and done > 0:
                probe_change = probe_change + _host.sum(_host.conj(patches)[:, None, :, :] * difference, axis=0)
                light = light + _host.sum(intensity(patches), axis=0)
        if done == passes:
            break
        step = change.image / (dose.image + 1e-3 * float(dose.image.max()))
        velocity = momentum * velocity + step.astype(np.complex64)
        estimate = estimate + velocity
        if refine_probe and done > 0:
            modes = modes + probe_change / (light + 1e-3 * float(light.max()))
        if on_pass is not None:
            on_pass(done + 1, passes)
    return Estimate(estimate, dose.image.astype(np.float32), origin, modes)


class _Accumulator:
    """An image in double precision to which patches are added in place, chunk by chunk."""

    def __init__(self, shape: tuple[int, int], size: int, dtype: type) -> None:
        margin = size + 1
        self._padded = _host.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), dtype=dtype)
        self._margin, self._shape = margin, shape

    @property
    def image(self) -> np.ndarray:
        """(H, W) sum so far."""
        margin = self._margin
        return self._padded[margin : margin + self._shape[0], margin : margin + self._shape[1]]

    def add(self, patches: np.ndarray, positions: np.ndarray) -> None:
        """Add (k, N, N) patches at (k, 2) positions inside the image, bilinearly."""
        windows, corners = spread_patches(patches, positions, self._shape)
        side = windows.shape[-1]
        for window, (row, col) in zip(windows, corners.tolist(), strict=True):
            self._padded[row : row + side, col : col + side] += window
