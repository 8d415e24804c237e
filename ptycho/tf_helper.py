"""PtychoPINN's import path for stitching patches; see :mod:`ptycho.compat.tf_helper`."""

from ptycho.compat.tf_helper import reassemble_position

__all__ = ["reassemble_position"]
