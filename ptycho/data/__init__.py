"""Scans: the typed measurement, its files, cropping and binning, groups, and the container for the network."""

from ptycho.data.container import Container, amplitude_factor, make_container, scan_from_groups
from ptycho.data.detector import bin_detector, crop_detector
from ptycho.data.grouping import group_positions
from ptycho.data.offsets import LocalOffsets
from ptycho.data.readers import Reader, ScanFile, available_readers, load_scan, scan_from_arrays
from ptycho.data.scan import Scan, measurement_by_contract
from ptycho.data.writers import Writer, available_writers, save_npz, save_scan

__all__ = [
    "Container",
    "LocalOffsets",
    "Reader",
    "Scan",
    "ScanFile",
    "Writer",
    "amplitude_factor",
    "available_readers",
    "available_writers",
    "bin_detector",
    "crop_detector",
    "group_positions",
    "load_scan",
    "make_container",
    "measurement_by_contract",
    "save_npz",
    "save_scan",
    "scan_from_arrays",
    "scan_from_groups",
]
