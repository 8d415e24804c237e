"""Offsets within groups that remember the scan they were drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class LocalOffsets(np.ndarray[Any, np.dtype[np.floating]]):
    """A plain (G, 1, 2, C) array of PtychoPINN's local offsets; beside it the groups' places and what they are from.

    PtychoPINN's callers hand a model two arrays, patterns and local offsets. These tell nothing of where the groups lie
    or what the other patterns show, from which the estimate that a network corrects is made; so the offsets bring it
    along. Results of arithmetic and parts of the array are plain: ``positions`` and ``source`` are None there.
    """

    positions: NDArray[np.float64] | None = None
    source: Any = None

    @classmethod
    def of(cls, offsets: ArrayLike, positions: NDArray[np.float64], source: Any) -> LocalOffsets:
        """Offsets that remember.

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
