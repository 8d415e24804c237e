"""Where a reconstruction starts: an object of one value and the scan's probe, or a state on the scan's canvas."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import DTypeLike

from ptycho.config.engines import EngineConfig
from ptycho.data import Scan
from ptycho.engines.detector_data import DetectorData
from ptycho.engines.object_canvas import slices_of
from ptycho.engines.position_correction import farthest_move
from ptycho.engines.state import State
from ptycho.errors import DataError
from ptycho.physics.modes import probe_modes
from ptycho.physics.probe_from_data import probe_from_patterns
from ptycho.physics.propagation import intensity
from ptycho.physics.reassembly import canvas_for

__all__ = ["place_on_canvas", "resliced", "starting_state"]

logger = logging.getLogger(__name__)
_PIXEL_LIMIT = 2**28
"""Of an object: more, with the sums of a batch, is beyond the memory of what computes it."""


def starting_state(scan: Scan, config: EngineConfig, data: DetectorData, given: State | None) -> State:
    """The state that an engine starts from.

    Parameters
    ----------
    scan, config : of the engine.
    data : the scan's patterns, for the power of the probe.
    given : a state to go on from; None starts from an object of one value and the scan's probe.

    Raises
    ------
    DataError
        Scan, probe and object do not belong together.
    """
    return _from_scan(scan, config, data) if given is None else _adopted(scan, config, given)


def _from_scan(scan: Scan, config: EngineConfig, data: DetectorData) -> State:
    probe = scan.probe
    if probe is None:
        logger.warning("The scan has no probe: one is estimated from its mean pattern.")
        probe = probe_from_patterns(scan.patterns, measurement=scan.measurement, mask=scan.mask)[None]
    probe = _checked_probe(probe, scan)
    power = float(np.sum(intensity(probe)))
    if config.rescale_probe:
        scale = math.sqrt(data.brightness * data.mean_total / power)
        logger.info("The probe is scaled by %.4g to the brightest patterns.", scale)
        probe, power = probe * scale, power * scale**2
    start = math.sqrt(data.mean_total / power)
    if config.modes is not None and config.modes != probe.shape[0]:
        probe = _with_modes(probe, config.modes)
    kind = np.complex128 if config.double else np.complex64
    image, origin = place_on_canvas(None, (0.0, 0.0), scan.positions, scan.N, _border(scan, config), start, kind)
    return State(resliced(image, config.slices or 1), origin, probe, scan.positions, scan.positions)


def _adopted(scan: Scan, config: EngineConfig, state: State) -> State:
    """A given state, its object on a canvas that holds every patch."""
    probe = _checked_probe(state.probe, scan)
    if state.positions.shape != scan.positions.shape:
        raise DataError(
            f"positions: the result has {len(state.positions)} and the scan {len(scan)}; give the scan that the "
            "result was made from."
        )
    if not bool(np.all(np.isfinite(np.abs(state.object)))):
        raise DataError("object: some of its pixels are not finite; start from another result.")
    if state.epoch > 0:  # resumed: the canvas is the one that the auxiliary arrays belong to
        return state.copy()
    if config.modes is not None and config.modes != probe.shape[0]:
        probe = _with_modes(probe, config.modes)
    placed = []
    for one in slices_of(state.object):
        fill = complex(np.mean(np.abs(one)))
        placed.append(place_on_canvas(one, state.origin, state.positions, scan.N, _border(scan, config), fill))
    image, origin = np.stack([grown for grown, _ in placed]), placed[0][1]
    before, after = state.object.shape[-2:], image.shape[1:]
    if after != before:
        logger.info("The object grows from %s to %s pixels, to hold every patch.", before, after)
    fresh = state.copy()
    fresh.object, fresh.origin, fresh.probe = resliced(image, config.slices or len(image)), origin, probe
    return fresh


def _border(scan: Scan, config: EngineConfig) -> int:
    """Pixels that corrected positions may need beside those of the nominal ones."""
    still = config.correct_positions == "none"
    return 0 if still else math.ceil(farthest_move(config, scan.positions, scan.N))


def _checked_probe(probe: np.ndarray, scan: Scan) -> np.ndarray:
    wave = np.asarray(probe, dtype=np.complex128)
    if wave.ndim != 3 or wave.shape[-2:] != (scan.N, scan.N):
        raise DataError(
            f"probe: got shape {wave.shape} for patterns of {scan.N} x {scan.N}; expected (modes, {scan.N}, {scan.N}): "
            "crop or pad it, or read the scan as it was read for this result."
        )
    power = float(np.sum(intensity(wave)))
    if not 0 < power < math.inf:
        raise DataError("probe: is zero or not finite; expected a wave that holds light.")
    return wave


def _with_modes(probe: np.ndarray, wanted: int) -> np.ndarray:
    """As many modes as wanted: the strongest, or new ones around the first; the power stays."""
    if wanted < probe.shape[0]:
        kept = probe[:wanted]
        return kept * math.sqrt(float(np.sum(intensity(probe)) / np.sum(intensity(kept))))
    return probe_modes(probe[0], wanted) * math.sqrt(float(np.sum(intensity(probe)) / np.sum(intensity(probe[0]))))


def resliced(image: np.ndarray, count: int) -> np.ndarray:
    """An object (H, W) or (S, H, W) in so many slices.

    One slice is shared out evenly: at every place its phase, taken from the object's mean, and the logarithm of its
    amplitude. Of several the last ones become their product, or empty ones are added.
    """
    stack = image if image.ndim == 3 else image[None]
    if count > len(stack) == 1:
        mean = complex(np.mean(image))
        turn = mean / abs(mean) if mean else 1.0
        turned = stack[0] * turn.conjugate()
        phase = np.atan2(np.imag(turned), np.real(turned)) / count
        part = np.abs(turned) ** (1.0 / count) * (np.cos(phase) + 1j * np.sin(phase))
        stack = np.stack([part * turn, *[part] * (count - 1)])
    elif count > len(stack):
        stack = np.concat([stack, np.ones((count - len(stack), *stack.shape[1:]), dtype=stack.dtype)])
    elif count < len(stack):
        stack = np.concat([stack[: count - 1], np.prod(stack[count - 1 :], axis=0, keepdims=True)])
    return stack if count > 1 else stack[0]


def place_on_canvas(
    image: np.ndarray | None,
    origin: tuple[float, float],
    positions: np.ndarray,
    size: int,
    border: int,
    fill: complex,
    dtype: DTypeLike = np.complex128,
) -> tuple[np.ndarray, tuple[float, float]]:
    """An object on a canvas that holds every patch.

    Parameters
    ----------
    image : (H, W) complex, or None for a flat object.
    origin : position of its pixel [0, 0]; not read for a flat one.
    positions : (M, 2) pixels.
    size : N.
    border : pixels to spare on every side.
    fill : value of the pixels that ``image`` does not have.
    dtype : complex, of the canvas.

    Returns
    -------
    canvas : (H', W').
    origin : of the canvas.

    Raises
    ------
    DataError
        The positions lie so far apart that no canvas can hold them.
    """
    (height, width), first = canvas_for(positions, size)
    low = [first[0] - border, first[1] - border]
    high = [first[0] + height + border, first[1] + width + border]
    if image is not None:  # on the image's own grid, so that nothing is interpolated
        for axis in (0, 1):
            low[axis] = min(origin[axis], origin[axis] + math.floor(low[axis] - origin[axis]))
            high[axis] = max(high[axis], origin[axis] + image.shape[axis])
    shape = (math.ceil(high[0] - low[0]), math.ceil(high[1] - low[1]))
    if shape[0] * shape[1] > _PIXEL_LIMIT:
        raise DataError(
            f"positions: they span {shape[0]} x {shape[1]} pixels, more than an object can have; expected pixels of "
            "the object, not metres or micrometres of another scale."
        )
    canvas = np.full(shape, fill, dtype=dtype)
    if image is not None:
        row, col = round(origin[0] - low[0]), round(origin[1] - low[1])
        canvas[row : row + image.shape[0], col : col + image.shape[1]] = image
    return canvas, (float(low[0]), float(low[1]))
