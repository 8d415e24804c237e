"""ptychopinn: ptychographic imaging by physics-informed networks, on any array framework.

The names below are the public interface. They are imported when first used, so that `import ptycho` is immediate and
touches no framework and no device.
"""

from importlib import import_module
from typing import Any

from ptycho._version import __version__

_HOME = {
    "ptycho.backends": ("array_namespace", "get_backend", "get_trainer"),
    "ptycho.config": ("InferenceConfig", "ModelConfig", "TrainingConfig"),
    "ptycho.data": (
        "Container",
        "Scan",
        "bin_detector",
        "crop_detector",
        "group_positions",
        "load_scan",
        "make_container",
        "save_npz",
    ),
    "ptycho.errors": ("BackendError", "ConfigError", "DataError", "OutputError", "PtychoError"),
    "ptycho.evaluation": ("evaluate", "fourier_ring_correlation", "register"),
    "ptycho.model.bundle": ("Bundle", "load_bundle", "save_bundle"),
    "ptycho.physics": (
        "Canvas",
        "accumulate_patches",
        "diffraction_amplitude",
        "diffraction_intensity",
        "extract_patches",
        "far_field",
        "illuminate",
        "near_field",
        "reassemble",
        "simulate",
    ),
    "ptycho.workflows.reconstruct": ("reconstruct",),
    "ptycho.workflows.results": ("Reconstruction", "load_reconstruction", "save_reconstruction"),
    "ptycho.workflows.train": ("train",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ptycho' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside what is loaded."""
    return sorted({*globals(), *__all__})
