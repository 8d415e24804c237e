"""PtychoPINN's name for a scan to train on or to reconstruct, from a folder or from arrays."""

from __future__ import annotations

import logging
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.config import torch_fields
from ptycho.data import Scan, load_scan, measurement_by_contract
from ptycho.errors import ConfigError, DataError
from ptycho_torch.api.configs import ConfigManager, member, warn_of

__all__ = ["DataloaderFormats", "PtychoDataLoader"]

logger = logging.getLogger(__name__)

_MEMORY_MAP = "data/memmap"
_DOMAINS = {"count_intensity": "counts", "normalized_amplitude": "amplitude"}


class DataloaderFormats(Enum):
    """PtychoPINN's ways of feeding its loops; the library has one, and all name it."""

    LIGHTNING_MODULE = "lightning_module"
    LIGHTNING_ONLY_MODULE = "lightning_only_module"
    TENSORDICT = "tensordict"
    DATALOADER = "pytorch"
    NUMPY = "numpy"


class PtychoDataLoader:
    """A scan to train on or to reconstruct.

    Parameters
    ----------
    data_dir
        Folder of a scan: its only ``.npz``, or ``train_data.npz`` among several; or the file itself.
    config_manager
        Settings; else ``data_config``, ``model_config`` and ``training_config``.
    data_format
        One of :class:`DataloaderFormats` or its value.
    output_dir
        A training is kept in ``run_<timestamp>`` in this folder.
    timestamp
        Text; None takes the time.
    memory_map_dir
        Without effect: patterns stay in their file until they are needed.

    Raises
    ------
    DataError
        There is not one scan to take, or it cannot be read.
    ConfigError
        A setting is unknown.
    """

    def __init__(
        self,
        data_dir: str | Path,
        config_manager: ConfigManager | None = None,
        data_config: Any = None,
        model_config: Any = None,
        training_config: Any = None,
        data_format: DataloaderFormats | str = DataloaderFormats.LIGHTNING_MODULE,
        output_dir: str | Path | None = None,
        timestamp: str | None = None,
        memory_map_dir: str | None = _MEMORY_MAP,
    ) -> None:
        manager = config_manager or ConfigManager(data_config, model_config, training_config)
        warn_of(["memory_map_dir"] if memory_map_dir not in (_MEMORY_MAP, None) else [])
        self.data_format = member(DataloaderFormats, "data_format", data_format)
        self.data_dir, self.file = Path(data_dir), _scan_file(Path(data_dir))
        domain = manager.data_config.measurement_domain
        stated = {} if domain == torch_fields.DataConfig.measurement_domain else {"measurement": _measurement(domain)}
        self.scan = load_scan(self.file, **stated)
        logger.info("%s holds %s of %s.", self.file, self.scan.measurement, self.scan.patterns.dtype)
        self._prepare(manager, output_dir, timestamp or datetime.now().strftime("%Y%m%d_%H%M%S"))

    @classmethod
    def from_np(
        cls,
        diff_patterns: Any,
        probe: Any,
        positions: Any,
        config_manager: ConfigManager | None = None,
        data_config: Any = None,
        model_config: Any = None,
        training_config: Any = None,
        scaling_constant: float | None = None,
        output_dir: str | Path | None = None,
        timestamp: str | None = None,
        *,
        measurement: str | None = None,
    ) -> PtychoDataLoader:
        """A scan of arrays.

        Parameters
        ----------
        diff_patterns
            (M, N, N) real or integer, the zero frequency at ``[N//2, N//2]``. Integers are counts. Real numbers are
            what the loaded model was trained on, or without one what ``measurement_domain`` says, which is counts
            unless it was set; the decision is logged.
        probe
            (N, N) or (P, N, N) complex.
        positions
            (M, 2) pixels of the object, [y, x] = [row, column] of the patches' centres.
        config_manager, data_config, model_config, training_config
            Settings, as of the class.
        scaling_constant
            Without effect: the scale is measured.
        output_dir, timestamp
            A training is kept in ``output_dir``, or in ``run_<timestamp>`` in it.
        measurement
            "counts" or "amplitude"; overrules all others.

        Raises
        ------
        DataError
            The arrays are no scan.
        """
        self = cls.__new__(cls)
        manager = config_manager or ConfigManager(data_config, model_config, training_config)
        warn_of(["scaling_constant"] if scaling_constant is not None else [])
        patterns = np.asarray(diff_patterns)
        self.data_format, self.data_dir, self.file = DataloaderFormats.NUMPY, None, None
        kind: Any = measurement or _measurement_of(patterns, manager)
        self.scan = Scan(
            patterns, kind, np.asarray(positions, np.float64), probe=None if probe is None else np.asarray(probe)
        )
        self._prepare(manager, output_dir, timestamp)
        return self

    data_dir: Path | None
    file: Path | None

    def _prepare(self, manager: ConfigManager, output_dir: str | Path | None, timestamp: str | None) -> None:
        self.data_config, self.model_config = manager.data_config, manager.model_config
        self.training_config = manager.training_config
        self.output_dir: str | None = None
        if output_dir is not None:
            self.output_dir = str(Path(output_dir) / f"run_{timestamp}" if timestamp else Path(output_dir))

    def __len__(self) -> int:
        """The number of patterns."""
        return len(self.scan)


def _scan_file(place: Path) -> Path:
    if place.is_file():
        return place
    found = sorted(place.glob("*.npz"))
    chosen = found if len(found) == 1 else [path for path in found if path.name == "train_data.npz"]
    if not chosen:
        names = ", ".join(path.name for path in found[:4]) or "no .npz"
        raise DataError(
            f"{place} holds {names}; expected one scan to train on: keep one .npz there, or name it train_data.npz."
        )
    others = [path.name for path in found if path not in chosen]
    if others:
        logger.warning("%s is trained on; not on %s.", chosen[0], ", ".join(others))
    return chosen[0]


def _measurement_of(patterns: np.ndarray, manager: ConfigManager) -> str:
    """What an array of patterns holds, and say who decided."""
    kind: str
    if patterns.dtype.kind != "f":
        kind, by = measurement_by_contract(patterns.dtype), "their type"
    elif manager.measurement is not None:
        kind, by = manager.measurement, "the model's training"
    else:
        kind, by = _measurement(manager.data_config.measurement_domain), "measurement_domain"
    logger.info("The patterns are %s and taken for %s by %s.", patterns.dtype, kind, by)
    return kind


def _measurement(domain: str) -> str:
    if domain not in _DOMAINS:
        raise ConfigError(f"measurement_domain = {domain} is not possible: expected one of {', '.join(_DOMAINS)}.")
    return _DOMAINS[domain]
