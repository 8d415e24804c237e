"""Comparison of a reconstruction with the truth, or with a second one made from the other half of the scan.

Both images carry their position (``origin``). They are cropped to their common pixels, registered, and compared by the
Fourier ring correlation of the complex images, of their amplitudes and of their phases; with a truth, by SSIM, PSNR and
MAE as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ptycho.errors import DataError
from ptycho.evaluation.areas import best_covered_box
from ptycho.evaluation.frc import FRC, fourier_ring_correlation, soft_window
from ptycho.evaluation.metrics import mae, mse, psnr, ssim
from ptycho.evaluation.ramps import flattening
from ptycho.evaluation.registration import Transform, coverage, register
from ptycho.evaluation.resampling import fill_uncovered, shift_image, shift_weight

__all__ = ["Comparison", "PlacedObject", "compare", "evaluate", "split_scan_frc"]

_SMALLEST = 16
_SETTLED = 0.99
COMPARED_SIDE = 1536
"""Side, in pixels, of the largest region of two halves that is compared; bounds memory and time."""


class PlacedObject(Protocol):
    """An object with its coverage and its position: a reconstruction or the result of stitching."""

    @property
    def object(self) -> np.ndarray:
        """(H, W) complex."""

    @property
    def weight(self) -> np.ndarray:
        """(H, W) real coverage, 0 where the object is unknown."""

    @property
    def origin(self) -> Any:
        """(row, col), the position of pixel [0, 0]."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two registered objects and how they differ.

    Attributes
    ----------
    estimate : (h, w) complex, registered to ``reference``.
    reference : (h, w) complex, the truth or the other half's object. Its global phase and phase ramp are removed
        from both.
    mask : (h, w) bool, where both are known; the metrics are computed there.
    origin : (row, col), position of pixel [0, 0] of the three arrays.
    transform : the transform that registration applied to the estimate.
    frc : curves by name, ``complex``, ``amplitude`` and ``phase``.
    metrics : flat dict of numbers, see :func:`evaluate`.
    """

    estimate: np.ndarray
    reference: np.ndarray
    mask: np.ndarray
    origin: tuple[float, float]
    transform: Transform
    frc: dict[str, FRC]
    metrics: dict[str, float]


def compare(
    result: PlacedObject,
    truth: np.ndarray,
    truth_origin: tuple[float, float] = (0.0, 0.0),
    *,
    coverage_fraction: float = 0.1,
    trim: int = 0,
    amplitude_range: float | None = None,
    phase_range: float | None = None,
    max_shift: float | None = None,
) -> Comparison:
    """Register a reconstruction to the truth and measure how they differ.

    Parameters
    ----------
    result : object, weight and origin (and ``pixel_size`` if it has one).
    truth : (H, W) complex, known everywhere.
    truth_origin : position (row, col) of ``truth[0, 0]``.
    coverage_fraction : see :func:`~ptycho.evaluation.registration.coverage`.
    trim : pixels removed from the edge of the covered area.
    amplitude_range, phase_range : data ranges for PSNR and SSIM; default the truth's own inside the mask.
    max_shift : pixels, see :func:`~ptycho.evaluation.registration.register`.

    Raises
    ------
    DataError
        The two share too few pixels, or an array is not as above.
    """
    known = _Placed(np.asarray(truth), np.ones(np.shape(truth)), truth_origin)
    ours, theirs, mask, origin = _shared(result, known, coverage_fraction, trim)
    comparison = _registered(ours, theirs, mask, origin, getattr(result, "pixel_size", None), max_shift)
    amplitudes, phases = _amplitudes_and_phases(comparison.estimate, comparison.reference, comparison.mask)
    inside = comparison.mask
    for name, (e, t), span in (("amplitude", amplitudes, amplitude_range), ("phase", phases, phase_range)):
        if span is None:
            span = float(np.ptp(t[inside])) or 1.0
        comparison.metrics.update(
            {
                f"ssim_{name}": ssim(e, t, inside, data_range=span),
                f"psnr_{name}": psnr(e, t, inside, data_range=span),
                f"mae_{name}": mae(e, t, inside),
                f"mse_{name}": mse(e, t, inside),
                f"data_range_{name}": span,
            }
        )
    return comparison


def evaluate(result: PlacedObject, truth: Any, truth_origin: tuple[float, float] | None = None, **options: Any) -> dict:
    """The metrics of :func:`compare` as a flat dict of floats.

    Keys: ``ssim_*``, ``psnr_*`` (dB), ``mae_*``, ``mse_*`` and ``data_range_*`` for ``amplitude`` (of the object) and
    ``phase`` (rad); ``frc_rings_half_bit_*``, ``frc_rings_0.5_*``, ``frc_cutoff_half_bit_*`` and ``frc_cutoff_0.5_*``
    (cycles per pixel) for ``complex``, ``amplitude``, ``phase``; ``frc_n_rings``; the transform as ``shift_row``,
    ``shift_col``, ``ramp_row``, ``ramp_col``, ``global_phase``, ``amplitude_scale``; ``compared_pixels``.

    Parameters
    ----------
    result : object, weight and origin.
    truth : (H, W) complex, or anything with ``object`` and ``object_origin`` (a scan) or ``origin`` (a reconstruction).
    truth_origin : overrides the truth's own; (0, 0) for a bare array.
    options : see :func:`compare`.

    Raises
    ------
    DataError
        As in :func:`compare`, or the scan holds no object.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> result = ptycho.reconstruct_iteratively(scan, ptycho.EngineConfig(epochs=2))
    >>> metrics = ptycho.evaluate(result, scan)
    >>> metrics["compared_pixels"] > 1000
    True
    """
    image = getattr(truth, "object", truth)
    if image is None:
        raise DataError("truth: the scan holds no object; expected one to compare with (split the scan for an FRC).")
    if truth_origin is None:
        own = getattr(truth, "object_origin", None)
        own = getattr(truth, "origin", None) if own is None else own
        truth_origin = (0.0, 0.0) if own is None else (float(own[0]), float(own[1]))
    return compare(result, image, truth_origin, **options).metrics


def split_scan_frc(
    first: PlacedObject,
    second: PlacedObject,
    *,
    coverage_fraction: float = 0.1,
    trim: int = 0,
    max_shift: float | None = None,
) -> Comparison:
    """Fourier ring correlation of two objects reconstructed independently from the two halves of one scan.

    The 1/2-bit threshold is defined for this case. ``metrics`` holds the numbers of the FRC and of the transform. Of
    large objects at most 1536 x 1536 pixels around the centre of the common area are compared: the resolution depends
    on the patterns, not on the size of the field of view.

    Parameters
    ----------
    first, second : object, weight and origin; the second is the reference.
    coverage_fraction, trim, max_shift : as in :func:`compare`.

    Raises
    ------
    DataError
        The halves share too few pixels.
    """
    ours, theirs, mask, origin = _shared(*_middles(first, second, coverage_fraction), coverage_fraction, trim)
    return _registered(ours, theirs, mask, origin, getattr(first, "pixel_size", None), max_shift)


@dataclass(frozen=True, eq=False)
class _Placed:
    object: np.ndarray
    weight: np.ndarray
    origin: Any


def _middles(first: PlacedObject, second: PlacedObject, fraction: float) -> tuple[PlacedObject, PlacedObject]:
    """The part of both that lies around the centre of the first, as views; both unchanged where the first is small."""
    box = best_covered_box(coverage(np.asarray(first.weight), fraction), COMPARED_SIDE)
    if all(side.stop - side.start == n for side, n in zip(box, np.shape(first.object), strict=True)):
        return first, second
    start, stop = (
        np.asarray(first.origin, dtype=np.float64) + [getattr(side, end) for side in box] for end in ("start", "stop")
    )
    cut = []
    for placed in (first, second):
        own = np.asarray(placed.origin, dtype=np.float64)
        low, high = (np.maximum(edge, 0).astype(np.int64) for edge in (np.floor(start - own), np.ceil(stop - own)))
        rows, cols = (slice(a, b) for a, b in zip(low, high, strict=True))
        weight = np.asarray(placed.weight)[rows, cols]
        cut.append(_Placed(np.asarray(placed.object)[rows, cols], weight, own + low))
    return (cut[0], cut[1]) if all(part.weight.size for part in cut) else (first, second)


def _shared(
    first: PlacedObject, second: PlacedObject, fraction: float, trim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Both objects on the pixels of the first, cut to the box that both cover, and the mask inside it."""
    from scipy import ndimage

    covered = [coverage(np.asarray(placed.weight), fraction) for placed in (first, second)]
    images = [
        fill_uncovered(np.asarray(placed.object), mask) for placed, mask in zip((first, second), covered, strict=True)
    ]
    offset = np.asarray(second.origin, dtype=np.float64) - np.asarray(first.origin, dtype=np.float64)
    whole = np.round(offset).astype(np.int64)
    part = offset - whole
    if np.any(np.abs(part) > 1e-6):
        images[1] = shift_image(images[1], part)
        covered[1] = shift_weight(covered[1], part) > _SETTLED
    low = np.maximum(whole, 0)
    high = np.minimum(np.asarray(images[0].shape), whole + np.asarray(images[1].shape))
    if np.all(high > low):
        mine = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        yours = tuple(slice(a - w, b - w) for a, b, w in zip(low, high, whole, strict=True))
        mask = covered[0][mine] & covered[1][yours]
        if trim > 0:
            mask = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > trim
        if mask.any():
            box = ndimage.find_objects(mask.astype(np.int8))[0]
            if min(mask[box].shape) >= _SMALLEST:
                corner = np.asarray(first.origin, dtype=np.float64) + low + [side.start for side in box]
                place = (float(corner[0]), float(corner[1]))
                return images[0][mine][box], images[1][yours][box], mask[box], place
    raise DataError(
        f"origin: the two objects, at {tuple(first.origin)} and {tuple(second.origin)}, share no area of "
        f"{_SMALLEST} x {_SMALLEST} covered pixels; expected reconstructions of the same place."
    )


