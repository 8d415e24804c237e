"""Cropping and binning of the detector, with the corresponding object pixel size and probe.

Far field, wavelength w, distance z, detector pixel d, N x N pixels: the object's pixel is w*z/(N*d), and the window in
the sample plane that a pattern can describe is w*z/d wide. Patterns in a file stay there: they are cropped and binned
when they are read. So

* cropping to n < N pixels drops high spatial frequencies: the object's pixel grows by N/n, the window stays;
* binning b x b pixels samples the pattern more coarsely: the object's pixel stays, the window shrinks by b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.lazy import LazyPatterns, in_memory
from ptycho.data.scan import Scan
from ptycho.errors import DataError

_LANCZOS_LOBES = 4


def crop_detector(scan: Scan, N: int) -> Scan:
    """Keep the central N x N pixels of every pattern.

    With r = N_old / N: positions and origin divide by r, since the object's pixel is r times larger; the probe is
    low-passed and sampled at the new pixels, times r, so that with the unitary FFT its far field is exactly the centre
    of the old one; a known object is low-passed (Lanczos) and sampled at the new pixels.

    Parameters
    ----------
    scan
        A scan with patterns of even size.
    N
        Even, at most the present size.

    Returns
    -------
    A scan with patterns (M, N, N) in the same dtype.

    Raises
    ------
    DataError
        If N or the present size is odd, or N is not between 2 and the present size.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.crop_detector(scan, 8).N
    8
    """
    _check_even(scan.N, "crop_detector")
    if N % 2 or not 2 <= N <= scan.N:
        raise DataError(f"crop_detector: N={N} given, an even number from 2 to {scan.N} expected.")
    if scan.N == N:
        return scan
    ratio = scan.N / N
    start = scan.N // 2 - N // 2
    centre = slice(start, start + N)
    patterns = scan.patterns
    return scan.replace(
        patterns=patterns[:, centre, centre].copy() if in_memory(patterns) else patterns.cut(centre, centre),
        positions=scan.positions / ratio,
        probe=None if scan.probe is None else _low_passed_probe(scan.probe, centre),
        object=None if scan.object is None else _low_passed_image(scan.object, ratio),
        object_origin=None
        if scan.object_origin is None
        else (scan.object_origin[0] / ratio, scan.object_origin[1] / ratio),
        pixel_size=None if scan.pixel_size is None else scan.pixel_size * ratio,
        mask=None if scan.mask is None else scan.mask[centre, centre],
    )


def bin_detector(scan: Scan, factor: int) -> Scan:
    """Sum the counts of factor x factor pixels (amplitudes: the square root of the summed squares).

    The object's pixel, positions and object stay; the probe keeps its central N/factor window, so it should be dark
    outside it. The pixels k*factor ... k*factor + factor - 1 from the zero frequency form a bin, whose centre lies
    (factor - 1)/2 old pixels beside the new frequency; the probe takes the phase ramp exp(-2 pi i x (factor - 1)/(2 N))
    along both axes that this shift of the far field means. A bin is good if all its pixels are.

    Parameters
    ----------
    scan
        A scan with patterns of even size.
    factor
        Divides the size into an even number.

    Returns
    -------
    A scan with patterns (M, N/factor, N/factor); integer counts in a type wide enough for the sum.

    Raises
    ------
    DataError
        If the factor does not divide the size into an even number of bins.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.bin_detector(scan, 2).N
    8
    """
    _check_even(scan.N, "bin_detector")
    if factor < 1 or scan.N % factor or (scan.N // factor) % 2:
        raise DataError(f"bin_detector: factor={factor} given, one that divides {scan.N} into an even number expected.")
    if factor == 1:
        return scan
    n = scan.N // factor
    amplitudes = scan.measurement == "amplitude"
    dtype = _sum_dtype(scan.patterns.dtype, amplitudes)
    summed = _Binning(factor, amplitudes, dtype)
    good = None if scan.mask is None else scan.mask.reshape(n, factor, n, factor).all(axis=(1, 3))
    lazy = LazyPatterns.of(scan.patterns).changed(summed, (n, n), dtype)
    return scan.replace(
        patterns=_per_chunk(scan, lazy) if in_memory(scan.patterns) else lazy,
        probe=None if scan.probe is None else _windowed_probe(scan.probe, factor),
        detector_pixel_size=None if scan.detector_pixel_size is None else scan.detector_pixel_size * factor,
        mask=good,
    )


def _check_even(n: int, what: str) -> None:
    if n % 2:
        raise DataError(f"{what}: patterns of {n}x{n} given, an even size expected; drop the first row and column.")


@dataclass(frozen=True)
class _Binning:
    """From frames to their bins; a class, so that patterns can be sent to another process."""

    factor: int
    amplitudes: bool
    dtype: np.dtype[Any]

    def __call__(self, raw: NDArray[Any]) -> NDArray[Any]:
        wide, n = _sum_dtype(raw.dtype), raw.shape[-1] // self.factor
        energies = np.square(raw, dtype=wide) if self.amplitudes else raw
        # rows first: whole rows are contiguous in memory, and the second sum has a factor fewer pixels
        tall = energies.reshape(len(raw), n, self.factor, -1).sum(axis=2, dtype=wide)
        total = tall.reshape(len(raw), n, n, self.factor).sum(axis=-1, dtype=wide)
        return np.sqrt(total).astype(self.dtype, copy=False) if self.amplitudes else total


def _per_chunk(scan: Scan, lazy: LazyPatterns) -> NDArray[Any]:
    """Patterns made from those in memory, in memory, chunk by chunk."""
    result = np.empty(lazy.shape, lazy.dtype)
    for part in scan.chunks():
        result[part] = lazy[part]
    return result


def _sum_dtype(dtype: np.dtype[Any], roots: bool = False) -> np.dtype[Any]:
    """A type wide enough for the sum, and for its square root where that is needed."""
    if dtype.kind == "f" or roots:
        return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize < 8 else np.float64)
    return np.dtype(f"{dtype.kind}{4 if dtype.itemsize <= 2 else 8}")


def _low_passed_probe(probe: NDArray[np.complexfloating], centre: slice) -> NDArray[np.complexfloating]:
    """The modes whose far field is the centre of the present one, energy per frequency kept."""
    far = np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(-2, -1))[:, centre, centre]
    near = np.fft.ifft2(np.fft.ifftshift(far, axes=(-2, -1)), norm="ortho")
    return near.astype(probe.dtype)


def _windowed_probe(probe: NDArray[np.complexfloating], factor: int) -> NDArray[np.complexfloating]:
    """The central window of the modes, tilted by half a bin."""
    size = probe.shape[-1]
    n = size // factor
    x = np.arange(n) - n // 2
    ramp = np.exp(-2j * np.pi * x * (factor - 1) / (2 * size))
    window = slice(size // 2 - n // 2, size // 2 + n // 2)
    return (probe[:, window, window] * ramp[:, None] * ramp[None, :]).astype(probe.dtype)


def _low_passed_image(image: NDArray[np.complexfloating], ratio: float) -> NDArray[np.complexfloating]:
    """The image at pixels `ratio` apart, pixel [0, 0] staying where it is."""
    rows, columns = (_lanczos_matrix(size, ratio) for size in image.shape)
    return (columns @ (rows @ image).T).T.astype(image.dtype)


def _lanczos_matrix(size: int, ratio: float) -> Any:
    """Sparse (new, old) matrix of the low-pass filter that samples a line of `size` pixels every `ratio` pixels."""
    from scipy.sparse import csr_array

    at = np.arange(int(np.floor((size - 1) / ratio + 1e-9)) + 1) * ratio
    reach = int(np.ceil(_LANCZOS_LOBES * ratio))
    taps = np.round(at).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    distance = (taps - at[:, None]) / ratio
    weights = np.sinc(distance) * np.sinc(distance / _LANCZOS_LOBES) * (np.abs(distance) < _LANCZOS_LOBES)
    weights *= (taps >= 0) & (taps < size)
    weights /= weights.sum(axis=1, keepdims=True)
    shape = (at.size, size)
    index = (np.repeat(np.arange(at.size), taps.shape[1]), np.clip(taps, 0, size - 1).reshape(-1))
    return csr_array((weights.reshape(-1), index), shape=shape)
