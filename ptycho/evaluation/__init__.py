"""Quality of a reconstruction: registration, Fourier ring correlation, SSIM, PSNR, MAE and the R-factor; and figures.

Everything here works on numpy arrays. The functions that draw load matplotlib when they are called; single figures are
in :mod:`ptycho.evaluation.figures`, which is not imported with the package.
"""

from ptycho.evaluation.comparison import Comparison, PlacedObject, compare, evaluate, split_scan_frc
from ptycho.evaluation.frc import FRC, fourier_ring_correlation, half_bit_threshold, soft_window
from ptycho.evaluation.metrics import fourier_r_factor, mae, mse, optimal_scale, psnr, ssim
from ptycho.evaluation.overview import plot_reconstruction, plot_scan
from ptycho.evaluation.ramps import remove_ramp
from ptycho.evaluation.registration import Transform, coverage, register

__all__ = [
    "FRC",
    "Comparison",
    "PlacedObject",
    "Transform",
    "compare",
    "coverage",
    "evaluate",
    "fourier_r_factor",
    "fourier_ring_correlation",
    "half_bit_threshold",
    "mae",
    "mse",
    "optimal_scale",
    "plot_reconstruction",
    "plot_scan",
    "psnr",
    "register",
    "remove_ramp",
    "soft_window",
    "split_scan_frc",
    "ssim",
]
