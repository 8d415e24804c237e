r"""Objects too thick for one plane: slices with free space between them.

.. math:: w_1 = P, \qquad \psi_s = O_s\, w_s, \qquad w_{s+1} = D\,\psi_s,

with D the propagation over the gap; :math:`\psi_S` is the exit wave. Sources: Cowley, Moodie, Acta Cryst. 10, 609
(1957); Maiden, Humphry, Rodenburg, J. Opt. Soc. Am. A 29, 1606 (2012).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ptycho.backends import Array, array_namespace
from ptycho.physics.checks import require_together, widest
from ptycho.physics.propagation import intensity

__all__ = ["incoming_waves", "multislice_intensity"]


def incoming_waves(slices: Sequence[Array], probe: Array, gap: Callable[[Array], Array]) -> list[Array]:
    """The wave that illuminates each slice, the probe first.

    Parameters
    ----------
    slices : S patches (..., N, N) complex, in the order in which the beam meets them.
    probe : (P, N, N) complex modes, or (..., P, N, N).
    gap : propagation from one slice to the next.

    Returns
    -------
    list of S arrays
        The probe, then (..., P, N, N); in double precision if one of the arrays is.

    Raises
    ------
    DataError
        The arrays are of different frameworks or on different devices.
    """
    slices, probe = _together(slices, probe)
    waves = [probe]
    for patches in slices[:-1]:
        waves.append(gap(patches[..., None, :, :] * waves[-1]))
    return waves


def multislice_intensity(
    slices: Sequence[Array], probe: Array, gap: Callable[[Array], Array], propagate: Callable[[Array], Array]
) -> Array:
    """Expected counts (..., N, N), summed over the modes.

    Parameters
    ----------
    slices, probe, gap : as of :func:`incoming_waves`.
    propagate : from exit wave to detector wave.

    Raises
    ------
    DataError
        As of :func:`incoming_waves`.
    """
    slices, probe = _together(slices, probe)
    field = propagate(slices[-1][..., None, :, :] * incoming_waves(slices, probe, gap)[-1])
    xp = array_namespace(field)
    return xp.sum(intensity(field), axis=-3)


def _together(slices: Sequence[Array], probe: Array) -> tuple[list[Array], Array]:
    """Slices and probe in one precision, of one framework."""
    named = {f"slices[{number}]": patches for number, patches in enumerate(slices)}
    *whole, light = widest(require_together(**named, probe=probe), *slices, probe)
    return whole, light
