"""PtychoPINN's import path for training containers; see :mod:`ptycho.compat.loader`."""

from ptycho.compat.loader import PtychoDataContainer, PtychoDataset, RawData, load

__all__ = ["PtychoDataContainer", "PtychoDataset", "RawData", "load"]
