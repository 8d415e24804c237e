"""Units of lengths and energies as files name them, and the wavelength that belongs to a photon energy."""

from __future__ import annotations

from ptycho.errors import DataError

PLANCK = 6.62607015e-34
"""Joule seconds, exact in the SI."""
LIGHT_SPEED = 299792458.0
"""Metres per second, exact in the SI."""
ELECTRON_VOLT = 1.602176634e-19
"""Joules, exact in the SI."""
PATCH_MIDDLE = 0.5
"""Pixels from the middle of an even patch, where ptychodus has its position, to its pixel N//2, where it is here."""

_LENGTHS = {
    "m": 1.0,
    "meter": 1.0,
    "metre": 1.0,
    "mm": 1e-3,
    "millimeter": 1e-3,
    "millimetre": 1e-3,
    "um": 1e-6,
    "\u00b5m": 1e-6,
    "\u03bcm": 1e-6,
    "micron": 1e-6,
    "micrometer": 1e-6,
    "micrometre": 1e-6,
    "nm": 1e-9,
    "nanometer": 1e-9,
    "nanometre": 1e-9,
    "angstrom": 1e-10,
    "pm": 1e-12,
}
_ENERGIES = {"j": 1.0, "joule": 1.0, "ev": ELECTRON_VOLT, "kev": 1e3 * ELECTRON_VOLT, "mev": 1e6 * ELECTRON_VOLT}


def length_unit(name: str, what: str) -> float:
    """Metres in a unit of length.

    Parameters
    ----------
    name
        As it stands in a file: ``m``, ``mm``, ``um``, ``nm``, ... in any case, singular or plural; empty means metres.
    what
        File and quantity, for the message.

    Raises
    ------
    DataError
        If the unit is not known.
    """
    return _unit(_LENGTHS, name, what, "m")


def energy_unit(name: str, what: str) -> float:
    """Joules in a unit of energy (``J``, ``eV``, ``keV``); empty means joules. Arguments as in `length_unit`."""
    return _unit(_ENERGIES, name, what, "j")


def wavelength_of(energy: float) -> float:
    """Wavelength in metres of a photon of this energy in joules, h c / E."""
    return PLANCK * LIGHT_SPEED / energy


def energy_of(wavelength: float) -> float:
    """Energy in joules of a photon of this wavelength in metres, h c / w."""
    return PLANCK * LIGHT_SPEED / wavelength


def _unit(known: dict[str, float], name: str, what: str, standard: str) -> float:
    plain = name.strip().lower()
    for spelling in (plain or standard, plain.removesuffix("s")):
        if spelling in known:
            return known[spelling]
    raise DataError(f"{what} is in {name!r}, one of {', '.join(known)} expected; correct the units in the file.")
