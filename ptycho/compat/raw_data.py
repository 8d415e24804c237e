"""PtychoPINN's name for a scan in memory, as outside callers build, save and group it.

Arrays here follow PtychoPINN's order, [x, y] = [column, row]; :attr:`RawData.scan` is the same scan as the library has
it. Real patterns are amplitudes by PtychoPINN's contract, integers and what ptychodus writes are counts; real arrays
given after a model was loaded or trained are what that model was trained on. The decision is logged, and
``measurement=`` overrules it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.backends import to_numpy
from ptycho.compat import params
from ptycho.data import Container, Scan, load_scan, make_container, measurement_by_contract, save_npz
from ptycho.errors import DataError
from ptycho.physics import extract_patches, simulate

__all__ = ["RawData", "get_relative_coords"]

logger = logging.getLogger(__name__)

_LOOKED_AT = 16


class RawData:
    """A scan under PtychoPINN's names.

    Parameters
    ----------
    xcoords, ycoords
        (M,) pixels of the object: columns and rows of the patches' centres.
    xcoords_start, ycoords_start
        (M,) the nominal ones; kept, and never taken for the true ones.
    diff3d
        (M, N, N) real or integer.
    probeGuess
        (N, N) or, of several modes, (P, N, N) complex; None is estimated from the patterns where it is needed.
    scan_index
        (M,) integer.
    objectGuess
        (H, W) complex; None where it is unknown.
    Y
        (M, N, N) or (M, N, N, 1) complex true patches of all patterns; None cuts them out of ``objectGuess``.
    norm_Y_I, metadata
        Kept as they are.
    measurement
        "counts" or "amplitude"; None decides by the type of ``diff3d``.
    mask
        (N, N) bool, True on good detector pixels.

    Raises
    ------
    DataError
        Naming what is not as above.
    """

    def __init__(
        self,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        xcoords_start: ArrayLike,
        ycoords_start: ArrayLike,
        diff3d: Any,
        probeGuess: Any,
        scan_index: ArrayLike | None,
        objectGuess: Any = None,
        Y: Any = None,
        norm_Y_I: Any = None,
        metadata: Any = None,
        *,
        measurement: str | None = None,
        mask: ArrayLike | None = None,
    ) -> None:
        self.xcoords, self.ycoords = _coordinates(xcoords=xcoords, ycoords=ycoords)
        self.xcoords_start, self.ycoords_start = _coordinates(xcoords_start=xcoords_start, ycoords_start=ycoords_start)
        if len({part.size for part in (self.xcoords, self.ycoords, self.xcoords_start, self.ycoords_start)}) > 1:
            raise DataError(
                f"xcoords, ycoords and the two of the start hold {self.xcoords.size}, {self.ycoords.size}, "
                f"{self.xcoords_start.size} and {self.ycoords_start.size} values: as many are expected."
            )
        lazy = isinstance(getattr(diff3d, "dtype", None), np.dtype)  # an array, or a dataset that stays on disk
        self.diff3d, self.probeGuess, self.objectGuess = diff3d if lazy else np.asarray(diff3d), probeGuess, objectGuess
        self.scan_index = None if scan_index is None else np.asarray(scan_index)
        self.Y, self.norm_Y_I, self.metadata = Y, norm_Y_I, metadata
        self.sample_indices: NDArray[np.integer] | None = None
        self.subsample_seed: int | None = None
        if measurement is None:
            measurement = measurement_by_contract(self.diff3d.dtype)
            logger.info("diff3d is %s and taken for %s unless measurement says.", self.diff3d.dtype, measurement)
            _warn_of_counts(np.asarray(self.diff3d[:_LOOKED_AT]), measurement)
        self._stated: dict[str, Any] = {"measurement": measurement, "mask": mask}
        _ = self.scan  # what is wrong is said now

    @property
    def scan(self) -> Scan:
        """The same scan as the library has it, of what the attributes hold now."""
        return Scan(
            patterns=self.diff3d,
            positions=np.stack([self.ycoords, self.xcoords], axis=-1),
            probe=None if self.probeGuess is None else to_numpy(self.probeGuess),
            object=None if self.objectGuess is None else to_numpy(self.objectGuess),
            scan_index=self.scan_index,
            **self._stated,
        )

    @staticmethod
    def from_coords_without_pc(
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: Any,
        probeGuess: Any,
        scan_index: ArrayLike | None,
        objectGuess: Any = None,
        *,
        measurement: str | None = None,
        mask: ArrayLike | None = None,
    ) -> RawData:
        """A scan whose nominal positions are its true ones; arguments as of the class.

        Where ``measurement`` is None and ``diff3d`` real, it is what the model that this process loaded or trained last
        was trained on; without one the contract decides.
        """
        return RawData(
            xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess,
            measurement=measurement or _of_the_model(diff3d), mask=mask,
        )  # fmt: skip

    @staticmethod
    def from_scan(scan: Scan) -> RawData:
        """A scan of the library under PtychoPINN's names; nothing of it is lost."""
        rows, columns = scan.positions[:, 0], scan.positions[:, 1]
        probe = scan.probe[0] if scan.probe is not None and scan.probe.shape[0] == 1 else scan.probe
        index = np.zeros(len(scan), dtype=int) if scan.scan_index is None else scan.scan_index
        raw = RawData.from_coords_without_pc(
            columns, rows, scan.patterns, probe, index, scan.object, measurement=scan.measurement, mask=scan.mask
        )
        lengths = ("wavelength", "distance", "detector_pixel_size", "pixel_size")
        kept = ("object_origin", "name", "metadata", *lengths)
        raw._stated |= {name: getattr(scan, name) for name in kept}
        raw.metadata = dict(scan.metadata) or None
        return raw

    @staticmethod
    def from_file(
        train_data_file_path: str | Path,
        validate_config: bool = False,
        current_config: Any = None,
        *,
        measurement: str | None = None,
    ) -> RawData:
        """Read a scan file of any format that the library reads.

        Parameters
        ----------
        train_data_file_path
            The file.
        validate_config, current_config
            Log a warning where the configuration's N is not the patterns'.
        measurement
            "counts" or "amplitude"; None takes the file's word.

        Raises
        ------
        DataError
            It cannot be read, or is no scan.
        """
        given = {} if measurement is None else {"measurement": measurement}
        scan = load_scan(train_data_file_path, **given)
        logger.info("%s holds %s of %s.", train_data_file_path, scan.measurement, scan.patterns.dtype)
        if validate_config and current_config is not None and current_config.model.N != scan.N:
            logger.warning("N is %d, and the patterns are %d x %d.", current_config.model.N, scan.N, scan.N)
        return RawData.from_scan(scan)

    @staticmethod
    def from_files(train_data_file_path: str | Path, test_data_file_path: str | Path) -> tuple[RawData, RawData]:
        """Read two scan files."""
        return RawData.from_file(train_data_file_path), RawData.from_file(test_data_file_path)

    @staticmethod
    def from_simulation(
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        probeGuess: Any,
        objectGuess: Any,
        scan_index: ArrayLike | None = None,
        *,
        nphotons: float | None = None,
        seed: int = 0,
    ) -> RawData:
        """Counts of a simulated scan with ``nphotons`` per pattern (None: the settings dictionary's).

        The other arguments are those of the class.
        """
        photons = float(params.params()["nphotons"]) if nphotons is None else nphotons
        columns, rows = _coordinates(xcoords=xcoords, ycoords=ycoords)
        index = None if scan_index is None else np.asarray(scan_index)
        positions = np.stack([rows, columns], axis=-1)
        scan = simulate(to_numpy(objectGuess), to_numpy(probeGuess), positions, photons, seed, scan_index=index)
        return RawData.from_scan(scan)

    def to_file(self, file_path: str | Path) -> None:
        """Write the scan as PtychoPINN's NPZ, exactly; ``.npz`` is added to a name without it."""
        path = Path(file_path)
        save_npz(self.scan, path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz"), overwrite=True)

    def generate_grouped_data(
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        dataset_path: str | None = None,
        seed: int | None = None,
        sequential_sampling: bool = False,
        gridsize: int | None = None,
        enable_oversampling: bool = False,
        neighbor_pool_size: int | None = None,
    ) -> dict[str, Any]:
        """Groups of neighbouring patterns, in PtychoPINN's arrays.

        Parameters
        ----------
        N
            Pixels of a pattern's side.
        K
            Nearest neighbours that a group is drawn from.
        nsamples
            Groups; no more than patterns unless ``enable_oversampling``. 1 means one from every pattern, as ptychodus
            and PtychoPINN's first callers mean it, unless ``sequential_sampling`` asks for the first.
        dataset_path
            Not used, as in PtychoPINN.
        seed
            Of the draw; None is 0, so that the same call gives the same groups.
        sequential_sampling
            The first patterns seed the groups.
        gridsize
            Side of a group; None takes the settings dictionary's.
        enable_oversampling, neighbor_pool_size
            Several groups from one seed, drawn from a pool of this size (None: K).

        Returns
        -------
        dict
            ``X_full``, ``diffraction`` (G, N, N, C) float32: normalised and plain amplitude; ``Y`` (G, N, N, C)
            complex64 or None; ``coords_offsets`` (G, 1, 2, 1): centres; ``coords_relative`` (G, 1, 2, C):
            -(position - centre); ``coords_nn``: the positions; the same of the nominal ones as ``coords_start_...``;
            ``nn_indices`` (G, C); ``objectGuess``; and ``scan``: the whole scan.

        Raises
        ------
        DataError
            The groups cannot be made, or N is not the patterns'.
        """
        scan = self.scan
        if scan.N != N:
            raise DataError(f"N: {N} given, and the patterns are {scan.N} x {scan.N}; crop or bin them to {N}.")
        side = int(params.get("gridsize", 1)) if gridsize is None else gridsize
        pool = neighbor_pool_size if enable_oversampling and neighbor_pool_size is not None else K
        wanted = None if nsamples == 1 and not sequential_sampling else nsamples
        groups = make_container(
            scan, side, wanted, pool, seed or 0, enable_oversampling, sequential=sequential_sampling
        )
        amplitude = np.asarray(groups.X)
        nominal = np.stack([self.xcoords_start[groups.indices], self.ycoords_start[groups.indices]], axis=1)[:, None]
        start_offsets, start_relative = get_relative_coords(nominal)
        grouped = {
            "diffraction": amplitude / np.float32(groups.amplitude_factor),
            "X_full": amplitude,
            "Y": self._true_patches(scan, groups),
            "coords_offsets": groups.global_offsets,
            "coords_relative": groups.local_offsets,
            "coords_nn": groups.coords_nn,
            "coords_start_offsets": start_offsets,
            "coords_start_relative": start_relative,
            "coords_start_nn": nominal,
            "nn_indices": groups.indices,
            "objectGuess": self.objectGuess,
            "scan": scan,
        }
        return grouped if self.sample_indices is None else grouped | {"sample_indices": np.array(self.sample_indices)}

    def __str__(self) -> str:
        """The shapes."""
        names = ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "probeGuess", "scan_index")
        shapes = ((name, getattr(getattr(self, name), "shape", None)) for name in (*names, "objectGuess"))
        return "\n".join(["RawData:", *(f"  {name}: {shape}" for name, shape in shapes)])

    def _true_patches(self, scan: Scan, groups: Container) -> NDArray[np.complex64] | None:
        if self.Y is not None:
            patches = np.asarray(to_numpy(self.Y)).reshape(len(scan), scan.N, scan.N)[groups.indices]
        elif scan.object is not None:
            patches = extract_patches(scan.object, groups.positions - np.asarray(scan.object_origin), scan.N)
        else:
            return None
        return np.ascontiguousarray(np.moveaxis(patches, 1, -1)).astype(np.complex64, copy=False)


