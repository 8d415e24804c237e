"""The settings dictionary that callers of PtychoPINN's names read.

It is written at two gates, when a run starts and when a bundle is loaded, and nothing in the library reads it. The
results of a run (``intensity_scale``, ``trained_model``) are added when it ends, for callers that save without naming a
model.
"""

from __future__ import annotations

from typing import Any

from ptycho.config.config import TrainingConfig
from ptycho.config.legacy import dataclass_to_legacy_dict, update_legacy_dict

LEGACY_ONLY: dict[str, Any] = {
    "offset": 4,
    "max_position_jitter": 10,
    "sim_jitter_scale": 0.0,
    "big_gridsize": 10,
    "outer_offset_train": None,
    "outer_offset_test": None,
    "default_probe_scale": 0.7,
    "nimgs_train": 9,
    "nimgs_test": 3,
    "size": 392,
    "data_source": "generic",
    "set_phi": False,
    "label": "",
    "h5_path": "wts.h5",
    "npseed": 42,
    "debug": False,
}


def default_values() -> dict[str, Any]:
    """Return the dictionary before any run: the default training configuration and the old names without a field."""
    known = {key: value for key, value in dataclass_to_legacy_dict(TrainingConfig()).items() if value is not None}
    return LEGACY_ONLY | known


cfg: dict[str, Any] = default_values()


def publish(config: Any, **extra: Any) -> None:
    """Write a configuration to :data:`cfg` for outside callers.

    Parameters
    ----------
    config
        ``TrainingConfig`` or ``InferenceConfig``.
    **extra
        Further entries, e.g. ``intensity_scale`` of a loaded bundle.
    """
    update_legacy_dict(cfg, config)
    cfg.update(extra)
