"""Readers of scan files, found through the entry-point group `ptycho.readers`.

A package adds a format by naming a class with the methods of `Reader` under that group; the formats of this library are
registered in the same way.
"""

from ptycho.data.readers.arrays import scan_from_arrays
from ptycho.data.readers.registry import Reader, ScanFile, available_readers, load_scan

__all__ = ["Reader", "ScanFile", "available_readers", "load_scan", "scan_from_arrays"]
