r"""Fourier ring correlation: the spatial frequency up to which two images agree.

.. math:: \mathrm{FRC}(k) = \frac{\Re \sum_{f \in k} F_1 F_2^*}{\sqrt{\sum_{f \in k} |F_1|^2 \sum_{f \in k} |F_2|^2}}

Ring k = 1, 2, ... holds the frequencies that round to k / L, L the shorter side in pixels, up to Nyquist. The mean is
subtracted first, so the zero frequency has no ring. M. van Heel and M. Schatz, J. Struct. Biol. 151, 250 (2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptycho.errors import DataError

__all__ = ["FRC", "fourier_ring_correlation", "half_bit_threshold", "soft_window"]

_FEWEST_INDEPENDENT = 2.0
_ENOUGH_INDEPENDENT = 10.0


@dataclass(frozen=True, eq=False)
class FRC:
    """A Fourier ring correlation curve.

    Attributes
    ----------
    frequency : (R,) float64, cycles per pixel, rising to 0.5.
    correlation : (R,) float64, -1 to 1.
    independent : (R,) float64, number of independent Fourier coefficients in each ring.
    pixel_size : metres, or None when it is not known.
    """

    frequency: np.ndarray
    correlation: np.ndarray
    independent: np.ndarray
    pixel_size: float | None = None

    def __len__(self) -> int:
        """Number of rings."""
        return int(self.frequency.shape[0])

    @property
    def half_bit(self) -> np.ndarray:
        """The 1/2-bit threshold curve, (R,); see :func:`half_bit_threshold`."""
        return half_bit_threshold(self.independent)

    @property
    def frequency_per_metre(self) -> np.ndarray | None:
        """Frequency in 1/m, (R,), or None when the pixel size is not known."""
        return None if self.pixel_size is None else self.frequency / self.pixel_size

    def threshold(self, threshold: float | str = "half-bit") -> np.ndarray:
        """The threshold as a curve, (R,): a number, or ``"half-bit"``."""
        if isinstance(threshold, str):
            if threshold != "half-bit":
                raise DataError(f"threshold: got {threshold!r}; expected a number or 'half-bit'.")
            return self.half_bit
        return np.full(len(self), float(threshold))

    def rings(self, threshold: float | str = "half-bit") -> int:
        """Number of rings before the curve first falls below the threshold; all of them if it never does.

        The innermost rings hold a few coefficients each, and one of them may be low by chance: where the first ring of
        at least ten independent coefficients lies above the threshold, the rings inside it count as well.
        """
        low = self.correlation < self.threshold(threshold)
        sure = int(np.argmax(self.independent >= _ENOUGH_INDEPENDENT))
        if not low[sure]:
            low[:sure] = False
        return int(np.argmax(low)) if low.any() else len(self)

    def cutoff(self, threshold: float | str = "half-bit") -> float:
        """Frequency of the first crossing in cycles per pixel, interpolated; 0.5 (Nyquist) if there is none."""
        n = self.rings(threshold)
        if n == len(self):
            return float(self.frequency[-1])
        if n == 0:
            return 0.0
        above, below = (float(self.correlation[i] - self.threshold(threshold)[i]) for i in (n - 1, n))
        step = above / (above - below)
        return float(self.frequency[n - 1] + step * (self.frequency[n] - self.frequency[n - 1]))

    def resolution(self, threshold: float | str = "half-bit") -> float | None:
        """Half a period at the first crossing, in metres (pixels when the pixel size is not known).

        None if the first ring already fails.
        """
        cutoff = self.cutoff(threshold)
        if cutoff == 0:
            return None
        return 0.5 / cutoff * (1.0 if self.pixel_size is None else self.pixel_size)


def half_bit_threshold(independent: np.ndarray) -> np.ndarray:
    r"""Correlation at which each ring carries half a bit of information per pixel.

    .. math:: T(n) = \frac{0.2071 + 1.9102 / \sqrt n}{1.2071 + 0.9102 / \sqrt n}

    for two independent half data sets (van Heel and Schatz 2005).

    Parameters
    ----------
    independent : number of independent coefficients n in each ring; fewer than 2 are taken as 2, since the curve would
        otherwise reach 1 and reject even identical images.
    """
    root = np.sqrt(np.maximum(np.asarray(independent, dtype=np.float64), _FEWEST_INDEPENDENT))
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def soft_window(covered: np.ndarray, width: float | None = None) -> np.ndarray:
    """A weight that rises from 0 at the edge of the covered area to 1 inside it by half a period of a cosine.

    Parameters
    ----------
    covered : (H, W) bool, any shape, holes included; the border of the array is an edge too.
    width : pixels of the rise; default an eighth of the shorter side, at most half of the deepest point.

    Returns
    -------
    (H, W) float64, 0 to 1.

    Raises
    ------
    DataError
        Nothing is covered.
    """
    from scipy import ndimage

    covered = np.asarray(covered, dtype=bool)
    if not covered.any():
        raise DataError("covered: got no pixel; expected an area in which the two images can be compared.")
    depth = ndimage.distance_transform_edt(np.pad(covered, 1))[1:-1, 1:-1]
    if width is None:
        width = min(min(covered.shape) / 8, float(depth.max()) / 2)
    return np.sin(0.5 * np.pi * np.minimum((depth - 0.5).clip(0) / max(width, 1e-9), 1.0)) ** 2


def fourier_ring_correlation(
    first: np.ndarray,
    second: np.ndarray,
    window: np.ndarray | str = "soft",
    *,
    pixel_size: float | None = None,
) -> FRC:
    """Fourier ring correlation of two registered images.

    Parameters
    ----------
    first, second : (H, W) real or complex, on the same grid and registered. Oblong images keep all their pixels.
    window : (H, W) weights >= 0, for example ``soft_window(covered)``; ``"soft"`` for the soft edge of the whole frame,
        ``"none"`` for none (the border's seam then correlates at all frequencies).
    pixel_size : metres, kept with the curve.

    Returns
    -------
    FRC
        ``min(H, W) // 2`` rings. A ring in which one of the images has no power at all correlates 0. The number of
        independent coefficients counts a real image's two halves once and allows for the window's smoothing.

    Raises
    ------
    DataError
        Shapes differ, an image is smaller than 4 pixels or not finite, or the window is unusable.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> image = np.random.default_rng(0).normal(size=(32, 32))
    >>> curve = ptycho.fourier_ring_correlation(image, image)
    >>> round(float(curve.correlation.min()), 6)
    1.0
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != 2 or a.shape != b.shape or min(a.shape, default=0) < 4:
        raise DataError(f"images: got shapes {a.shape} and {b.shape}; expected two equal (H, W) of 4 pixels or more.")
    weight = _window(window, a.shape)
    for name, image in (("first", a), ("second", b)):
        if not np.all(np.isfinite(image[weight > 0])):
            raise DataError(f"{name}: got NaN or infinity inside the window; expected finite values.")
    spectra = [_spectrum(image, weight) for image in (a, b)]
    ring, n_rings = _rings(a.shape)
    cross, power_a, power_b, count = (
        np.bincount(ring.ravel(), values.ravel(), minlength=n_rings + 1)[1 : n_rings + 1]
        for values in (
            (spectra[0] * np.conj(spectra[1])).real,
            np.abs(spectra[0]) ** 2,
            np.abs(spectra[1]) ** 2,
            np.ones(a.shape),
        )
    )
    norm = np.sqrt(power_a) * np.sqrt(power_b)
    correlation = np.divide(cross, norm, out=np.zeros(n_rings), where=norm > 0)
    smoothing = float(np.sum(weight**2) ** 2 / (weight.size * np.sum(weight**4)))
    halves = 1.0 if np.iscomplexobj(a) or np.iscomplexobj(b) else 0.5
    frequency = np.arange(1, n_rings + 1) / min(a.shape)
    return FRC(frequency, correlation.clip(-1.0, 1.0), count * smoothing * halves, pixel_size)


def _window(window: np.ndarray | str, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(window, str):
        if window == "soft":
            return soft_window(np.ones(shape, dtype=bool))
        if window == "none":
            return np.ones(shape)
        raise DataError(f"window: got {window!r}; expected 'soft', 'none' or an array of weights.")
    weight = np.asarray(window, dtype=np.float64)
    if weight.shape != shape or not np.all(np.isfinite(weight)) or weight.min() < 0 or weight.max() <= 0:
        raise DataError(f"window: got shape {weight.shape}; expected {shape}, finite, >= 0 and above 0 somewhere.")
    return weight / weight.max()


def _spectrum(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    from scipy import fft

    inside = np.where(weight > 0, image, 0)
    dtype = np.complex128 if np.iscomplexobj(image) else np.float64
    mean = np.sum(weight * inside, dtype=dtype) / np.sum(weight)
    return fft.fft2(weight * (inside - mean))


def _rings(shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Ring number of every Fourier coefficient; those beyond Nyquist get the number 0, like the zero frequency."""
    side = min(shape)
    rows, cols = (np.fft.fftfreq(n) for n in shape)
    ring = np.rint(np.hypot(rows[:, None], cols[None, :]) * side).astype(np.int64)
    n_rings = side // 2
    return np.where(ring > n_rings, 0, ring), n_rings
