"""What many tests share: the array frameworks, a comparison of all that a result must keep, a simulated scan."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from ptycho.backends import array_namespace, device, get_backend
from ptycho.data import Scan
from ptycho.workflows.r_factor import predict_amplitudes, sample_of
from ptycho.workflows.results import Reconstruction

NAMESPACES = ("numpy", "numpy-readonly", "array_api_strict", "torch", "jax", "tensorflow")
"""Every array namespace that the physics is proved on; array-api-strict has the standard and nothing else."""

BACKENDS = ("numpy", "pytorch", "jax", "tensorflow")
"""Every backend of the library."""

_PACKAGE = {"numpy-readonly": "numpy", "pytorch": "torch"}


def installed(framework: str) -> bool:
    """Whether the framework of a namespace or a backend can be imported here."""
    return importlib.util.find_spec(_PACKAGE.get(framework, framework)) is not None


@contextlib.contextmanager
def compiled_quickly(kept: Path | None = None) -> Iterator[None]:
    """Less of JAX's compiler, which is most of the time of many tests; what is compiled means the same.

    Parameters
    ----------
    kept : folder from which what is compiled once is taken again.
    """
    if not installed("jax"):
        yield
        return
    jax = importlib.import_module("jax")
    cache = importlib.import_module("jax.experimental.compilation_cache.compilation_cache")
    changes: dict[str, Any] = {"jax_disable_most_optimizations": True}
    if kept is not None:
        changes |= {"jax_compilation_cache_dir": str(kept), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name, False) for name in changes}

    def apply(values: dict[str, Any]) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        if kept is not None:
            cache.reset_cache()

    apply(changes)
    try:
        yield
    finally:
        apply(before)


def namespace(name: str) -> Any:
    """The namespace of that name, as the core would find it on an array."""
    if name == "array_api_strict":
        return importlib.import_module(name)
    if name == "numpy-readonly":
        return ReadOnly()
    return get_backend(name).xp


class ReadOnly:
    """numpy's namespace; what its ``asarray`` makes cannot be written to."""

    def __init__(self) -> None:
        self._numpy = get_backend("numpy").xp
        self.__name__ = self._numpy.__name__

        @functools.wraps(self._numpy.asarray)
        def asarray(*args: Any, **kwargs: Any) -> np.ndarray:
            array = self._numpy.asarray(*args, **kwargs).view()
            array.flags.writeable = False
            return array

        self.asarray = asarray

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)


def compiles_every_shape(xp: Any) -> bool:
    """Whether each new shape costs the namespace a compilation, so that tests should draw few of them."""
    return xp.__name__.startswith("jax")


def tolerance(dtype: Any) -> float:
    """Rounding that a chain of sums and transforms may show, relative to the largest value: eps^(3/4).

    5e-6 in single and 2e-12 in double precision.
    """
    name = str(dtype)
    wide = any(kind in name for kind in ("float64", "complex128", "int64"))
    return float(np.finfo(np.float64 if wide else np.float32).eps) ** 0.75


def array(xp: Any, values: Any, dtype: str | None = None) -> Any:
    """``values`` as an array of the namespace, in the dtype of that name or their own; a copy."""
    return xp.asarray(np.array(values, dtype=dtype))


def as_numpy(array: Any) -> np.ndarray:
    """Host copy of an array of any framework."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().resolve_conj()
    return np.asarray(array)


def assert_close(actual: Any, desired: Any, *, rtol: float | None = None, atol: float = 0.0) -> None:
    """Assert the same namespace, device, shape, dtype and, to rounding, values.

    The largest error may be `rtol` times the largest desired value, plus `atol`; without `rtol` it is the tolerance of
    the dtype. A Python number is compared by value alone.
    """
    assert is_array(actual), f"{type(actual)} is not an array"
    if is_array(desired):
        assert array_namespace(actual) is array_namespace(desired), f"{type(actual)} instead of {type(desired)}"
        assert actual.dtype == desired.dtype, f"dtype {actual.dtype} instead of {desired.dtype}"
        assert device(actual) == device(desired), f"on {device(actual)} instead of {device(desired)}"
        assert tuple(actual.shape) == tuple(desired.shape), f"shape {actual.shape} instead of {desired.shape}"
    rtol = tolerance(actual.dtype) if rtol is None else rtol
    actual, desired = as_numpy(actual), as_numpy(desired)
    assert np.isfinite(actual).all() == np.isfinite(desired).all(), "not finite"
    if desired.size:
        error, allowed = float(np.abs(actual - desired).max()), rtol * float(np.abs(desired).max()) + atol
        assert error <= allowed, f"largest error {error:.3g}, allowed {allowed:.3g}"


def is_array(value: Any) -> bool:
    """Whether some framework calls this an array of its own."""
    try:
        array_namespace(value)
    except TypeError:
        return False
    return is_array_api_obj(value) or hasattr(value, "dtype")


def simulated_scan(M: int = 30, N: int = 16, *, photons: float = 1e4, modes: int = 1, seed: int = 0) -> Scan:
    """A small scan with Poisson counts, made without the library's physics at whole-pixel positions."""
    rng = np.random.default_rng(seed)
    side = 3 * N
    phase = np.cumsum(np.cumsum(rng.normal(size=(side, side)), 0), 1) / side
    image = (0.7 + 0.3 * np.cos(phase)) * np.exp(1j * np.sin(phase))
    x = np.arange(N) - N // 2
    envelope = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * (N / 6) ** 2))
    probe = np.stack([envelope * (x[:, None] / N) ** k * np.exp(1j * k) for k in range(modes)])
    corners = rng.integers(0, side - N + 1, size=(M, 2))
    patches = np.stack([image[r : r + N, c : c + N] for r, c in corners])
    waves = np.fft.fftshift(np.fft.fft2(patches[:, None] * probe, norm="ortho"), axes=(-2, -1))
    intensity = (np.abs(waves) ** 2).sum(axis=1)
    scale = photons / intensity.sum(axis=(1, 2)).mean()
    return Scan(
        patterns=rng.poisson(intensity * scale).astype(np.uint16),
        measurement="counts",
        positions=corners + N // 2,
        probe=(probe * np.sqrt(scale)).astype(np.complex64),
        object=image.astype(np.complex64),
        wavelength=1e-10,
        distance=1.0,
        detector_pixel_size=75e-6,
        name="simulated",
    )


def true_result(scan: Scan, **changes: Any) -> Reconstruction:
    """What is true of a simulated scan, as a reconstruction of it."""
    index = sample_of(len(scan))
    found = Reconstruction(
        object=scan.object,
        weight=np.ones(scan.object.shape, np.float32),
        probe=scan.probe,
        metrics={"r_factor": 0.1},
        measured=scan.amplitude(index),
        **{"origin": (0.0, 0.0), "positions": scan.positions, **changes},
    )
    return dataclasses.replace(found, predicted=predict_amplitudes(found, found.probe, found.positions[index]))


def prepared(preparation: str, command: list[str]) -> list[str]:
    """A command in whose process some Python has run first: limits and signals stay as they are set there.

    What `preexec_fn` is for, without a fork of this process, whose threads (JAX's) may hold locks.
    """
    program = f"import os, resource, signal, sys\n{preparation}\nos.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program, *command]
