"""PtychoPINN's name for a scan of its PyTorch side: a :class:`~ptycho.raw_data.RawData`, which needs no PyTorch."""

from __future__ import annotations

from typing import Any

from ptycho.compat.raw_data import RawData
from ptycho.config import publish

__all__ = ["RawDataTorch"]


class RawDataTorch(RawData):
    """A scan under PtychoPINN's names.

    Parameters
    ----------
    xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess
        As of :class:`~ptycho.compat.raw_data.RawData`.
    config
        A configuration, which is published for callers of PtychoPINN's dictionary, and whose ``gridsize`` groups are
        made with; None leaves both to the dictionary.
    """

    def __init__(
        self,
        xcoords: Any,
        ycoords: Any,
        diff3d: Any,
        probeGuess: Any,
        scan_index: Any,
        objectGuess: Any = None,
        config: Any = None,
    ) -> None:
        super().__init__(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)
        self.config = config
        if config is not None:
            publish(config)

    def generate_grouped_data(  # type: ignore[override]  # PtychoPINN puts dataset_path last here
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        seed: int | None = None,
        sequential_sampling: bool = False,
        gridsize: int | None = None,
        dataset_path: str | None = None,
    ) -> dict[str, Any]:
        """See :class:`~ptycho.compat.raw_data.RawData`."""
        if gridsize is None and self.config is not None:
            gridsize = self.config.model.gridsize
        return super().generate_grouped_data(N, K, nsamples, dataset_path, seed, sequential_sampling, gridsize)
