"""Iterative engines on the library's own physics: object, probe and positions from a scan, without a network."""

from ptycho.engines.driver import Callback, check_settings, solve
from ptycho.engines.engine import Engine
from ptycho.engines.position_correction import AffineFit, fit_affine
from ptycho.engines.prediction import predictor
from ptycho.engines.state import State, load_state, save_state

__all__ = [
    "AffineFit",
    "Callback",
    "Engine",
    "State",
    "check_settings",
    "fit_affine",
    "load_state",
    "predictor",
    "save_state",
    "solve",
]
