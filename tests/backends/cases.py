"""A call of every array function of the capability table, on host arrays in double precision that a seed decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ptycho import physics
from ptycho.backends import get_backend
from tests.backends.capabilities import TABLE, Row

Arrays = dict[str, Any]


class Sizes(NamedTuple):
    """Image H x W, patch side N, patches K, probe modes P."""

    H: int = 9
    W: int = 11
    N: int = 6
    K: int = 3
    P: int = 2


ONE_SIZE = Sizes()
SIZES = st.builds(
    Sizes,
    H=st.integers(4, 12),
    W=st.integers(4, 12),
    N=st.sampled_from([2, 4, 5, 6, 8]),
    K=st.integers(1, 4),
    P=st.integers(1, 3),
)


class Draw:
    """Arrays in general position."""

    def __init__(self, seed: int, sizes: Sizes = ONE_SIZE) -> None:
        self.rng, self.sizes = np.random.default_rng(seed), sizes

    def real(self, *shape: int) -> np.ndarray:
        return self.rng.uniform(0.5, 2.0, shape)

    def wave(self, *shape: int) -> np.ndarray:
        return self.real(*shape) * np.exp(1j * self.rng.uniform(-2.5, 2.5, shape))

    def patches(self) -> np.ndarray:
        return self.wave(self.sizes.K, self.sizes.N, self.sizes.N)

    def groups(self) -> np.ndarray:
        return self.wave(2, self.sizes.K, self.sizes.N, self.sizes.N)

    def probe(self) -> np.ndarray:
        return self.wave(self.sizes.P, self.sizes.N, self.sizes.N)

    def positions(self, *lead: int, low: float = -2.0, high: float = 11.0) -> np.ndarray:
        """In steps of 1/64 pixel, which single precision holds exactly; never whole, where a slope has a kink."""
        return np.floor(self.rng.uniform(low, high, (*lead, 2)) * 64) / 64 + 1 / 128

    def corners(self) -> np.ndarray:
        H, W = max(self.sizes.H, 4), max(self.sizes.W, 4)
        return np.stack([self.rng.integers(0, side - 3, (self.sizes.K, 2)) for side in (H, W)], -1).astype(np.int32)

    def shares(self) -> np.ndarray:
        return self.real(self.sizes.K, 2)

    def mask(self) -> np.ndarray:
        good = self.rng.random((self.sizes.N, self.sizes.N)) < 0.8
        good[0, 0] = True
        return good


@dataclass(frozen=True)
class Case:
    """One function of the core as a call; the first array is the one that gradients are taken by."""

    row: Row
    arrays: Callable[[Draw], Arrays]
    call: Callable[..., Any]

    @property
    def name(self) -> str:
        return f"{self.row.module}.{self.row.name}"

    def __call__(self, arrays: Arrays) -> list[Any]:
        """The result's arrays and numbers, flat."""
        result = self.call(**arrays)
        return list(result) if isinstance(result, tuple) else [result]


def _one(name: str, make: Callable[[Draw], Any]) -> Callable[[Draw], Arrays]:
    return lambda draw: {name: make(draw)}


def _pair(draw: Draw) -> Arrays:
    return {"patches": draw.patches(), "probe": draw.probe()}


def _thick(draw: Draw) -> Arrays:
    return {"slices[0]": draw.patches(), "slices[1]": draw.patches(), "probe": draw.probe()}


def _measured(draw: Draw) -> Arrays:
    return {**_pair(draw), "amplitude": 2 * draw.real(draw.sizes.K, draw.sizes.N, draw.sizes.N), "mask": draw.mask()}


def _placed(draw: Draw) -> Arrays:
    return {"patches": draw.patches(), "positions": draw.positions(draw.sizes.K)}


def _grouped(draw: Draw) -> Arrays:
    return {"patches": draw.groups(), "relative": draw.positions(2, draw.sizes.K, low=-2, high=2)}


def _losses(predicted: str, measured: str) -> Callable[[Draw], Arrays]:
    def arrays(draw: Draw) -> Arrays:
        shape = (draw.sizes.K, draw.sizes.N, draw.sizes.N)
        return {predicted: 5 * draw.real(*shape), measured: 6 * draw.real(*shape), "mask": draw.mask()}

    return arrays


def _lent(name: str) -> Callable[..., Any]:
    """A primitive of the backend that its first array belongs to."""
    return lambda *arrays, **named: getattr(get_backend([*arrays, *named.values()][0]), name)(*arrays, *named.values())


_CANVAS = (14, 15)

