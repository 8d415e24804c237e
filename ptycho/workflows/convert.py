"""Convert a scan file into another format."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import setting
from ptycho.data import Scan, save_scan
from ptycho.data.lazy import LazyPatterns
from ptycho.data.readers.roundtrip import counts_of_amplitudes
from ptycho.data.writers import require_writable, writer_for
from ptycho.workflows.scans import ScanOptions, open_scan


@dataclass
class ConvertOptions:
    """What is written."""

    to: str | None = setting(None, "name of the format, where the ending of the file does not say it")
    write_as: str | None = setting(
        None,
        "what the written patterns hold; none keeps what they are (formats of detectors hold counts in any case)",
        choices=("counts", "amplitude"),
    )


@dataclass
class Conversion:
    """What was converted.

    Attributes
    ----------
    scan : as it was read and written.
    format : name of the format that was written.
    lost : what other programs will not see, one sentence each.
    """

    scan: Scan
    format: str
    lost: list[str]


def convert_scan(
    source: str | Path | Scan,
    target: str | Path,
    reading: ScanOptions | None = None,
    writing: ConvertOptions | None = None,
    *,
    overwrite: bool = False,
) -> Conversion:
    """Read a scan of any readable format and write it in any writable one, pattern by pattern.

    Parameters
    ----------
    source
        A file of any readable format, or a scan that is already open.
    target
        The file to be written; its ending says the format unless `writing` does.
    reading, writing
        How to read and what to write.
    overwrite
        Replace a regular file at `target`, or a folder if it is a store of this library.

    Raises
    ------
    DataError, ConfigError
        The file cannot be read, or lacks what the other format needs.
    OutputError
        The target exists, or cannot be written; nothing half-written is left.
    """
    writing = writing or ConvertOptions()
    target = Path(target)
    writer = writer_for(target, writing.to)  # a wrong format is told before anything is read
    require_writable(target, writer, overwrite=overwrite)
    scan = open_scan(source, reading)
    if writing.write_as is not None and writing.write_as != scan.measurement:
        scan = as_measurement(scan, writing.write_as)
    return Conversion(scan, writer.name, save_scan(scan, target, format=writer.name, overwrite=overwrite))


def as_measurement(scan: Scan, measurement: str) -> Scan:
    """The scan with its patterns as counts or as amplitudes, computed when they are read.

    Counts become float amplitudes, float32 unless they are float64; amplitudes become their squares.
    """
    if measurement == scan.measurement:
        return scan
    lazy = LazyPatterns.of(scan.patterns)
    before, raw = lazy.convert, np.dtype(lazy.dtype)
    if measurement == "amplitude":
        kind = np.dtype(np.float64 if raw == np.float64 else np.float32)
    else:
        kind = raw if raw.kind == "f" else np.dtype(np.uint64)

    def convert(values: NDArray[np.generic]) -> NDArray[np.generic]:
        values = values if before is None else before(values).astype(raw, copy=False)
        return np.sqrt(values.astype(kind)) if measurement == "amplitude" else counts_of_amplitudes(values)

    patterns = dataclasses.replace(lazy, convert=convert, converts_to=kind)
    return scan.replace(patterns=patterns, measurement=measurement)
