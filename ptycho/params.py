"""PtychoPINN's import path for the settings dictionary; see :mod:`ptycho.compat.params`."""

from ptycho.compat.params import cfg, get, params, set

__all__ = ["cfg", "get", "params", "set"]
