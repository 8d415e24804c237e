"""How well a reconstructed object explains the patterns of its scan, and how far two halves of the scan agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ptycho.data import Scan
from ptycho.data.ahead import read_ahead
from ptycho.errors import DataError
from ptycho.evaluation import PlacedObject
from ptycho.physics import diffraction_amplitude, extract_patches

Progress = Callable[[int, int], None]

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
    done, both = 0, 2 * len(scan)
    product = power = total = 0.0
    if predict is None:

        def predict(part: slice) -> NDArray[np.floating]:
            return predict_amplitudes(placed, probe, scan.positions[part])

    size = batch_size or max(1, _CHUNK_BYTES // (probe.size * 8))
    for predicted, measured in _pairs(predict, scan, size):
        product += float(np.sum(predicted * measured, dtype=np.float64))
        power += float(np.sum(predicted * predicted, dtype=np.float64))
        total += float(np.sum(measured, dtype=np.float64))
        done = _report(progress, done + len(measured), both)
    if total <= 0:
        raise DataError("patterns: no light is measured on the good pixels, so there is no R-factor.")
    scale, difference = (product / power if power > 0 else 0.0), 0.0
    for predicted, measured in _pairs(predict, scan, size):
        difference += float(np.sum(np.abs(scale * predicted - measured), dtype=np.float64))
        done = _report(progress, done + len(measured), both)
    return difference / total


def _pairs(
    predict: Callable[[slice], NDArray[np.floating]], scan: Scan, size: int
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Predicted and measured amplitudes of one chunk after the other, bad pixels 0 in both."""
    for part, measured in read_ahead(lambda part: (part, scan.amplitude(part)), scan.chunks(size)):
        predicted = predict(part)
        if scan.mask is not None:
            predicted = predicted * scan.mask
        yield predicted, measured


def _report(progress: Progress | None, done: int, total: int) -> int:
    if progress is not None:
        progress(done, total)
    return done