def _registered(
    ours: np.ndarray,
    theirs: np.ndarray,
    mask: np.ndarray,
    origin: tuple[float, float],
    pixel_size: float | None,
    max_shift: float | None,
) -> Comparison:
    aligned, transform = register(ours, theirs, mask, max_shift=max_shift)
    flat = flattening(theirs, mask)  # removed from both, so that neither phase wraps because of a slope that they share
    aligned, theirs = aligned * flat, theirs * flat
    both = mask & (transform.apply_to_weight(mask) > _SETTLED)
    if np.count_nonzero(both) < _SMALLEST**2:
        raise DataError("registration: the objects share too little after the shift; set max_shift (pixels) lower.")
    window = soft_window(both)
    amplitudes, phases = _amplitudes_and_phases(aligned, theirs, both)
    pairs = {"complex": (aligned, theirs), "amplitude": amplitudes, "phase": phases}
    frc = {name: fourier_ring_correlation(*pair, window, pixel_size=pixel_size) for name, pair in pairs.items()}
    return Comparison(aligned, theirs, both, origin, transform, frc, _figures(frc, transform, both))


def _amplitudes_and_phases(
    estimate: np.ndarray, reference: np.ndarray, mask: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Amplitudes and phases of both.

    The estimate's phase is the reference's plus the phase of their ratio, so that a wrap in either is no difference.
    """
    phase = _unwrapped(reference, mask)
    difference = np.angle(estimate * np.conj(reference))
    return (np.abs(estimate), np.abs(reference)), (phase + difference, phase)


def _unwrapped(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Phase of the image (rad), unwrapped only where it has wraps inside the mask."""
    phase = np.angle(image)
    jumps = [np.abs(np.diff(phase, axis=axis)) > np.pi for axis in (0, 1)]
    inside = [mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]]
    if not any(np.any(jump & both) for jump, both in zip(jumps, inside, strict=True)):
        return phase
    from skimage.restoration import unwrap_phase

    unwrapped = unwrap_phase(np.ma.array(phase, mask=~mask), rng=0)
    return np.where(mask, np.ma.filled(unwrapped, 0.0), phase)


def _figures(frc: dict[str, FRC], transform: Transform, mask: np.ndarray) -> dict[str, float]:
    figures: dict[str, float] = {"frc_n_rings": float(len(frc["complex"]))}
    for name, curve in frc.items():
        for label, threshold in (("half_bit", "half-bit"), ("0.5", 0.5)):
            figures[f"frc_rings_{label}_{name}"] = float(curve.rings(threshold))
            figures[f"frc_cutoff_{label}_{name}"] = curve.cutoff(threshold)
    figures.update(
        shift_row=transform.shift[0],
        shift_col=transform.shift[1],
        ramp_row=transform.ramp[0],
        ramp_col=transform.ramp[1],
        global_phase=transform.phase,
        amplitude_scale=transform.scale,
        compared_pixels=float(np.count_nonzero(mask)),
    )
    return figures
