"""Offsets within groups that carry a reference to the scan they were drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class LocalOffsets(np.ndarray[Any, np.dtype[np.floating]]):
    """A (G, 1, 2, C) array of PtychoPINN's local offsets with the groups' positions and their scan as attributes.

    PtychoPINN's callers pass a model two arrays, patterns and local offsets. Neither contains the positions of the
    groups or the other patterns, which the estimate that a network corrects is computed from; so the offsets carry
    them. Results of arithmetic and parts of the array are plain: ``positions`` and ``source`` are None there.
    """

    positions: NDArray[np.float64] | None = None
    source: Any = None

    @classmethod
    def of(cls, offsets: ArrayLike, positions: NDArray[np.float64], source: Any) -> LocalOffsets:
        """Offsets with their positions and their scan.

        Parameters
        ----------
        offsets
            (G, 1, 2, C) pixels, [x, y], -(position - centre).
        positions
            (G, C, 2) pixels, (row, col), where the groups' patterns lie.
        source
            The scan that they were drawn from, or a container that shows it.
        """
        array = np.array(offsets).view(cls)
        array.positions, array.source = positions, source
        return array
