r"""An object from a scan by plain physics: where the network starts from.

One pattern cannot tell an object from its twin image, and a network that sees only detector pixels has to learn the
Fourier transform before it learns anything else. So the network is given what the physics already knows: the object
estimate at each position, and the change that the pattern asks for,

.. math:: \Delta O = \frac{\sum_p P_p^* (\psi'_p - \psi_p)}{\sum_p |P_p|^2 + \alpha \max_r \sum_p |P_p|^2},
          \qquad \psi'_p = D^{-1}\left[\frac{\sqrt{I}}{\sqrt{\sum_q |D\psi_q|^2}}\, D\psi_p\right],

the object update of the ptychographical iterative engine, for several positions at once. Sources: Maiden, Rodenburg,
Ultramicroscopy 109, 1256 (2009); Maiden, Johnson, Li, Optica 4, 736 (2017) for the regularised denominator; Thibault,
Menzel, Nature 494, 68 (2013) for the modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ptycho.backends import Array, NumpyBackend
from ptycho.backends.windows import add_windows
from ptycho.data.prefetch import prefetch
from ptycho.observers import notify
from ptycho.physics.checks import require_together, widest
from ptycho.physics.fourier import fft2, ifft2, ifftshift2
from ptycho.physics.patches import place_patches, read_patches
from ptycho.physics.propagation import illuminate, intensity
from ptycho.physics.reassembly import canvas_for, summed_window
from ptycho.physics.scaling import largest_value, multiplied

__all__ = ["Estimate", "estimate_object", "exit_wave_update", "pie_object_update"]

_host = NumpyBackend.xp


def pie_object_update(
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
    xp = require_together(patches=patches, probe=probe, amplitude=amplitude, mask=mask)
    patches, probe, amplitude = widest(xp, patches, probe, amplitude)
    unit = 1.0 / largest_value(probe)
    probe, amplitude = multiplied(probe, unit), multiplied(amplitude, unit)
    power = xp.sum(intensity(probe), axis=0)
    difference = exit_wave_update(patches, probe, amplitude, mask)
    numerator = xp.sum(xp.conj(probe) * difference, axis=-3)
    return numerator / xp.astype(power + damping * xp.max(power), numerator.dtype)


def exit_wave_update(patches: Array, probe: Array, amplitude: Array, mask: Array | None = None) -> Array:
    """Change of the exit waves, (..., P, N, N), that brings the predicted amplitude to the measured one.

    Parameters
    ----------
    patches, probe, amplitude, mask : as for :func:`pie_object_update`.
    """
    xp = require_together(patches=patches, probe=probe, amplitude=amplitude, mask=mask)
    patches, probe, amplitude = widest(xp, patches, probe, amplitude)
    scale = largest_value(probe)
    unit = 1.0 / scale
    field = fft2(illuminate(patches, multiplied(probe, unit)))
    predicted = xp.sqrt(xp.sum(intensity(field), axis=-3))
    measured = ifftshift2(multiplied(amplitude, unit))
    if mask is not None:  # what a bad pixel shows must not count, not even as NaN
        good = xp.astype(ifftshift2(xp.astype(mask, measured.dtype)), xp.bool)
        measured = xp.where(good, measured, xp.zeros_like(measured))
    # of each pattern on its own, so that the result does not depend on what else is in the batch
    tiny = 1e-6 * xp.max(measured, axis=(-2, -1), keepdims=True) + 1e-30
    # times (ratio - 1): the difference of the waves in one inverse transform
    change = scale * (measured / (predicted + tiny) - 1.0)
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
    refine_probe: bool = False,
    seed: int = 0,
    on_pass: Callable[[int, int], None] | None = None,
    frames_per_chunk: int = 1,
) -> Estimate:
    """Object of a scan after some passes from a flat one, on the host.

    A pass visits every pattern once, in small random batches: each batch changes the object before the next one is
    taken, which is what makes the slow parts of the object converge. The last passes take the whole scan at once and
    average over the noise that the small batches leave. Memory holds some canvases and the patterns of a batch, which
    are asked for in rising order while the batch before is worked on. Where a store unpacks several patterns at once,
    some millions of pixels are read and divided into random batches.

    Parameters
    ----------
    amplitude : from rising pattern indices (k,) to their measured amplitudes (k, N, N), sqrt(counts); called from
        another thread.
    positions : (M, 2) float, (row, col) of the patch centres in pixels.
    probe : (P, N, N) complex, sqrt(photons).
    passes : each visits every pattern once; 0 leaves the object flat.
    mask : (N, N), 1 on good detector pixels.
    start : transmission of the flat object.
    refine_probe : update the probe modes by the same rule, from the second pass on.
    seed : of the order in which patterns are taken.
    on_pass : called with the number of passes done and their total; an observer receives the estimate so far.
    frames_per_chunk : patterns of consecutive numbers that a store unpacks at once.

    Returns
    -------
    Estimate
        On the canvas that holds every patch.
    """
    shape, origin = canvas_for(positions, probe.shape[-1])
    on_canvas = positions - _host.asarray(origin)
    canvas = _Canvas(shape, probe, start)
    rng = np.random.default_rng(seed)
    averaged = min(_AVERAGED, passes // 3)
    for done in range(passes):
        last = done >= passes - averaged
        canvas.damping = _AVERAGED_DAMPING if last else _DAMPING
        visits = (
            _in_order(len(positions), probe, frames_per_chunk)
            if last
            else _at_random(len(positions), probe, frames_per_chunk, rng)
        )
        for index, batches, measured in prefetch(lambda visit: (*visit, amplitude(visit[0])), visits):
            for batch in batches:
                canvas.see(on_canvas[index[batch]], measured[batch], mask, refine_probe and done > 0)
                if not last:
                    canvas.change()
        if last:
            canvas.change()
        if on_pass is not None:
            on_pass(done + 1, passes)
            notify(on_pass, lambda: _estimated(canvas.object.copy(), canvas.modes, on_canvas, origin))
    canvas.release()
    return _estimated(canvas.object, canvas.modes, on_canvas, origin)


def _estimated(image: np.ndarray, modes: np.ndarray, positions: np.ndarray, origin: tuple[float, float]) -> Estimate:
    dose = summed_window(_host.sum(intensity(modes), axis=0), positions, image.shape)
    return Estimate(image, _host.astype(dose, np.float32), origin, modes)


_BATCH, _DAMPING = 16, 0.3
_AVERAGED, _AVERAGED_DAMPING = 2, 0.05
_PROBE_STEP = 0.5
_CHUNK, _CHUNK_PIXELS, _POOL_PIXELS = 128, 2**21, 2**23
_STRIP = 256
"""Rows of the canvas that are changed at once where all of it is."""


def _in_order(count: int, probe: np.ndarray, frames_per_chunk: int) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Rising indices of patterns that are read at once, and the pieces in which they are looked at."""
    chunk = max(_BATCH, min(_CHUNK, _CHUNK_PIXELS // probe.size))
    size = chunk if frames_per_chunk == 1 else _pool(probe, frames_per_chunk)
    for first in range(0, count, size):
        index = _host.arange(first, min(first + size, count))
        yield index, [slice(k, k + chunk) for k in range(0, index.size, chunk)]


def _at_random(
    count: int, probe: np.ndarray, frames_per_chunk: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, list[Any]]]:
    """Rising indices of patterns that are read at once, and random batches of them."""
    if frames_per_chunk == 1:
        order = rng.permutation(count)
        for first in range(0, count, _BATCH):
            yield _host.sort(order[first : first + _BATCH]), [slice(None)]
        return
    pool = _pool(probe, frames_per_chunk)
    block = min(pool, frames_per_chunk)
    order = rng.permutation(-(-count // block))
    for first in range(0, order.size, pool // block):
        blocks = _host.sort(order[first : first + pool // block])
        index = _host.reshape(blocks[:, None] * block + _host.arange(block), (-1,))
        index = index[index < count]
        mixed = rng.permutation(index.size)
        yield index, [_host.sort(mixed[k : k + _BATCH]) for k in range(0, index.size, _BATCH)]


def _pool(probe: np.ndarray, frames_per_chunk: int) -> int:
    """How many patterns are read at once: whole blocks of those that a store unpacks together, if they fit."""
    size = max(_BATCH, _POOL_PIXELS // probe.shape[-1] ** 2)
    return size if frames_per_chunk > size else size // frames_per_chunk * frames_per_chunk


class _Canvas:
    """Object and probe while they are estimated, and the changes that a batch of patterns asks for.

    All work is done in the windows of the patterns, so that its cost does not depend on the size of the canvas.
    """

    def __init__(self, shape: tuple[int, int], probe: np.ndarray, start: float) -> None:
        self.modes = _host.astype(probe, np.complex64)
        self.damping = _DAMPING
        self._shape, self._margin = shape, probe.shape[-1] + 1
        padded = (shape[0] + 2 * self._margin, shape[1] + 2 * self._margin)
        self._object = _host.full(padded, start, dtype=np.complex64)
        self._sum = _host.zeros(padded, dtype=np.complex64)
        self._light = _host.zeros(padded, dtype=np.float32)
        self._modes_sum, self._modes_light = self._nothing()
        self._seen: list[tuple[slice, slice]] | None = []

    @property
    def object(self) -> np.ndarray:
        """(H, W) complex64 view of the object so far."""
        m = self._margin
        return self._object[m : m + self._shape[0], m : m + self._shape[1]]

    def see(self, positions: np.ndarray, amplitude: np.ndarray, mask: np.ndarray | None, refine: bool) -> None:
        """Add up what these patterns ask of object and probe."""
        size = self.modes.shape[-1]
        patches = read_patches(self.object, positions, size)
        difference = exit_wave_update(patches, self.modes, amplitude, mask)
        wanted = _host.sum(_host.conj(self.modes) * difference, axis=-3)
        windows, corners, shares = place_patches(wanted, positions, self._shape)
        power = _host.broadcast_to(_host.sum(intensity(self.modes), axis=0), windows.shape)
        add_windows(self._sum, windows, corners, shares)
        add_windows(self._light, power, corners, shares)
        self._note([(slice(r, r + size + 1), slice(c, c + size + 1)) for r, c in corners[:, 0, :].tolist()])
        if refine:
            self._modes_sum += _host.sum(_host.conj(patches)[:, None, :, :] * difference, axis=0)
            self._modes_light += _host.sum(intensity(patches), axis=0)

    def change(self) -> None:
        """Change object and probe by what was added up, and forget it."""
        keep = 1.0 - self.damping
        floor = self.damping * float(_host.max(_host.sum(intensity(self.modes), axis=0)))
        places = self._strips() if self._seen is None else self._seen
        for place in places:  # where windows overlap, the first one takes the whole change
            self._object[place] += self._sum[place] / (keep * self._light[place] + floor)
            self._sum[place] = 0.0
        for place in places:
            self._light[place] = 0.0
        self._seen = []
        brightest = float(_host.max(self._modes_light))
        if brightest > 0.0:
            light = keep * self._modes_light + self.damping * brightest
            self.modes = self.modes + _PROBE_STEP * self._modes_sum / light
            self._modes_sum, self._modes_light = self._nothing()

    def release(self) -> None:
        """Let go of the sums, which take more memory than the object."""
        del self._sum, self._light

    def _note(self, places: list[tuple[slice, slice]]) -> None:
        """Remember which windows were seen, or that so many were that to go through the whole canvas is less work."""
        if self._seen is not None:
            self._seen += places
            if len(self._seen) * (self.modes.shape[-1] + 1) ** 2 > self._object.size:
                self._seen = None

    def _strips(self) -> list[tuple[slice, slice]]:
        rows = range(0, self._object.shape[0], _STRIP)
        return [(slice(first, first + _STRIP), slice(None)) for first in rows]

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        return _host.zeros_like(self.modes), _host.zeros(self.modes.shape[-2:], dtype=np.float32)
