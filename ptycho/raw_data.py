"""PtychoPINN's import path for scans as RawData; see :mod:`ptycho.compat.raw_data`."""

from ptycho.compat.raw_data import RawData, get_relative_coords

__all__ = ["RawData", "get_relative_coords"]
