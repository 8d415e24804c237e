"""Offsets within groups that remember the scan they were drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.data.scan import Scan


class LocalOffsets(np.ndarray[Any, np.dtype[np.floating]]):
    """A plain (G, 1, 2, C) array of PtychoPINN's local offsets, and beside it the scan and the groups' places in it.

    PtychoPINN's callers hand a model two arrays, patterns and local offsets. These tell nothing of where the groups lie
    or what the other patterns show, from which the estimate that a network corrects is made; so the offsets bring it
    along. Results of arithmetic and parts of the array are plain: ``scan`` and ``positions`` are None there.
    """

    scan: Scan | None = None
    positions: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, offsets: ArrayLike, positions: NDArray[np.float64], scan: Scan) -> LocalOffsets:
        """Offsets that remember.

        Parameters
        ----------
        offsets
            (G, 1, 2, C) pixels, [x, y], -(position - centre).
        positions
            (G, C, 2) pixels, (row, col), where the groups' patterns lie.
        scan
            What they were drawn from.
        """
        array = np.array(offsets).view(cls)
        array.positions, array.scan = positions, scan
        return array