_CALLS: dict[str, tuple[Callable[[Draw], Arrays], Callable[..., Any]]] = {
    **{
        f"fourier.{name}": (_one("x", Draw.patches), getattr(physics, name))
        for name in ("fft2", "ifft2", "fftshift2", "ifftshift2")
    },
    "propagation.illuminate": (_pair, physics.illuminate),
    "propagation.far_field": (_one("exit_wave", Draw.patches), physics.far_field),
    "propagation.near_field": (
        _one("wave", Draw.patches),
        lambda wave: physics.near_field(wave, 2e-6, wavelength=1e-10, pixel_size=1e-8),
    ),
    "shifts.fourier_shift": (
        lambda draw: {"stack": draw.patches(), "by": draw.positions(draw.sizes.K)},
        lambda stack, by: physics.fourier_shift(stack, by),
    ),
    "slices.incoming_waves": (
        _thick,
        lambda probe, **slices: tuple(physics.incoming_waves(list(slices.values()), probe, physics.far_field)),
    ),
    "slices.multislice_intensity": (
        _thick,
        lambda probe, **slices: physics.multislice_intensity(
            list(slices.values()), probe, physics.far_field, physics.far_field
        ),
    ),
    "propagation.intensity": (_one("wave", Draw.patches), physics.intensity),
    "propagation.diffraction_intensity": (_pair, physics.diffraction_intensity),
    "propagation.diffraction_amplitude": (_pair, physics.diffraction_amplitude),
    "patches.extract_patches": (
        lambda draw: {"image": draw.wave(draw.sizes.H, draw.sizes.W), "positions": draw.positions(draw.sizes.K)},
        lambda image, positions: physics.extract_patches(image, positions, 5),
    ),
    "patches.accumulate_patches": (
        _placed,
        lambda patches, positions: physics.accumulate_patches(patches, positions, _CANVAS),
    ),
    "patches.place_patches": (_placed, lambda patches, positions: physics.place_patches(patches, positions, _CANVAS)),
    "reassembly.reassemble": (
        _placed,
        lambda patches, positions: physics.reassemble(patches, positions, shape=_CANVAS, origin=(-2.0, -2.0))[:2],
    ),
    "reassembly.merge_groups": (
        lambda draw: {**_grouped(draw), "window": draw.real(draw.sizes.N, draw.sizes.N)},
        lambda patches, relative, window: physics.merge_groups(patches, relative, 12, window),
    ),
    "reassembly.extract_groups": (
        lambda draw: {"objects": draw.wave(2, 12, 12), "relative": draw.positions(2, draw.sizes.K, low=-2, high=2)},
        lambda objects, relative: physics.extract_groups(objects, relative, 6),
    ),
    "likelihood.poisson_nll": (_losses("I_pred", "I_meas"), physics.poisson_nll),
    "likelihood.mae": (_losses("A_pred", "A_meas"), physics.mae),
    "regularisation.squared_gradient": (_one("object", Draw.patches), physics.squared_gradient),
    "regularisation.complex_mae": (lambda draw: {"a": draw.patches(), "b": draw.patches()}, physics.complex_mae),
    "updates.pie_object_update": (_measured, physics.pie_object_update),
    "updates.exit_wave_update": (_measured, physics.exit_wave_update),
    "photons.normalise_amplitude": (
        lambda draw: {"amplitude": draw.real(draw.sizes.K, draw.sizes.N, draw.sizes.N), "mask": draw.mask()},
        physics.normalise_amplitude,
    ),
    "photons.photons_per_pattern": (_pair, physics.photons_per_pattern),
    "photons.photon_scale": (_pair, lambda patches, probe: physics.photon_scale(patches, probe, 1e4)),
    "probe.scale_probe_to_counts": (_one("probe", Draw.probe), lambda probe: physics.scale_probe_to_counts(probe, 1e4)),
    "probe.normalise_probe": (_one("probe", lambda draw: draw.wave(draw.sizes.P, 8, 8)), physics.normalise_probe),
    "Backend.gather_windows": (
        lambda draw: {
            "image": draw.wave(draw.sizes.H, draw.sizes.W),
            "corners": draw.corners(),
            "weights": draw.shares(),
        },
        lambda image, corners, weights: _lent("gather_windows")(image, corners, weights, 4),
    ),
    "Backend.scatter_windows": (
        lambda draw: {"windows": draw.wave(draw.sizes.K, 4, 4), "corners": draw.corners(), "weights": draw.shares()},
        lambda windows, corners, weights: _lent("scatter_windows")(windows, corners, weights, (12, 12)),
    ),
    "Backend.conv2d": (
        lambda draw: {"x": draw.real(2, 6, 8, 3), "kernel": draw.real(3, 3, 3, 2) - 1, "bias": draw.real(2)},
        lambda x, kernel, bias: _lent("conv2d")(x, kernel, bias),
    ),
    "Backend.relu": (_one("x", lambda draw: draw.real(2, 6, 8, 3) - 1), _lent("relu")),
    "Backend.max_pool2d": (_one("x", lambda draw: draw.real(2, 6, 8, 3)), _lent("max_pool2d")),
    "Backend.stop_gradient": (_one("a", Draw.patches), _lent("stop_gradient")),
}

CASES: list[Case] = [Case(row, *_CALLS[key]) for row in TABLE if (key := f"{row.module}.{row.name}") in _CALLS]
"""In the order of the table."""


def cast(arrays: Arrays, dtype: str) -> Arrays:
    """The arrays in the precision of a real dtype; whole numbers and masks as they are."""
    kinds = {"float64": dtype, "complex128": {"float32": "complex64", "float64": "complex128"}[dtype]}
    return {name: values.astype(kinds.get(str(values.dtype), values.dtype)) for name, values in arrays.items()}
