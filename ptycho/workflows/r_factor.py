"""How well a reconstructed object explains the patterns of its scan, and how far two halves of the scan agree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ptycho.data import Scan
from ptycho.data.prefetch import MAX_PIXELS_READ, prefetch, read_at_once
from ptycho.errors import DataError
from ptycho.evaluation import PlacedObject
from ptycho.observers import Progress
from ptycho.physics import diffraction_amplitude, extract_patches

_CHUNK_BYTES = 16 * 2**20
_SAMPLES = 4


def sample_of(count: int) -> NDArray[np.int64]:
    """Numbers of the few patterns, spread over ``count``, that a result keeps beside their predictions."""
    return np.unique(np.linspace(0, count - 1, min(_SAMPLES, count)).round().astype(np.int64))


def predict_amplitudes(
    placed: PlacedObject, probe: NDArray[np.complexfloating], positions: NDArray[np.float64]
) -> NDArray[np.floating]:
    """Amplitudes of the patterns that an object predicts at some positions.

    Parameters
    ----------
    placed
        Object (H, W) complex and its origin.
    probe
        (P, N, N) complex modes.
    positions
        (K, 2) pixels, (row, col).

    Returns
    -------
    (K, N, N) real, in the probe's unit.
    """
    patches = extract_patches(np.asarray(placed.object), positions - np.asarray(placed.origin), probe.shape[-1])
    return diffraction_amplitude(patches, probe)


def scan_r_factor(
    placed: PlacedObject,
    probe: NDArray[np.complexfloating],
    scan: Scan,
    batch_size: int | None = None,
    progress: Progress | None = None,
    predict: Callable[[slice], NDArray[np.floating]] | None = None,
) -> float:
    r"""Fourier R-factor of an object over a whole scan, :math:`R = \sum |s A - \sqrt I| / \sum \sqrt I`.

    One global scale s, the least-squares one, serves all patterns; bad pixels are left out. The patterns are read and
    predicted twice, chunk by chunk, so that memory is bounded whatever the scan.

    Parameters
    ----------
    placed
        Object and origin.
    probe
        (P, N, N) complex modes, in any unit.
    scan
        What was measured.
    batch_size
        Patterns at once; none takes about 16 MiB.
    progress
        Called with (patterns done, all patterns), each pattern counting twice.
    predict
        Amplitudes (k, N, N) of some patterns, where they are not those of one probe on one object.

    Raises
    ------
    DataError
        Nothing was measured.
    """
    done = 0

    def summed(of: PatternSums) -> NDArray[np.float64]:
        nonlocal done
        total, done = sum_over(of, placed, probe, scan, batch_size, progress, predict, done), done + len(scan)
        return total

    return r_factor_from(summed)


PatternSums = Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.float64]]
"""Sums over predicted and measured amplitudes (k, N, N) of some patterns."""


def r_factor_from(summed: Callable[[PatternSums], NDArray[np.float64]]) -> float:
    """The R-factor of :func:`scan_r_factor` from sums over all patterns, whoever makes them.

    Parameters
    ----------
    summed
        Returns what a function of predicted and measured amplitudes is, added up over the scan; asked for two.

    Raises
    ------
    DataError
        Nothing was measured.
    """
    product, power, total = summed(_agreement)
    if total <= 0:
        raise DataError("patterns: no light is measured on the good pixels, so there is no R-factor.")
    scale = product / power if power > 0 else 0.0
    return float(summed(functools.partial(_difference, float(scale)))[0] / total)


def sum_over(
    of: PatternSums,
    placed: PlacedObject,
    probe: NDArray[np.complexfloating],
    scan: Scan,
    batch_size: int | None = None,
    progress: Progress | None = None,
    predict: Callable[[slice], NDArray[np.floating]] | None = None,
    done: int = 0,
) -> NDArray[np.float64]:
    """What a function of predicted and measured amplitudes is, added up over a scan or a part of one.

    Parameters
    ----------
    of
        The function.
    placed, probe, scan, batch_size, progress, predict
        As for :func:`scan_r_factor`.
    done
        Patterns that the progress has been told of already.
    """
    if predict is None:

        def predict(part: slice) -> NDArray[np.floating]:
            return predict_amplitudes(placed, probe, scan.positions[part])

    total: NDArray[np.float64] = np.zeros(1)
    for predicted, measured in _pairs(predict, scan, batch_size or max(1, _CHUNK_BYTES // (probe.size * 8))):
        total = total + of(predicted, measured)
        done += len(measured)
        if progress is not None:
            progress(done, 2 * len(scan))
    return total


def _agreement(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(
        [np.sum(values, dtype=np.float64) for values in (predicted * measured, predicted * predicted, measured)]
    )


def _difference(scale: float, predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.sum(np.abs(scale * predicted - measured), dtype=np.float64, keepdims=True).reshape(1)


def _pairs(
    predict: Callable[[slice], NDArray[np.floating]], scan: Scan, size: int
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Predicted and measured amplitudes of one chunk after the other, bad pixels 0 in both."""
    visits = scan.chunks(read_at_once(size, scan.frames_per_chunk, MAX_PIXELS_READ // scan.N**2))
    for visit, read in prefetch(lambda visit: (visit, scan.amplitude(visit)), visits):
        for start in range(visit.start, visit.stop, size):
            part = slice(start, min(start + size, visit.stop))
            predicted = predict(part)
            if scan.mask is not None:
                predicted = predicted * scan.mask
            yield predicted, read[part.start - visit.start : part.stop - visit.start]
