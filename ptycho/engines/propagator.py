"""From exit waves to the detector and back: far away, or so near that the beam has hardly spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ptycho.backends import Array
from ptycho.config.engines import EngineSettings
from ptycho.data import Scan
from ptycho.errors import ConfigError
from ptycho.physics.fourier import fft2, fftshift2, ifft2, ifftshift2
from ptycho.physics.propagation import near_field

__all__ = ["FAR", "Propagator", "free_space", "make_propagator"]

Waves = Callable[[Array], Array]


class Propagator(NamedTuple):
    """Unitary maps of waves (..., N, N): from behind the object to the detector, and their inverses."""

    forward: Waves
    backward: Waves
    gap: tuple[Waves, Waves] | None = None
    """From behind a slice of the object to the next one, and back; None where there is one slice."""


FAR = Propagator(fft2, ifft2)
"""The far field in the order of the FFT, zero frequency at [0, 0]."""


def make_propagator(
    scan: Scan,
    config: EngineSettings,
    to_device: Callable[[np.ndarray], Array],
    slices: int = 1,
    spacing: float | None = None,
) -> Propagator:
    """The propagator to the detector, in the order of :class:`~ptycho.engines.detector_data.DetectorData`.

    Parameters
    ----------
    scan : its wavelength, distance and pixel are read for the near field, wavelength and pixel for slices.
    config : ``propagation``.
    to_device : from a host array to one of the engine's.
    slices : of the object.
    spacing : metres from one slice to the next.

    Raises
    ------
    ConfigError
        The near field or slices are wanted and the scan does not say what they need.
    """
    near = config.propagation == "near"
    detector = _near(scan, to_device) if near else FAR
    if slices == 1:
        return detector
    pixel = (scan.pixel_size or scan.detector_pixel_size) if near else scan.object_pixel_size
    needs = {"slice_spacing": spacing, "the scan's wavelength": scan.wavelength, "the object's pixel size": pixel}
    if spacing is None or scan.wavelength is None or pixel is None:
        raise ConfigError(
            f"slices = {slices} needs {' and '.join(name for name, value in needs.items() if value is None)}, in "
            "metres: give what is missing (--slice_spacing, --wavelength, --pixel_size), or take slices = 1."
        )
    onward, back = (free_space(scan.N, d, scan.wavelength, pixel, to_device) for d in (spacing, -spacing))
    return detector._replace(gap=(onward, back))


def _near(scan: Scan, to_device: Callable[[np.ndarray], Array]) -> Propagator:
    pixel = scan.pixel_size or scan.detector_pixel_size
    if scan.wavelength is None or scan.distance is None or pixel is None:
        raise ConfigError(
            "propagation = near needs the scan's wavelength, distance and pixel size, in metres, and they are not all "
            "known: give them in the scan's file, or take propagation = far."
        )
    there, back = (free_space(scan.N, d, scan.wavelength, pixel, to_device) for d in (scan.distance, -scan.distance))
    return Propagator(lambda waves: ifftshift2(there(waves)), lambda field: back(fftshift2(field)))


def free_space(
    size: int, distance: float, wavelength: float, pixel: float, to_device: Callable[[np.ndarray], Array]
) -> Waves:
    """Propagation of waves (..., size, size) over a distance, all lengths in metres; the kernel is made once."""
    point = np.zeros((size, size), dtype=np.complex128)
    point[0, 0] = size
    kernel = to_device(fft2(near_field(point, distance, wavelength, pixel)))
    return lambda waves: ifft2(fft2(waves) * kernel)
