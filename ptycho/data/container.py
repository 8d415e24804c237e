"""The container: input and targets of a network as numpy arrays."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.config.deprecated import former_names
from ptycho.data.grouping import group_positions
from ptycho.data.lazy import unpacked
from ptycho.data.offsets import LocalOffsets
from ptycho.data.scan import MAX_BYTES_IN_MEMORY, Scan
from ptycho.errors import DataError

logger = logging.getLogger(__name__)


class GroupedAmplitudes:
    """(G, N, N, C) float32 amplitudes of groups, read from the scan when they are indexed by group.

    Parameters
    ----------
    scan
        The measurement.
    indices
        (G, C) numbers of its patterns.
    amplitude_factor
        Factor on the amplitudes.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, scan: Scan, indices: NDArray[np.int64], amplitude_factor: float) -> None:
        self.scan, self.indices, self.amplitude_factor = scan, indices, amplitude_factor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(G, N, N, C)."""
        groups, channels = self.indices.shape
        return groups, self.scan.N, self.scan.N, channels

    @property
    def frames_per_chunk(self) -> int:
        """Number of patterns that the store decompresses at once."""
        return self.scan.frames_per_chunk

    @property
    def nbytes(self) -> int:
        """Bytes of all groups in memory."""
        return self.indices.size * self.scan.N**2 * self.dtype.itemsize

    def __len__(self) -> int:
        """The number G of groups."""
        return len(self.indices)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        """Read some groups, or one."""
        if isinstance(index, tuple):
            return self[index[0]][(*[slice(None)] * (np.ndim(self.indices[index[0]]) - 1), *index[1:])]
        chosen = self.indices[index]
        scaled = self.scan.amplitude(chosen.reshape(-1), np.float32) * np.float32(self.amplitude_factor)
        return np.moveaxis(scaled.reshape(*chosen.shape, self.scan.N, self.scan.N), -3, -1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        """All groups in memory, read piece by piece."""
        everything = np.empty(self.shape, dtype or self.dtype)
        step = max(1, 2**24 // (self.shape[3] * self.scan.N**2))
        for start in range(0, len(self), step):
            everything[start : start + step] = self[start : start + step]
        return everything

    def unpacked(self, folder: str | Path) -> GroupedAmplitudes:
        """The same groups; where a store decompresses several patterns at once, they are first copied into a file.

        Otherwise groups in random order would decompress the same chunk again and again. The file has no name and
        disappears with the groups. If it cannot be written, a warning is logged and the patterns stay in their store.

        Parameters
        ----------
        folder
            Of the file, made if missing.
        """
        if self.frames_per_chunk == 1:
            return self
        used, places = np.unique(self.indices, return_inverse=True)
        scan = self.scan.subset(used)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            patterns = unpacked(scan.patterns, folder, scan.chunks())
        except OSError as error:
            logger.warning(
                "the patterns are decompressed again and again, since %s: %s", folder, error.strerror or error
            )
            return self
        return GroupedAmplitudes(
            scan.replace(patterns=patterns), places.reshape(self.indices.shape), self.amplitude_factor
        )

    def select(self, groups: Any) -> GroupedAmplitudes:
        """Some of the groups, unread."""
        return GroupedAmplitudes(self.scan, self.indices[groups], self.amplitude_factor)


@former_names({"factor": "amplitude_factor"})
@dataclass
class Container:
    """G groups of C neighbouring patterns in the network's units and layout.

    Parameters
    ----------
    X
        (G, N, N, C) float32, amplitude times `amplitude_factor`, bad pixels 0; `GroupedAmplitudes` where only indexed
        groups are held in memory.
    positions
        (G, C, 2) float64 pixels, (row, col) of every patch's centre.
    indices
        (G, C) int64, which pattern of the scan each is.
    amplitude_factor
        X per square root of a count; see the function of this name.
    mask
        (N, N) bool, True where the detector pixel is good; None where all are.
    probe
        (P, N, N) complex modes as in the scan, not rescaled; None where the scan has none.
    patches
        (G, N, N, C) complex true patches for supervised training; None without.
    estimate
        The object of an iterative engine (``object`` (H, W) and ``origin``); None without.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> container = ptycho.make_container(scan, gridsize=2)
    >>> type(container).__name__, container.X.shape, container.to_scan().N
    ('Container', (40, 16, 16, 4), 16)
    """

    X: Any
    positions: NDArray[np.float64]
    indices: NDArray[np.int64]
    amplitude_factor: float
    mask: NDArray[np.bool_] | None = None
    probe: NDArray[np.complexfloating] | None = None
    patches: NDArray[np.complexfloating] | None = None
    estimate: Any = None

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        shape = tuple(self.X.shape)
        if len(shape) != 4 or shape[1] != shape[2]:
            raise DataError(f"X: shape {shape} given, (groups, N, N, channels) expected.")
        groups, n, _, channels = shape
        expected = {
            "positions": (groups, channels, 2),
            "indices": (groups, channels),
            "mask": (n, n),
            "patches": shape,
        }
        for name, wanted in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != wanted:
                raise DataError(
                    f"{name}: shape {tuple(value.shape)} given, {wanted} expected beside X of shape {shape}."
                )

    def __len__(self) -> int:
        """The number G of groups."""
        return int(self.X.shape[0])

    @property
    def N(self) -> int:
        """The side of a pattern in pixels."""
        return int(self.X.shape[1])

    @property
    def channels(self) -> int:
        """The number C of patterns in a group."""
        return int(self.X.shape[3])

    @property
    def centres(self) -> NDArray[np.float64]:
        """(G, 2) pixels, (row, col): the mean position of every group."""
        return self.positions.mean(axis=1)

    @property
    def relative(self) -> NDArray[np.float64]:
        """(G, C, 2) pixels, (row, col): positions relative to their group's centre."""
        return self.positions - self.centres[:, None, :]

    @property
    def local_offsets(self) -> LocalOffsets:
        """(G, 1, 2, C) pixels in PtychoPINN's order [x, y] and sign: -(position - centre), its `coords_relative`."""
        return LocalOffsets.of(_as_xy(-self.relative), self.positions, self)

    @property
    def global_offsets(self) -> NDArray[np.float64]:
        """(G, 1, 2, 1) pixels in PtychoPINN's order [x, y]: the groups' centres, its `coords_offsets`."""
        return _as_xy(self.centres[:, None, :])

    @property
    def coords_nominal(self) -> LocalOffsets:
        """PtychoPINN's name for :attr:`local_offsets`, which it calls ``coords`` and ``coords_true`` too."""
        return self.local_offsets

    coords = coords_true = coords_nominal

    @property
    def coords_nn(self) -> NDArray[np.float64]:
        """(G, 1, 2, C) pixels in PtychoPINN's order [x, y]: the positions themselves."""
        return _as_xy(self.positions)

    @property
    def nn_indices(self) -> NDArray[np.int64]:
        """PtychoPINN's name for :attr:`indices`."""
        return self.indices

    @property
    def Y(self) -> NDArray[np.complexfloating] | None:
        """PtychoPINN's name for :attr:`patches`."""
        return self.patches

    @property
    def Y_I(self) -> NDArray[np.floating] | None:
        """(G, N, N, C) amplitude of :attr:`patches`; None without."""
        return None if self.patches is None else np.abs(self.patches)

    @property
    def Y_phi(self) -> NDArray[np.floating] | None:
        """(G, N, N, C) phase of :attr:`patches`, radians; None without."""
        return None if self.patches is None else np.angle(self.patches)

    def to_scan(self) -> Scan:
        """The part of the original scan that the groups contain: each of their patterns once."""
        return scan_from_groups(
            np.asarray(self.X) / np.float32(self.amplitude_factor), self.positions, self.indices, self.probe, self.mask
        )

    def subset(self, groups: ArrayLike | slice) -> Container:
        """The container of some of the groups, in the order given; slices share memory."""
        chosen = groups if isinstance(groups, slice) else np.asarray(groups)
        return dataclasses.replace(
            self,
            X=self.X.select(chosen) if isinstance(self.X, GroupedAmplitudes) else self.X[chosen],
            positions=self.positions[chosen],
            indices=self.indices[chosen],
            patches=None if self.patches is None else self.patches[chosen],
        )


