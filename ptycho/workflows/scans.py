"""Open a scan for a workflow, from a file or as the caller has it, and keep the detector pixels that are wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config import ModelConfig, config_from_dict
from ptycho.config.settings import data_dirs_setting, field_types, setting
from ptycho.data import Container, Scan, bin_detector, crop_detector, load_scan, measurement_by_contract
from ptycho.data.lazy import LazyPatterns, in_memory
from ptycho.data.orientation import ORIENTATIONS
from ptycho.data.readers.plausible import check_field
from ptycho.data.readers.registry import read_scan
from ptycho.errors import ConfigError, DataError
from ptycho.visible import brief

logger = logging.getLogger(__name__)


@dataclass
class ScanOptions:
    """How a scan file is read."""

    measurement: str | None = setting(
        None,
        "what the patterns hold, photon counts or their square root; none takes the file's word",
        choices=("counts", "amplitude"),
    )
    bin: int = setting(1, "add up blocks of bin x bin detector pixels; the object's pixel stays", at_least=1)
    crop: int | None = setting(
        None,
        "then keep the central crop x crop detector pixels; the object's pixel grows in proportion",
        unit="pixels",
        at_least=2,
    )
    pixel_size: float | None = setting(
        None, "the object's pixel, for positions in metres without a geometry that tells it", unit="metres", above=0
    )
    wavelength: float | None = setting(None, "wavelength instead of the file's", unit="metres", above=0)
    distance: float | None = setting(None, "from sample to detector instead of the file's", unit="metres", above=0)
    detector_pixel_size: float | None = setting(
        None, "the detector's pixel instead of the file's", unit="metres", above=0
    )
    beam_centre: str | None = setting(
        None, "ROW,COLUMN of the zero frequency on the frames, which are cut to a square around it", unit="pixels"
    )
    fftshift: bool = setting(False, "the patterns are stored with the zero frequency at [0, 0]: move it to the middle")
    orientation: str = setting(
        "none", "turn the positions like this; 'ptycho doctor' says how", choices=tuple(ORIENTATIONS)
    )
    region: str | None = setting(
        None,
        "use only positions from here to there, ROW:ROW,COLUMN:COLUMN, after bin and crop; an open end takes all",
        unit="pixels",
    )
    data_dirs: tuple[Path, ...] = data_dirs_setting()
    patterns_file: Path | None = setting(None, "the file of the patterns, where the scan file has none (ptychodus)")


def recorded_reading(options: ScanOptions) -> dict[str, Any]:
    """How a scan was read, as JSON for a result: ``options`` that name no file, and ``files`` that the others name."""
    set_by_hand = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(ScanOptions)
        if getattr(options, field.name) != field.default
    }
    files = {name: value for name, value in set_by_hand.items() if name in names_of_files()}
    return {
        "options": {name: value for name, value in set_by_hand.items() if name not in files},
        "files": {
            name: [str(path) for path in value] if isinstance(value, tuple) else str(value)
            for name, value in files.items()
        },
    }


def names_of_files() -> set[str]:
    """The options of reading a scan that name files or folders."""
    return {
        name
        for name, hint in field_types(ScanOptions).items()
        if any(Path in (kind, *typing.get_args(kind)) for kind in (hint, *typing.get_args(hint)))
    }


def reading_of(recorded: Any, given: Mapping[str, Any]) -> tuple[ScanOptions, dict[str, str]]:
    """How to read a scan as for a result, without opening any file that the result names.

    Parameters
    ----------
    recorded
        From :func:`recorded_reading`, as a result holds it; a result is not trusted.
    given
        Options that win over the recorded ones, by name.

    Returns
    -------
    options : ScanOptions
    left_out : dict
        The recorded files that are not given, by the name of their option.

    Raises
    ------
    DataError
        The record is not one, or an option in it is unknown or not possible.
    """
    parts = [recorded.get(name, {}) for name in ("options", "files")] if isinstance(recorded, Mapping) else [None, None]
    options, files = parts
    if not isinstance(options, Mapping) or not isinstance(files, Mapping):
        raise DataError("The record of how the scan was read is damaged: give --scan with the flags of reading.")
    admitted = {name: value for name, value in options.items() if name not in names_of_files()}
    try:
        found = config_from_dict(ScanOptions, {**admitted, **given}, "the result's record of how its scan was read")
    except ConfigError as error:
        raise DataError(str(error)) from error
    return found, {brief(name): brief(value, 400) for name, value in files.items() if name not in given}


def open_scan(path: str | Path | Scan, options: ScanOptions | None = None) -> Scan:
    """Read a scan, bin, then crop, its detector, and keep the region that is wanted; patterns in a file stay there.

    Parameters
    ----------
    path
        A file of any readable format, or a scan that is already open.
    options
        How to read it; none reads it as it is.

    Returns
    -------
    Scan
        With patterns of the wanted size.

    Raises
    ------
    DataError
        The file cannot be read, is no scan, cannot be binned or cropped like this, or has no position in the region.
    """
    options = options or ScanOptions()
    scan = path if isinstance(path, Scan) else read_scan(path, **_given(options))
    if options.bin > 1:
        scan = bin_detector(scan, options.bin)
    if options.crop is not None and options.crop != scan.N:
        scan = crop_detector(scan, options.crop)
    if options.region is not None:
        scan = scan.subset(_inside(scan.positions, options.region))
    logger.info("%r", scan)
    return check_field(scan)


def open_scan_for_others(path: str | Path, options: ScanOptions | None = None) -> Scan:
    """A scan as :func:`open_scan` reads it; sent to another process, it takes its patterns from the file there.

    Parameters
    ----------
    path, options
        As for :func:`open_scan`; the other process must find the file under the same absolute path.
    """
    scan = open_scan(path, options)
    return scan.replace(patterns=LazyPatterns((ScanFileSource(path, options or ScanOptions(), scan.patterns),)))


class ScanFileSource:
    """The patterns of a scan file after bin, crop and region; a process that this is sent to opens the file once.

    Parameters
    ----------
    path, options
        As for :func:`open_scan`.
    patterns
        What that found.
    """

    def __init__(self, path: str | Path, options: ScanOptions, patterns: Any) -> None:
        options = dataclasses.replace(
            options,
            data_dirs=tuple(Path(folder).resolve() for folder in options.data_dirs),
            patterns_file=None if options.patterns_file is None else Path(options.patterns_file).resolve(),
        )
        self.path, self.options = Path(path).resolve(), dataclasses.astuple(options)
        self.shape, self.dtype = tuple(patterns.shape), patterns.dtype
        self.frames_per_chunk = 1 if in_memory(patterns) else patterns.frames_per_chunk
        self._bytes = _state(self.path)[:1]
        self._patterns: Any = patterns

    def read(self, part: tuple[Any, ...]) -> NDArray[Any]:
        """Part of the patterns.

        Raises
        ------
        DataError
            The file is not there, or is another one.
        """
        if self._patterns is None:
            state = _state(self.path)
            found = _opened(self.path, self.options, state).patterns
            if (tuple(found.shape), found.dtype, state[:1]) != (self.shape, self.dtype, self._bytes):
                raise DataError(
                    f"{self.path}: {found.dtype} patterns of shape {tuple(found.shape)} found, {self.dtype} of "
                    f"{self.shape} expected, or their file has another size: another file has this name here."
                )
            self._patterns = found
        return np.asarray(self._patterns[part[0]][(slice(None), *part[1:])])

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the patterns."""
        return {**self.__dict__, "_patterns": None}


