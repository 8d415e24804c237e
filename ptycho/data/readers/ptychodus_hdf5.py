"""ptychodus's HDF5 files: a product, with its patterns in the same file or in the `diffraction.h5` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.data.readers.hdf5 import Hdf5File
from ptycho.data.readers.ptychodus import POSITIONS, matched, product_fields
from ptycho.errors import DataError

if TYPE_CHECKING:
    from ptycho.data.readers.registry import ScanFile

PATTERNS_FILE = "diffraction.h5"
_ON_DATASETS = {
    "object_pixel_height_m": ("object", "pixel_height_m"),
    "object_pixel_width_m": ("object", "pixel_width_m"),
    "object_center_x_m": ("object", "center_x_m"),
    "object_center_y_m": ("object", "center_y_m"),
}


class PtychodusHdf5Reader:
    """Reads ptychodus's product files and the patterns that belong to them.

    The patterns are in the same file (as this library writes them), or in the file given as `patterns_file`, or in
    `diffraction.h5` beside it; they are detector counts with the zero frequency in the middle. A pattern and a position
    belong together when they have the same index.
    """

    name = "ptychodus-hdf5"
    description = "a product file of ptychodus, .h5 with probe_position_x_m, object and probe"
    options = frozenset({"patterns_file"})

    def accepts(self, file: ScanFile) -> bool:
        """Recognise the file by its datasets; also one of patterns alone, to say what it lacks."""
        if not file.is_hdf5:
            return False
        with file.hdf5() as h5:
            return POSITIONS[1] in h5 or ("patterns" in h5 and "indexes" in h5)

    def read(self, file: ScanFile, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read the fields of the scan; `patterns_file` names the file of the patterns."""
        with file.hdf5() as h5:
            if POSITIONS[1] not in h5:
                raise DataError(
                    f"{file.path} holds patterns without positions; give the product file that belongs to them, with "
                    f"this file beside it as {PATTERNS_FILE}."
                )
            fields = product_fields(_Hdf5Product(h5))
            numbers = h5.array("probe_position_indexes", kinds="iu")
            stack = _stack(h5) if "patterns" in h5 and given.get("patterns_file") is None else None
        if stack is None:
            stack = read_stack(file, given.get("patterns_file"))
        indexes = stack.pop("indexes")
        return matched({**fields, **stack}, indexes, numbers)


def read_stack(product: ScanFile, given: Any) -> dict[str, Any]:
    """What the patterns' own file says: patterns, measurement, mask, detector pixel, and `indexes`.

    Parameters
    ----------
    product
        The product file.
    given
        The file of the patterns; None looks for `diffraction.h5` beside the product.

    Raises
    ------
    DataError
        If there is no such file, or it holds no patterns.
    """
    path = product.path.with_name(PATTERNS_FILE) if given is None else Path(given)
    if not path.is_file():
        where = f"there is no {path}" if given is not None else f"there is no {PATTERNS_FILE} beside it"
        raise DataError(
            f"{product.path} holds no diffraction patterns and {where}; name their file with --patterns-file."
        )
    with product.companion(path) if given is None else product.hdf5(path) as h5:
        if "patterns" not in h5:
            raise DataError(f"{path} lacks the dataset patterns, which a diffraction file of ptychodus has.")
        return _stack(h5)


class _Hdf5Product:
    """The vocabulary of a product in HDF5: quantities are attributes of the file, or of the object's dataset."""

    def __init__(self, h5: Hdf5File) -> None:
        self._h5, self.what = h5, str(h5.path)

    def array(self, name: str) -> NDArray[Any] | None:
        """A dataset."""
        return self._h5.array(name)

    def number(self, name: str) -> float | None:
        """An attribute that is a number."""
        node, key = _ON_DATASETS.get(name, ("/", name))
        value = self._h5.attribute(node, key)
        if value is None:
            return None
        if not np.isscalar(value) or isinstance(value, str):
            raise DataError(f"{self.what}: the attribute {key} is {value!r}, a number is expected.")
        return float(np.real(value))

    def text(self, name: str) -> str | None:
        """An attribute that is a text, or a dataset of one."""
        value = self._h5.attribute("/", name)
        return value if isinstance(value, str) else self._h5.text(name)


def _stack(h5: Hdf5File) -> dict[str, Any]:
    bad = h5.array("bad_pixels", kinds="bui")
    sizes = [h5.attribute("patterns", f"detector_pixel_{side}_m") for side in ("height", "width")]
    known = [float(size) for size in sizes if isinstance(size, np.number | float) and size > 0]
    if len(known) == 2 and abs(known[0] - known[1]) > 1e-6 * known[0]:
        raise DataError(
            f"{h5.path}: the detector's pixels are {known[0]:g} m high and {known[1]:g} m wide, square ones are "
            "expected; rebin the patterns."
        )
    return {
        "patterns": h5.patterns("patterns"),
        "measurement": "counts",
        "mask": None if bad is None else bad == 0,
        "detector_pixel_size": known[0] if known else None,
        "indexes": h5.array("indexes", kinds="iu"),
    }
