"""PtychoPINN's import path for setting the probe; see :mod:`ptycho.compat.probe`."""

from ptycho.compat.probe import set_probe_guess

__all__ = ["set_probe_guess"]
