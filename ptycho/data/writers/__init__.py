"""Writers of scan files, found through the entry-point group `ptycho.writers`.

A package adds a format by naming a class with the methods of `Writer` under that group; the formats of this library are
registered in the same way.
"""

from ptycho.data.writers.ptychopinn_npz import save_npz
from ptycho.data.writers.registry import Writer, available_writers, require_writable, save_scan, writer_for

__all__ = ["Writer", "available_writers", "require_writable", "save_npz", "save_scan", "writer_for"]
