"""The backends that are registered, found by name or by the array that they belong to.

Every backend but NumPy's is a shim that registers itself through the entry-point group ``ptycho.backends``, and its
training loop through ``ptycho.trainers``. No framework is imported until its shim is requested.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.metadata import entry_points
from typing import Any

import array_api_compat
import numpy as np

from ptycho.backends.arrays import Array
from ptycho.backends.generic_backend import GenericBackend
from ptycho.backends.numpy_backend import NumpyBackend
from ptycho.backends.protocol import Backend
from ptycho.errors import BackendError

__all__ = [
    "array_namespace",
    "available_backends",
    "available_trainers",
    "backend_for_training",
    "get_backend",
    "get_trainer",
    "is_installed",
    "resolve_device",
    "to_numpy",
]

_ALIASES = {"torch": "pytorch", "tf": "tensorflow"}
_EXTRAS = {"pytorch": "torch", "tensorflow": "tensorflow", "jax": "jax"}
_OPTIONAL_DEPENDENCY = {"pytorch": "torch", "tensorflow": "tensorflow", "jax": "jax"}


def array_namespace(*arrays: Any) -> Any:
    """The namespace of the array API standard that ``arrays`` (and Python numbers beside them) belong to.

    Raises
    ------
    TypeError
        The arrays are of different frameworks, or none of them is an array.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> xp = ptycho.array_namespace(np.ones(3))
    >>> float(xp.sum(xp.ones(3)))
    3.0
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not any(tensorflow.is_tensor(a) for a in arrays):
        return array_api_compat.array_namespace(*arrays)
    others = [a for a in arrays if not tensorflow.is_tensor(a) and array_api_compat.is_array_api_obj(a)]
    if others:
        raise TypeError(f"Multiple namespaces for array inputs: tensorflow and {type(others[0]).__module__}")
    return _backend_named("tensorflow").xp


def available_backends() -> list[str]:
    """Names of the backends that are registered, whether or not their framework is installed."""
    return ["numpy", *sorted(point.name for point in entry_points(group="ptycho.backends"))]


def available_trainers() -> list[str]:
    """Names of the backends that can train, whether or not their framework is installed."""
    return sorted(point.name for point in entry_points(group="ptycho.trainers"))


def is_installed(name: str) -> bool:
    """Whether the framework of a backend can be found; it is not imported."""
    framework = _OPTIONAL_DEPENDENCY.get(name)
    return framework is None or importlib.util.find_spec(framework) is not None


def get_backend(name_or_array: str | Array) -> Backend:
    """The backend of that name, or the one that an array belongs to.

    Parameters
    ----------
    name_or_array
        ``"numpy"``, ``"pytorch"`` (alias ``"torch"``), any other registered name, or an array of such a framework.
        Arrays of array API libraries without a shim (array-api-strict, CuPy) get a generic backend on their namespace.

    Raises
    ------
    BackendError
        The name is not registered, or its framework is not installed; the message says what to install.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> backend = ptycho.get_backend("numpy")
    >>> backend.to_numpy(backend.asarray([1, 2], dtype="float32"))
    array([1., 2.], dtype=float32)
    """
    if isinstance(name_or_array, str):
        return _backend_named(_ALIASES.get(name_or_array, name_or_array))
    if isinstance(name_or_array, np.ndarray | np.generic):
        return _NUMPY
    if array_api_compat.is_torch_array(name_or_array):
        return _backend_named("pytorch")
    if array_api_compat.is_jax_array(name_or_array):
        return _backend_named("jax")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.is_tensor(name_or_array):
        return _backend_named("tensorflow")
    return _generic_backend(array_namespace(name_or_array))


def get_trainer(name: str) -> type:
    """The training loop of a backend: a class ``Trainer(config, callbacks)`` with ``fit(container, validation)``.

    Raises
    ------
    BackendError
        The backend cannot train, is not registered, or its framework is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho
    >>> try:
    ...     trainer = ptycho.get_trainer("numpy")
    ... except ptycho.BackendError as error:
    ...     print(type(error).__name__)
    BackendError
    """
    name = _ALIASES.get(name, name)
    if name == "numpy":
        raise BackendError("The numpy backend cannot train; choose backend='pytorch' (pip install ptychopinn[torch]).")
    return _load("ptycho.trainers", name)


def backend_for_training(name: str) -> Backend:
    """The backend of that name, refused before any work is done if it cannot train."""
    get_trainer(name)
    return get_backend(name)


def resolve_device(backend: Backend, device: Any) -> Any:
    """The device on which a backend computes, tried with one number unless it is the CPU.

    Parameters
    ----------
    backend
        Whose device it is.
    device
        As a user names it: ``cpu``, ``cuda:1``, ...; None or ``auto`` is the backend's best.

    Raises
    ------
    BackendError
        The backend cannot compute there.
    """
    if device is None or (isinstance(device, str) and device == "auto"):
        return backend.best_device()
    if isinstance(device, str) and device == "cpu":
        return device
    try:
        backend.to_numpy(backend.asarray(np.zeros(1, "float32"), device=device))
    except BackendError:
        raise
    except Exception as error:  # each framework has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackendError(
            f"device: {device!r} cannot be used by {backend.name} here ({reason}); choose --device cpu or auto."
        ) from error
    return device


def to_numpy(a: Array) -> np.ndarray:
    """Host array of ``a``, whichever framework it belongs to."""
    if isinstance(a, np.ndarray):
        return a
    return get_backend(a).to_numpy(a)


@functools.cache
def _backend_named(name: str) -> Backend:
    if name == "numpy":
        return _NUMPY
    return _load("ptycho.backends", name)()


def _load(group: str, name: str) -> Any:
    points = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        known = ", ".join(["numpy", *sorted(points)])
        raise BackendError(f"backend: {name!r} is not available; choose one of: {known}.")
    try:
        return points[name].load()
    except ImportError as error:
        wanted = _OPTIONAL_DEPENDENCY.get(name, name)
        raise BackendError(
            f"The {name} backend needs {wanted}, which could not be imported ({error}); "
            f"install it with: pip install ptychopinn[{_EXTRAS.get(name, name)}]"
        ) from error


@functools.cache
def _generic_backend(xp: Any) -> Backend:
    return GenericBackend(xp)


_NUMPY = NumpyBackend()
