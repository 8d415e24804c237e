"""Correction of the scan positions: a step for each, a map common to all, limits, and a search for outliers."""

from ptycho.engines.position_correction.affine import AffineFit, fit_affine
from ptycho.engines.position_correction.epoch import PositionCorrection, farthest_move

__all__ = ["AffineFit", "PositionCorrection", "farthest_move", "fit_affine"]