def amplitude_factor(scan: Scan) -> float:
    """Factor that scales the scan's mean pattern to PtychoPINN's energy.

    factor = sqrt((N/2)^2 / mean over patterns of the sum over good pixels of amplitude^2), over the whole scan.

    Raises
    ------
    DataError
        If no pattern has a photon.
    """
    photons = scan.mean_total_counts()
    if photons <= 0:
        raise DataError("patterns: all are dark, so there is nothing to normalise; give patterns with counts.")
    return float(scan.N / 2 / np.sqrt(photons))


def make_container(
    scan: Scan,
    gridsize: int = 1,
    n_groups: int | None = None,
    neighbor_count: int = 4,
    seed: int = 0,
    oversample: bool = False,
    *,
    sequential: bool = False,
    factor: float | None = None,
    at_most: int = MAX_BYTES_IN_MEMORY,
    patches: NDArray[np.complexfloating] | None = None,
) -> Container:
    """Group a scan and bring its patterns into the network's units.

    Parameters
    ----------
    scan
        The measurement.
    gridsize, n_groups, neighbor_count, seed, oversample, sequential
        As in `group_positions`.
    factor
        X per square root of a count; None for this scan's own `amplitude_factor`.
    at_most
        Largest X in bytes that is held in memory; a larger one is read from the scan on demand.
    patches
        (M, N, N) complex true patches of every scan point, for supervised training.

    Returns
    -------
    The container; C = gridsize^2.

    Raises
    ------
    DataError
        If the groups cannot be made, or every pattern is dark, or `patches` does not fit the scan.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> rng = np.random.default_rng(0)
    >>> truth = np.exp(1j * rng.uniform(0, 1, (48, 48)))
    >>> scan = ptycho.simulate(truth, np.ones((16, 16)), rng.uniform(8, 39, (40, 2)), 1e4)
    >>> ptycho.make_container(scan).X.shape
    (40, 16, 16, 1)
    """
    indices = group_positions(scan.positions, gridsize, neighbor_count, n_groups, seed, oversample, sequential)
    factor = amplitude_factor(scan) if factor is None else float(factor)
    unread = GroupedAmplitudes(scan, indices, factor)
    X = np.asarray(unread) if unread.nbytes <= at_most else unread
    if patches is not None:
        if tuple(patches.shape) != (len(scan), scan.N, scan.N):
            raise DataError(f"patches: shape {tuple(patches.shape)} given, {(len(scan), scan.N, scan.N)} expected.")
        patches = np.ascontiguousarray(np.moveaxis(patches[indices], 1, -1))
    return Container(X, scan.positions[indices], indices, factor, scan.mask, scan.probe, patches)


