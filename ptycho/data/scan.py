"""The typed scan: what was measured, where, with which probe, and in which units.

A `Scan` is validated when it is made, so that everything that uses it (grouping, training, reconstruction) can rely on
shapes, order and units. Patterns are a numpy array in memory; or a memory map, an open dataset or anything else that
can be indexed, which becomes `LazyPatterns` and is read and checked piece by piece, when it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ptycho.config.deprecated import former_names
from ptycho.data import validation
from ptycho.data.lazy import LazyPatterns, in_memory
from ptycho.errors import DataError
from ptycho.notebook import summary_html

Measurement = Literal["counts", "amplitude"]
SplitRule = Literal["rows", "columns", "alternate", "random"]

_CHUNK_BYTES = 64 * 2**20
MAX_BYTES_IN_MEMORY = 2**28
"""Largest size in bytes of a file's patterns that are read into memory once where they are needed repeatedly."""


@former_names({"kept": "in_memory", "together": "frames_per_chunk"})
@dataclass(frozen=True, eq=False)
class Scan:
    """A ptychographic scan of M diffraction patterns.

    Parameters
    ----------
    patterns
        (M, N, N) real or integer, far-field patterns with the zero frequency at [N//2, N//2].
    measurement
        "counts" (photons per pixel) or "amplitude" (square root of counts).
    positions
        (M, 2) pixels of the object, (row, col) of the patch's centre.
    probe
        (P, N, N) or (N, N) complex, incoherent modes; None where the file gives none.
    object
        (H, W) complex transmission; None where it is unknown.
    object_origin
        (row, col) position of `object[0, 0]`; (0, 0) unless stated.
    wavelength
        Metres.
    distance
        Distance from sample to detector, metres.
    detector_pixel_size
        Metres.
    pixel_size
        The object's pixel, metres; see `object_pixel_size` for the one that follows from the far field.
    mask
        (N, N) bool, True where the detector pixel is good. Bad pixels read as 0, whatever `patterns` holds there.
    scan_index
        (M,) integer, the scan each pattern belongs to.
    name
        A name for plots and reports.
    metadata
        Anything else that the file says.

    Raises
    ------
    DataError
        Naming the field that is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> scan = ptycho.Scan(np.ones((6, 8, 8)), "counts", np.zeros((6, 2)))
    >>> scan
    Scan('', 6 patterns of 8x8, counts, no probe)
    >>> len(scan[0:3])
    3
    """

    patterns: Any
    measurement: Measurement
    positions: NDArray[np.float64]
    probe: NDArray[np.complexfloating] | None = None
    object: NDArray[np.complexfloating] | None = None
    object_origin: tuple[float, float] | None = None
    wavelength: float | None = None
    distance: float | None = None
    detector_pixel_size: float | None = None
    pixel_size: float | None = None
    mask: NDArray[np.bool_] | None = None
    scan_index: NDArray[np.integer] | None = None
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate every field and bring it to its type."""
        patterns = validation.patterns(self.patterns)
        patterns = patterns if in_memory(patterns) else LazyPatterns.of(patterns)
        count, n = patterns.shape[0], patterns.shape[1]
        mask = validation.mask(self.mask, n)
        if in_memory(patterns):
            for part in _slices(count, patterns.dtype.itemsize * n * n):
                validation.values(patterns[part], mask, part.start.__add__)
        checked = {
            "patterns": patterns,
            "measurement": validation.measurement(self.measurement),
            "positions": validation.positions(self.positions, count),
            "probe": validation.probe(self.probe, n),
            "object": validation.complex_image("object", self.object),
            "object_origin": validation.origin(self.object_origin, self.object is not None),
            "wavelength": validation.length("wavelength", self.wavelength),
            "distance": validation.length("distance", self.distance),
            "detector_pixel_size": validation.length("detector_pixel_size", self.detector_pixel_size),
            "pixel_size": validation.length("pixel_size", self.pixel_size),
            "mask": mask,
            "scan_index": validation.scan_index(self.scan_index, count),
            "name": str(self.name),
            "metadata": dict(self.metadata),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """The number M of patterns."""
        return int(self.patterns.shape[0])

    def __repr__(self) -> str:
        """One line: what the scan is, without its data."""
        modes = "no probe" if self.probe is None else f"{self.probe.shape[0]} probe mode(s)"
        return f"Scan({self.name!r}, {len(self)} patterns of {self.N}x{self.N}, {self.measurement}, {modes})"

    def _repr_html_(self) -> str:
        """Pictures and numbers for a notebook; numbers alone where the patterns cannot be read or drawn."""
        numbers: dict[str, Any] = {"patterns": f"{len(self)} of {self.N} x {self.N}, {self.measurement}"}
        numbers |= {f"{name} (m)": getattr(self, name) for name in ("wavelength", "distance", "object_pixel_size")}
        pictures = {}
        with contextlib.suppress(DataError, OSError):
            some = np.unique(np.linspace(0, len(self) - 1, min(len(self), 16)).round().astype(np.int64))
            pictures["patterns, mean (logarithmic)"] = np.log1p(self.counts(some).mean(axis=0))
        if self.probe is not None:
            numbers["probe modes"] = len(self.probe)
            pictures["probe amplitude"] = np.abs(self.probe[0])
        if self.object is not None:
            pictures["object phase"] = np.angle(self.object)
        return summary_html(f"Scan {self.name}", numbers, pictures)

    @property
    def N(self) -> int:
        """The side of a pattern in pixels."""
        return int(self.patterns.shape[1])

    @property
    def frames_per_chunk(self) -> int:
        """How many patterns a store unpacks at once, so that they are better read together; 1 in memory."""
        return 1 if in_memory(self.patterns) else int(self.patterns.frames_per_chunk)

    @property
    def object_pixel_size(self) -> float | None:
        """The object's pixel in metres: `pixel_size` if given, else wavelength * distance / (N * detector pixel)."""
        if self.pixel_size is not None:
            return self.pixel_size
        if self.wavelength is None or self.distance is None or self.detector_pixel_size is None:
            return None
        return self.wavelength * self.distance / (self.N * self.detector_pixel_size)

    def counts(self, indices: ArrayLike | slice | None = None, dtype: DTypeLike | None = None) -> NDArray[np.floating]:
        """Photon counts of the patterns, bad pixels 0.

        Amplitudes are squared and integers are widened before any arithmetic, so that `uint16` data are safe.

        Parameters
        ----------
        indices
            Which patterns, in which order (repeats allowed); None for all.
        dtype
            Type of the result; float64 where the patterns are float64, else float32.

        Returns
        -------
        (K, N, N) photons per pixel.
        """
        values = self._read(indices, dtype)
        return values if self.measurement == "counts" else np.square(values, out=values)

    def amplitude(
        self, indices: ArrayLike | slice | None = None, dtype: DTypeLike | None = None
    ) -> NDArray[np.floating]:
        """Square root of the photon counts, bad pixels 0; arguments and result as in `counts`."""
        values = self._read(indices, dtype)
        return values if self.measurement == "amplitude" else np.sqrt(values, out=values)

    def mean_total_counts(self) -> float:
        """The photons per pattern: mean over patterns of the sum over good pixels; a file is read once for it."""
        return float(self.total_counts()[0].mean())

    def total_counts(self) -> tuple[NDArray[np.float64], float]:
        """The photons of every pattern, (M,), summed over good pixels, and the smallest value of all.

        A file is read once for it.
        """
        known: tuple[NDArray[np.float64], float] | None = self.__dict__.get("_total_counts")
        if known is None:
            totals, smallest = np.empty(len(self)), np.inf
            for part in self.chunks():
                totals[part], least = _sums(self.counts(part))
                smallest = min(smallest, least)
            known = totals, smallest
            if not in_memory(self.patterns):  # the caller may change arrays in memory
                self.__dict__["_total_counts"] = known
        return known

    def chunks(self, size: int | None = None) -> Iterator[slice]:
        """Slices that cover all patterns in order.

        Parameters
        ----------
        size
            Patterns per slice; None for about 64 MiB each.
        """
        itemsize = 8 if self.patterns.dtype.itemsize == 8 else 4
        return _slices(len(self), itemsize * self.N**2, size)

    def __getitem__(self, indices: ArrayLike | slice) -> Scan:
        """The scan of some of the patterns: ``scan[0:10]``, ``scan[[3, 1]]`` or ``scan[mask]``, as `subset`."""
        return self.subset(indices)

    __iter__ = None  # without this line, Python would iterate by numbers, which `subset` does not take

    def subset(self, indices: ArrayLike | slice) -> Scan:
        """The scan of some of the patterns, in the order of `indices`; patterns in a file stay there."""
        index = _as_index(indices, len(self))
        return self.replace(
            patterns=self.patterns[index] if in_memory(self.patterns) else self.patterns.select(index),
            positions=self.positions[index],
            scan_index=None if self.scan_index is None else self.scan_index[index],
        )

    def in_memory(self, at_most: int = MAX_BYTES_IN_MEMORY) -> Scan:
        """The scan with its patterns in memory, if they take at most `at_most` bytes; otherwise unchanged."""
        if in_memory(self.patterns) or self.patterns.dtype.itemsize * len(self) * self.N**2 > at_most:
            return self
        patterns = self.patterns[:]
        validation.values(patterns, self.mask, self._number_in_file(slice(None)))
        return self.replace(patterns=patterns)

    def split(self, by: SplitRule = "rows", fraction: float = 0.5, seed: int = 0) -> tuple[Scan, Scan]:
        """Two scans of disjoint patterns, each in the original order.

        Parameters
        ----------
        by
            "rows" or "columns": the first scan has the smallest positions along that axis, so that the two see
            different parts of the object; "alternate": every other pattern (spread evenly for other fractions), and
            "random": both see the whole field.
        fraction
            Share of the patterns that go to the first scan.
        seed
            Seed of the draw for "random".

        Raises
        ------
        DataError
            If either half would be empty or `by` is unknown.
        """
        count = len(self)
        first = round(count * fraction)
        if not 0 < first < count:
            raise DataError(f"split: fraction {fraction} of {count} patterns leaves one half empty.")
        if by in ("rows", "columns"):
            order = np.argsort(self.positions[:, 0 if by == "rows" else 1], kind="stable")
        elif by == "alternate":
            steps = np.floor(np.arange(count + 1) * (first / count) + 0.5)
            order = np.argsort(np.diff(steps) == 0, kind="stable")
        elif by == "random":
            order = np.random.default_rng(seed).permutation(count)
        else:
            raise DataError(f"split: by={by!r} is not one of 'rows', 'columns', 'alternate', 'random'.")
        return self.subset(np.sort(order[:first])), self.subset(np.sort(order[first:]))

    def replace(self, **changes: Any) -> Scan:
        """The same scan with some fields changed, validated anew.

        Raises
        ------
        DataError
            If a name is not a field of the scan, or the result is not a valid scan.
        """
        unknown = sorted(set(changes) - {f.name for f in dataclasses.fields(self)})
        if unknown:
            raise DataError(f"A scan has no field {', '.join(unknown)}; it has {', '.join(scan_fields())}.")
        changed = dataclasses.replace(self, **changes)
        if "_total_counts" in self.__dict__ and not changes.keys() & {"patterns", "measurement", "mask"}:
            changed.__dict__["_total_counts"] = self.__dict__["_total_counts"]
        return changed

    def fingerprint(self) -> str:
        """SHA-256 in hex of the data: every array and length, not the name and the metadata.

        All of the patterns are hashed, however many, chunk by chunk; how they are stored does not count.
        """
        digest = hashlib.sha256()
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in ("name", "metadata"):
                continue
            if f.name == "patterns":
                digest.update(f"patterns {self.patterns.dtype.newbyteorder('<').str} {self.patterns.shape}".encode())
                for part in self.chunks():
                    _hash_array(digest, np.asarray(self.patterns[part]))
            elif isinstance(value, np.ndarray):
                digest.update(f"{f.name} {value.dtype.newbyteorder('<').str} {value.shape}".encode())
                _hash_array(digest, value)
            else:
                digest.update(f"{f.name} {value!r}".encode())
        return digest.hexdigest()

    def _number_in_file(self, indices: ArrayLike | slice) -> Callable[[int], int]:
        """Function from the index within some patterns of a file to the index in the file, for messages."""
        return lambda place: self.patterns.number_in_file(int(_as_index(indices, len(self))[place]))

    def _read(self, indices: ArrayLike | slice | None, dtype: DTypeLike | None) -> NDArray[np.floating]:
        """A floating-point copy of some patterns with bad pixels 0; values of lazy patterns are checked here."""
        if dtype is None:
            dtype = np.float64 if self.patterns.dtype == np.float64 else np.float32
        if indices is None:
            indices = slice(None)
        raw = self.patterns[indices if isinstance(indices, slice) else _as_index(indices, len(self))]
        if not in_memory(self.patterns):
            validation.values(raw, self.mask, self._number_in_file(indices))
        if self.mask is not None and raw.dtype.kind == "f":
            raw = np.where(self.mask, raw, raw.dtype.type(0))
        values = raw.astype(dtype)
        if self.mask is not None:
            values[..., ~self.mask] = 0
        return values