def get_relative_coords(coords_nn: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (G, 1, 2, 1) of groups of positions (G, 1, 2, C), and ``-(position - centre)`` (G, 1, 2, C).

    Raises
    ------
    DataError
        The positions are of another shape.
    """
    positions = np.asarray(coords_nn, dtype=np.float64)
    if positions.ndim != 4 or positions.shape[1:3] != (1, 2):
        raise DataError(f"coords_nn: shape {positions.shape} given, (groups, 1, 2, C) expected.")
    centres = positions.mean(axis=3, keepdims=True)
    return centres, centres - positions


def _of_the_model(diff3d: Any) -> str | None:
    """What real patterns are by the model at hand: the settings dictionary has it from the load or the run."""
    measurement = params.get("measurement", None)
    dtype = np.asarray(diff3d).dtype if getattr(diff3d, "dtype", None) is None else diff3d.dtype
    if measurement is None or dtype.kind != "f":
        return None
    by_contract = measurement == measurement_by_contract(dtype)
    logger.log(
        logging.INFO if by_contract else logging.WARNING,
        "diff3d is %s and taken for %s, which the model of this process was trained on; measurement= overrules that.",
        dtype,
        measurement,
    )
    return str(measurement)


def _warn_of_counts(patterns: NDArray[Any], measurement: str) -> None:
    """Say that patterns taken for amplitudes are whole numbers, as counts are and their square roots are not."""
    if measurement == "amplitude" and patterns.size and patterns.max() > 1 and (patterns == np.rint(patterns)).all():
        logger.warning(
            "diff3d is %s and taken for amplitude by PtychoPINN's contract, but holds whole numbers only; if these are "
            "counts, give integers or measurement='counts'.",
            patterns.dtype,
        )


def _coordinates(**named: ArrayLike) -> list[NDArray[np.float64]]:
    """Each as a (M,) array of numbers."""
    arrays = {name: np.asarray(values) for name, values in named.items()}
    for name, values in arrays.items():
        if values.ndim != 1 or values.dtype.kind not in "uif":
            raise DataError(f"{name}: {values.dtype} of shape {values.shape} given; expected one number per pattern.")
    return [values.astype(np.float64) for values in arrays.values()]
