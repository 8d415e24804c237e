"""The boundary between the physics and the array frameworks.

The physics is written against the array API standard. What the standard lacks is a closed list of primitives, the
:class:`Backend` protocol. NumPy's backend is complete but for gradients and is the reference; the other backends are
shims, found by entry point. No framework is imported until its shim is requested.
"""

from ptycho.backends.arrays import Array, cached_parts, device
from ptycho.backends.numpy_backend import NumpyBackend
from ptycho.backends.protocol import Backend
from ptycho.backends.registry import (
    array_namespace,
    available_backends,
    available_trainers,
    backend_for_training,
    get_backend,
    get_trainer,
    is_installed,
    resolve_device,
    to_numpy,
)

__all__ = [
    "Array",
    "Backend",
    "NumpyBackend",
    "array_namespace",
    "available_backends",
    "available_trainers",
    "backend_for_training",
    "cached_parts",
    "device",
    "get_backend",
    "get_trainer",
    "is_installed",
    "resolve_device",
    "to_numpy",
]