@functools.lru_cache(maxsize=1)
def _opened(path: Path, options: tuple[Any, ...], state: tuple[int, ...]) -> Scan:
    """The scan in a file, or in a folder, as long as that is in the same state."""
    return open_scan(path, ScanOptions(*options))


def _state(path: Path) -> tuple[int, ...]:
    """The size of a file (0 of a folder), and what changes with its contents; nothing where there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return 0 if path.is_dir() else found.st_size, found.st_mtime_ns, found.st_ino
    return ()


def _inside(positions: np.ndarray, region: str) -> np.ndarray:
    """Numbers of the positions in a region, given as ROW:ROW,COLUMN:COLUMN."""
    try:
        rows, columns = (part.split(":") for part in region.split(","))
        ends = [[float(end) if end.strip() else None for end in (low, high)] for low, high in (rows, columns)]
    except ValueError as error:
        raise ConfigError(
            f"region = {region} is not possible: expected ROW:ROW,COLUMN:COLUMN in pixels, e.g. 0:500,200:."
        ) from error
    inside = np.ones(len(positions), bool)
    for axis, (low, high) in enumerate(ends):
        inside &= positions[:, axis] >= (-np.inf if low is None else low)
        inside &= positions[:, axis] < (np.inf if high is None else high)
    if not inside.any():
        (top, left), (bottom, right) = positions.min(axis=0), positions.max(axis=0)
        raise DataError(
            f"region: {region} holds no position; they are in rows {top:.1f} to {bottom:.1f} and columns {left:.1f} to "
            f"{right:.1f}."
        )
    return np.flatnonzero(inside)


def _given(options: ScanOptions) -> dict[str, Any]:
    """What `load_scan` is told: everything that is not left to the file."""
    stated = ("measurement", "pixel_size", "wavelength", "distance", "detector_pixel_size", "patterns_file")
    given = {name: getattr(options, name) for name in stated if getattr(options, name) is not None}
    if options.beam_centre is not None:
        try:
            row, column = (float(number) for number in options.beam_centre.split(","))
        except ValueError as error:
            raise ConfigError(
                f"beam_centre = {options.beam_centre} is not possible: expected ROW,COLUMN in pixels, e.g. 255.5,260."
            ) from error
        given["beam_centre"] = (row, column)
    if options.data_dirs:
        given["data_dirs"] = options.data_dirs
    if options.fftshift:
        given["fftshift"] = True
    if options.orientation != "none":
        given["orientation"] = options.orientation
    return given


def subsample(scan: Scan, count: int | None, seed: int) -> Scan:
    """Return a scan of ``count`` patterns drawn without repeats, in their order; the scan itself where none is given.

    Parameters
    ----------
    scan
        Any scan.
    count
        How many patterns; none or more than there are takes all.
    seed
        Of the draw.
    """
    if count is None or count >= len(scan):
        return scan
    return scan.subset(np.sort(np.random.default_rng(seed).choice(len(scan), count, replace=False)))


def fit_model_to(scan: Scan, model: ModelConfig, *, adopt: bool) -> None:
    """Make sure that a model and a scan have the same pattern size.

    Parameters
    ----------
    scan
        The scan to be used.
    model
        Its ``N`` is set to the scan's if ``adopt``.
    adopt
        Whether the model's size may follow the scan (nobody asked for another).

    Raises
    ------
    DataError
        The sizes differ, or no network takes patterns of this size; the message says what to crop or bin.
    """
    sizes = ModelConfig.__dataclass_fields__["N"].metadata["choices"]
    if scan.N not in sizes:
        smaller = [size for size in sizes if size < scan.N]
        advice = f"use --crop {smaller[-1]}" if smaller else "the smallest is 64"
        raise DataError(
            f"The patterns are {scan.N} x {scan.N} pixels, and a network takes N = "
            f"{', '.join(str(size) for size in sizes)}: {advice}."
        )
    if adopt:
        model.N = scan.N
    if model.N != scan.N:
        advice = f"use --crop {model.N} or --N {scan.N}" if model.N < scan.N else f"use --N {scan.N}"
        raise DataError(f"The patterns are {scan.N} x {scan.N} pixels and the model has N = {model.N}: {advice}.")


def as_scan(data: Any) -> Scan:
    """Return data in any of the forms that PtychoPINN's callers have as a scan.

    Parameters
    ----------
    data
        A :class:`~ptycho.data.Scan`, the path of a scan file, an object that holds its scan as ``scan`` (PtychoPINN's
        RawData and containers here), a :class:`~ptycho.data.Container`, or an object or mapping with PtychoPINN's
        names: ``diff3d`` (M, N, N), ``xcoords``, ``ycoords`` (M,) pixels, and if there are any ``probeGuess`` (N, N) or
        (P, N, N), ``objectGuess`` (H, W), ``scan_index`` (M,). By PtychoPINN's contract real ``diff3d`` are amplitudes;
        integers are counts.

    Raises
    ------
    DataError
        A name is missing, the data are of another kind, or the scan is not valid.
    """
    if isinstance(data, str | Path):
        return load_scan(data)
    if isinstance(data, Container):
        return data.to_scan()
    own = data if isinstance(data, Scan) else getattr(data, "scan", None)
    if isinstance(own, Scan):
        return own

    def named(name: str) -> Any:
        return data.get(name) if isinstance(data, Mapping) else getattr(data, name, None)

    missing = [name for name in ("diff3d", "xcoords", "ycoords") if named(name) is None]
    if missing:
        raise DataError(
            f"{type(data).__name__} has no {missing[0]}: expected a Scan, the path of a scan file, or an object with "
            "diff3d, xcoords and ycoords."
        )
    patterns = np.asarray(named("diff3d"))
    measurement = measurement_by_contract(patterns.dtype)
    logger.info("diff3d is %s and taken for %s.", patterns.dtype, measurement)
    columns, rows = (np.ravel(named(name)) for name in ("xcoords", "ycoords"))
    if columns.shape != rows.shape:
        raise DataError(f"xcoords has {columns.size} values, ycoords {rows.size}: as many are expected.")
    return Scan(
        patterns=patterns,
        measurement=measurement,
        positions=np.stack([rows, columns], axis=-1),
        probe=None if named("probeGuess") is None else np.asarray(named("probeGuess")),
        object=None if named("objectGuess") is None else np.asarray(named("objectGuess")),
        scan_index=named("scan_index"),
    )