def measurement_by_contract(dtype: DTypeLike) -> Measurement:
    """The measurement of patterns by their dtype, as PtychoPINN assumes: integers are counts, reals amplitudes."""
    return "counts" if np.dtype(dtype).kind in "ui" else "amplitude"


def scan_fields() -> tuple[str, ...]:
    """The names of the fields of a `Scan`, in order."""
    return tuple(f.name for f in dataclasses.fields(Scan))


def _slices(count: int, bytes_each: int, size: int | None = None) -> Iterator[slice]:
    step = size or max(1, _CHUNK_BYTES // bytes_each)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _as_index(indices: ArrayLike | slice, count: int) -> NDArray[np.int64]:
    if isinstance(indices, slice):
        return np.arange(count)[indices]
    index = np.asarray(indices)
    if index.dtype == np.bool_ and index.shape == (count,):
        return np.flatnonzero(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        given = str(indices) if index.ndim == 0 else f"{index.dtype} of shape {index.shape}"
        raise DataError(
            f"indices: {given} given; expected a slice, a list of pattern numbers, or a mask of {count} true or false."
        )
    index = index.astype(np.int64)
    if index.size and (index.min() < -count or index.max() >= count):
        raise DataError(f"indices: {index.min()} to {index.max()} given, but the scan has {count} patterns.")
    return index % count


def _hash_array(digest: Any, values: NDArray[Any]) -> None:
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    digest.update(little.view(np.uint8).reshape(-1).data if little.size else b"")


def _sums(counts: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Total of every pattern, and the smallest value of all."""
    return counts.sum(axis=(1, 2), dtype=np.float64), float(counts.min(initial=np.inf))
