r"""Probes: the complex wave that lights the sample, sampled with the object's pixel.

Makers work on the host, in the sample plane, with the optical axis on pixel ``[N//2, N//2]``, and return one mode
``(N, N)``; :func:`probe_modes` turns it into a stack. Lengths are metres where a wavelength is given, pixels where not.
:func:`normalise_probe` and :func:`scale_probe_to_counts` take arrays of any framework.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import array_api_compat
import numpy as np
from numpy.typing import DTypeLike

from ptycho.backends import Array, array_namespace, device
from ptycho.errors import DataError
from ptycho.physics.aberrations import apply_aberrations
from ptycho.physics.checks import require_positive, require_size
from ptycho.physics.fourier import fftshift2, ifft2, ifftshift2
from ptycho.physics.modes import probe_modes
from ptycho.physics.probe_from_data import probe_from_patterns
from ptycho.physics.propagation import intensity, near_field
from ptycho.physics.scaling import largest_value, multiplied

__all__ = [
    "apply_aberrations",
    "disc_mask",
    "disc_probe",
    "focused_probe",
    "gaussian_probe",
    "idealised_probe",
    "normalise_probe",
    "probe_from_patterns",
    "probe_modes",
    "scale_probe_to_counts",
    "zone_plate_probe",
]

logger = logging.getLogger(__name__)

_WINDOWS = 4
"""A zone-plate probe is computed on a window this many times wider, so that its tails do not fold back."""
_MILD_ABERRATIONS = {5: 0.25, 6: -0.15, 7: 0.2, 8: 0.1}
"""Astigmatism and coma, radians RMS by Noll index."""


def disc_probe(N: int, radius: float, edge: float = 1.0, dtype: DTypeLike = np.complex64) -> np.ndarray:
    r"""Disc of amplitude 1 and flat phase, with a soft edge.

    .. math:: P(r) = \tfrac12\,\mathrm{erfc}\!\left(\frac{r - R}{\sqrt2\,\sigma}\right)

    Parameters
    ----------
    N : pixels along a side.
    radius : R, pixels, where the amplitude is one half.
    edge : sigma of the edge's blur, pixels; 0 gives a hard edge.
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex.

    Raises
    ------
    DataError
        A number is not usable.
    """
    require_size(N)
    require_positive("radius", radius, "pixels")
    r = _radius(N)
    if edge > 0:
        from scipy.special import erfc

        amplitude = 0.5 * erfc((r - radius) / (math.sqrt(2.0) * edge))
    else:
        amplitude = (r <= radius).astype(np.float64)
    return np.asarray(amplitude).astype(dtype)


def idealised_probe(N: int, scale: float = 0.7, dtype: DTypeLike = np.complex64) -> np.ndarray:
    r"""PtychoPINN's idealised probe: a flat disc blurred by one pixel.

    Its radius is where a Gaussian of :math:`\sigma = N / (\pi^2\,\mathrm{scale})` falls to one half,
    :math:`R = \sqrt{2 \ln 2}\, \sigma`; for N = 64 that is 10.9 pixels.

    Parameters
    ----------
    N : pixels along a side.
    scale : PtychoPINN's ``default_probe_scale``; larger means a smaller disc.
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex, amplitude 1 in the disc.

    Raises
    ------
    DataError
        A number is not usable.
    """
    require_positive("scale", scale, "no unit")
    return disc_probe(N, math.sqrt(2.0 * math.log(2.0)) * N / (math.pi**2 * scale), dtype=dtype)


def gaussian_probe(N: int, sigma: float, dtype: DTypeLike = np.complex64) -> np.ndarray:
    r"""Gaussian amplitude :math:`e^{-r^2 / 2\sigma^2}` with flat phase and peak 1.

    Parameters
    ----------
    N : pixels along a side.
    sigma : standard deviation of the amplitude, pixels; the intensity's is smaller by sqrt(2).
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex.

    Raises
    ------
    DataError
        A number is not usable.
    """
    require_size(N)
    require_positive("sigma", sigma, "pixels")
    return np.exp(-0.5 * (_radius(N) / sigma) ** 2).astype(dtype)


def zone_plate_probe(
    N: int,
    *,
    wavelength: float,
    diameter: float,
    outer_zone_width: float,
    beam_stop: float = 0.0,
    defocus: float = 0.0,
    pixel_size: float | None = None,
    distance: float | None = None,
    detector_pixel_size: float | None = None,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    r"""First-order beam of a Fresnel zone plate under a plane wave, in the sample plane.

    The focal length is :math:`f = D\,\Delta r / \lambda`. In the focal plane the Fresnel integral over the open
    annulus A gives :math:`e^{i\pi r^2/\lambda f} \int_A e^{-2\pi i\, q\cdot r}\, dq` with
    :math:`q = \rho / \lambda f`, so that the cone ends at :math:`q = 1 / 2\Delta r`; from there the wave runs
    ``defocus`` metres further by the angular spectrum. Other orders are taken to be stopped by a sorting aperture.
    Sources: Goodman, Introduction to Fourier Optics, sections 3.10 and 5.2; Attwood, Soft X-Rays, chapter 9.

    Parameters
    ----------
    N : pixels along a side.
    wavelength : metres.
    diameter, outer_zone_width, beam_stop : D, :math:`\Delta r` and the diameter of the central stop, metres.
    defocus : distance from the focus to the sample along the beam, metres; positive is downstream.
    pixel_size : of the sample plane, metres. By default it follows from the detector as
        :math:`\lambda z / (N \Delta)`, with ``distance`` z and ``detector_pixel_size`` :math:`\Delta`, metres.
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex, of unit power on the whole plane: ``sum |P|^2 <= 1``, less what misses the window.

    Raises
    ------
    DataError
        A length is missing or not positive, the stop covers the lens, or the cone is wider than the N pixels resolve.
    """
    require_size(N)
    lengths = {"wavelength": wavelength, "diameter": diameter, "outer_zone_width": outer_zone_width}
    for name, length in lengths.items():
        require_positive(name, length, "metres")
    if not 0 <= beam_stop < diameter:
        raise DataError(f"beam_stop: got {beam_stop} m; expected 0 or more, and less than the diameter {diameter} m.")
    if not math.isfinite(defocus):
        raise DataError(f"defocus: got {defocus}; expected a finite distance in metres.")
    pixel = _sample_pixel(N, wavelength, pixel_size, distance, detector_pixel_size)
    if outer_zone_width < pixel:
        raise DataError(
            f"outer_zone_width: {outer_zone_width:g} m is finer than the sample pixel of {pixel:g} m, so that the "
            "beam's cone misses the detector; expected a coarser zone plate, a nearer detector or a larger one."
        )
    focal_length = diameter * outer_zone_width / wavelength
    wide = _WINDOWS * N
    q_pixel = 1.0 / (wide * pixel)
    q = _radius(wide) * q_pixel
    edge = 1.0 / (2.0 * outer_zone_width)
    pupil = _covered(q, edge, q_pixel) - _covered(q, edge * beam_stop / diameter, q_pixel)
    pupil = pupil / math.sqrt(float((pupil**2).sum()))
    focus = fftshift2(ifft2(ifftshift2(pupil.astype(np.complex128))))
    focus = focus * np.exp(1j * math.pi * (_radius(wide) * pixel) ** 2 / (wavelength * focal_length))
    wave = near_field(focus, defocus, wavelength, pixel) if defocus else focus
    first = wide // 2 - N // 2
    probe = wave[first : first + N, first : first + N]
    caught = float((np.abs(probe) ** 2).sum())
    if caught < 0.9:
        logger.warning(
            "The zone-plate probe spreads beyond its window of %d pixels (%.3g m): %.0f %% of its power is inside.",
            N,
            N * pixel,
            100 * caught,
        )
    return probe.astype(dtype)


def focused_probe(
    N: int,
    *,
    aperture: float = 0.35,
    stop: float = 0.3,
    size: float = 0.3,
    zernike: Mapping[int, float] | None = None,
    dtype: DTypeLike = np.complex64,
) -> np.ndarray:
    r"""Structured, slightly curved probe like that of a real focusing X-ray optic, without numbers of a beamline.

    An annular pupil, out of focus so far that the shadow of the aperture is ``size`` windows wide, with mild
    astigmatism and coma.

    Parameters
    ----------
    N : pixels along a side.
    aperture : diameter of the pupil on the detector as a part of the detector's side.
    stop : diameter of the central stop as a part of the aperture's.
    size : diameter of the beam on the sample as a part of the window's side.
    zernike : aberrations by Noll index, radians RMS; by default a little astigmatism and coma.
    dtype : complex dtype of the result.

    Returns
    -------
    (N, N) complex of unit power.

    Raises
    ------
    DataError
        A number is not usable.
    """
    require_size(N)
    if not (0 < aperture <= 1 and 0 <= stop < 1 and 0 < size <= 1):
        raise DataError(
            f"focused probe: got aperture {aperture}, stop {stop}, size {size}; expected parts of one, stop below 1."
        )
    wide = _WINDOWS * N
    q = _radius(wide)
    edge = aperture * wide / 2
    pupil = _covered(q, edge, 1.0) - _covered(q, stop * edge, 1.0)
    # A cone of half-width a = aperture/2 cycles per pixel is 2 a lambda z wide after z: phase pi lambda z q^2.
    curvature = math.pi * size * N / aperture
    field = pupil * np.exp(-1j * curvature * (q / wide) ** 2)
    wave = fftshift2(ifft2(ifftshift2(field)))
    wave = apply_aberrations(wave, _MILD_ABERRATIONS if zernike is None else zernike, pupil_radius=edge)
    first = wide // 2 - N // 2
    probe = wave[first : first + N, first : first + N]
    return (probe / math.sqrt(float((np.abs(probe) ** 2).sum()))).astype(dtype)


def scale_probe_to_counts(probe: Array, mean_total_counts: float) -> Array:
    r"""Probe in sqrt(photons): scaled so that :math:`\sum |P|^2` over modes and pixels is the given count.

    Parameters
    ----------
    probe : (N, N) or (P, N, N) complex, any framework.
    mean_total_counts : mean photons of a pattern, with an object that absorbs nothing.

    Returns
    -------
    Array of the same shape, dtype and namespace.

    Raises
    ------
    DataError
        The count is not positive, or (on the host) the probe is zero or not finite.
    """
    require_positive("mean_total_counts", mean_total_counts, "photons")
    xp = array_namespace(probe)
    scaled = multiplied(probe, 1.0 / largest_value(probe))
    power = xp.sum(intensity(scaled))
    _require_light(power, "power")
    return multiplied(scaled, xp.sqrt(mean_total_counts / power))


def disc_mask(N: int, radius: float | None = None) -> np.ndarray:
    """PtychoPINN's probe mask: True within ``radius`` of the window's middle, which lies between pixels.

    Parameters
    ----------
    N : pixels along a side.
    radius : pixels; by default ``N // 4``.

    Returns
    -------
    (N, N) bool.
    """
    require_size(N)
    offset = np.arange(N) - N // 2 + 0.5
    return np.hypot(offset[:, None], offset[None, :]) < (N // 4 if radius is None else radius)


def normalise_probe(probe: Array, probe_scale: float = 4.0) -> Array:
    r"""Probe in the model's units, :math:`P / (\mathrm{probe\_scale}\cdot \langle |m P| \rangle)`.

    The mean runs over all N x N pixels, m is :func:`disc_mask`; with several modes
    :math:`|P| = (\sum_p |P_p|^2)^{1/2}`. The probe itself is not masked.

    Parameters
    ----------
    probe : (N, N) or (P, N, N) complex, any framework.
    probe_scale : PtychoPINN's ``probe_scale``.

    Returns
    -------
    Array of the same shape, dtype and namespace; differentiable by ``probe`` where it is not zero.

    Raises
    ------
    DataError
        ``probe_scale`` is not positive, or (on the host) the probe has no light within the mask.
    """
    require_positive("probe_scale", probe_scale, "no unit")
    xp = array_namespace(probe)
    scaled = multiplied(probe, 1.0 / largest_value(probe))
    power = intensity(scaled)
    if power.ndim == 3:
        power = xp.sum(power, axis=0)
    inside = xp.asarray(disc_mask(power.shape[-1]), device=device(probe))
    amplitude = xp.sqrt(xp.where(inside & (power > 0), power, xp.ones_like(power)))
    mean = xp.mean(xp.where(inside & (power > 0), amplitude, xp.zeros_like(amplitude)))
    _require_light(mean, "mean amplitude within N/4 of the middle")
    return multiplied(scaled, 1.0 / (probe_scale * mean))


def _sample_pixel(
    n: int, wavelength: float, pixel_size: float | None, distance: float | None, detector_pixel_size: float | None
) -> float:
    if pixel_size is None:
        if distance is None or detector_pixel_size is None:
            raise DataError(
                "zone plate: needs the sample's pixel_size, or the detector's distance and pixel size, in metres."
            )
        require_positive("distance", distance, "metres")
        require_positive("detector_pixel_size", detector_pixel_size, "metres")
        return wavelength * distance / (n * detector_pixel_size)
    require_positive("pixel_size", pixel_size, "metres")
    return pixel_size


def _radius(n: int) -> np.ndarray:
    """Distance of every pixel from the pixel [n//2, n//2], in pixels."""
    offset = np.arange(n) - n // 2
    return np.hypot(offset[:, None], offset[None, :])


def _covered(r: np.ndarray, radius: float, pixel: float) -> np.ndarray:
    """Part of each pixel that a disc covers: a soft edge one pixel wide."""
    return np.clip((radius - r) / pixel + 0.5, 0.0, 1.0) if radius > 0 else np.zeros(r.shape)


def _require_light(value: Array, what: str) -> None:
    """Refuse a dark or broken probe, on the host only: compiled code cannot branch on a value."""
    if array_api_compat.is_numpy_array(value) and not 0 < float(value) < math.inf:
        raise DataError(f"probe: its {what} is {float(value):g}; expected a wave that is finite and holds light there.")