def scan_from_groups(
    amplitude: NDArray[np.floating],
    positions: NDArray[np.float64],
    indices: NDArray[np.integer] | None = None,
    probe: NDArray[np.complexfloating] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Scan:
    """A scan from groups of its patterns: each pattern once, in the order of its number.

    Parameters
    ----------
    amplitude
        (G, N, N, C) square root of counts, up to a common factor.
    positions
        (G, C, 2) pixels, (row, col).
    indices
        (G, C) number of each pattern; None identifies patterns by their positions, to a millionth of a pixel.
    probe, mask
        As of the scan.

    Raises
    ------
    DataError
        What results is no valid scan.
    """
    places = positions.reshape(-1, 2)
    if indices is None:
        _, first = np.unique(np.round(places, 6), axis=0, return_index=True)
    else:
        _, first = np.unique(np.reshape(indices, -1), return_index=True)
    patterns = np.moveaxis(amplitude, -1, 1).reshape(-1, *amplitude.shape[1:3])
    return Scan(patterns=patterns[first], measurement="amplitude", positions=places[first], probe=probe, mask=mask)


def _as_xy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G, C, 2) of (row, col) as (G, 1, 2, C) of [x, y]."""
    return np.ascontiguousarray(values[..., ::-1].swapaxes(-1, -2)[:, None])
