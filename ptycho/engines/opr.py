r"""Orthogonal probe relaxation (OPR): a beam that varies from pattern to pattern.

The probe of pattern k is :math:`a_k P + \sum_j b_{kj} E_j` in the first mode and :math:`a_k P_p` in the others: a
brightness, and a few components that all patterns share. Both are updated like object and probe, by least squares along
the change that a pattern requires. After every epoch the components are turned into the principal ones of the scan:
orthogonal to the mean probe and to each other, the strongest first, their weights of mean square 1. Sources: Odstrcil
et al., Opt. Express 24, 8360 (2016); Odstrcil, Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018), section 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho.backends import Array, array_namespace, to_numpy
from ptycho.physics.fourier import fft2, fftshift2, ifft2, ifftshift2
from ptycho.physics.modes import probe_modes
from ptycho.physics.propagation import intensity

__all__ = ["OPR", "first_components", "principal", "probes_of"]

_TINY = 1e-30
_SHARE = 0.25
"""Object, probe, components and weights follow the same change: with whole steps of all they would overshoot it."""


def probes_of(probe: Array, components: Array, weights: Array) -> Array:
    """The probes (k, P, N, N) of some patterns.

    Parameters
    ----------
    probe : (P, N, N) complex, the mean.
    components : (V, N, N) complex.
    weights : (k, 1 + V) complex, brightness and components.
    """
    xp = array_namespace(probe, components, weights)
    flat = xp.reshape(components, (components.shape[0], -1))
    varied = xp.reshape(weights[:, 1:] @ flat, (weights.shape[0], 1, *probe.shape[1:]))
    whole = weights[:, 0][:, None, None, None] * probe[None, ...]
    if probe.shape[0] == 1:
        return whole + varied
    return xp.concat([whole[:, :1, :, :] + varied, whole[:, 1:, :, :]], axis=1)


class OPR:
    """Components and weights of an epoch, and the sums of a batch.

    Parameters
    ----------
    components : (V, N, N) complex, of a backend.
    weights : (M, 1 + V) complex, of the host.
    to_device : from a host array to one of the backend, in its precision.
    """

    def __init__(self, components: Array, weights: np.ndarray, to_device: Callable[[np.ndarray], Array]) -> None:
        self.components, self.weights, self._to_device = components, weights, to_device
        self._sum: Any = None
        self._light: Any = None
        self._asked: list[tuple[np.ndarray, np.ndarray]] = []

    @classmethod
    def recall(
        cls, auxiliary: dict[str, Array], probe: Array, count: int, modes: int, to_device: Callable[[np.ndarray], Array]
    ) -> OPR:
        """The components and weights of the epochs before, or those to start from.

        Parameters
        ----------
        auxiliary : of the engine.
        probe : (P, N, N) complex.
        count, modes : M and V.
        """
        if "components" in auxiliary:
            return cls(auxiliary["components"], to_numpy(auxiliary["weights"]), to_device)
        weights = np.zeros((count, 1 + modes), dtype=np.complex128)  # host
        weights[:, 0] = 1.0
        return cls(to_device(first_components(to_numpy(probe[0, :, :]), modes)), weights, to_device)

    def end_epoch(self, probe: Array) -> tuple[Array, dict[str, Array]]:
        """The mean probe (P, N, N), and the principal components and their weights for the next epochs."""
        found = principal(to_numpy(probe), to_numpy(self.components), self.weights)
        mean, components, weights = (self._to_device(values) for values in found)
        return mean, {"components": components, "weights": weights}

    def probes(self, index: np.ndarray, probe: Array) -> Array:
        """The probes (k, P, N, N) of some patterns."""
        return probes_of(probe, self.components, self._to_device(self.weights[index]))

    def scaled(self, index: np.ndarray, patches: Array) -> Array:
        """Patches (k, N, N) times the brightness of their patterns: what multiplies the mean probe."""
        return patches * self._to_device(self.weights[index, 0])[:, None, None]

    def add(self, index: np.ndarray, patches: Array, probe: Array, exit_change: Array) -> None:
        """Add up what some patterns require: patches (k, N, N), mean probe (P, N, N), change (k, P, N, N)."""
        xp = array_namespace(patches, probe, exit_change)
        count, weights = index.size, self._to_device(self.weights[index, 1:])
        light = xp.reshape(intensity(patches), (count, -1))
        asked = xp.conj(patches)[:, None, :, :] * exit_change
        first = xp.reshape(asked[:, 0, :, :], (count, -1))
        flat = xp.reshape(self.components, (self.components.shape[0], -1))
        back = xp.permute_dims(xp.conj(weights), (1, 0))
        total, seen = back @ first, xp.permute_dims(intensity(weights), (1, 0)) @ light
        self._sum = total if self._sum is None else self._sum + total
        self._light = seen if self._light is None else self._light + seen
        bright = xp.sum(xp.real(xp.conj(probe)[None, ...] * asked), axis=(-3, -2, -1))
        power = (light @ xp.reshape(xp.sum(intensity(probe), axis=0), (-1, 1)))[:, 0]
        varied = first @ xp.permute_dims(xp.conj(flat), (1, 0))
        share = light @ xp.permute_dims(intensity(flat), (1, 0))
        own = to_numpy(bright / (power + _TINY))[:, None]
        self._asked.append((index, np.concatenate([own, to_numpy(varied) / to_numpy(share + _TINY)], axis=1)))  # host

    def apply(self, damping: float, step: float) -> None:
        """Change components and weights by what was added up, and forget it."""
        if self._sum is None:
            return
        xp = array_namespace(self._sum)
        most = xp.max(self._light, axis=1, keepdims=True)
        share = (1.0 - damping) * self._light + damping * most + _TINY
        change = xp.reshape(self._sum / xp.astype(share, self._sum.dtype), tuple(self.components.shape))
        self.components = self.components + change * (step * _SHARE)
        moved = self.weights.copy()  # host
        for index, asked in self._asked:
            moved[index] += asked * (step * _SHARE)  # host
        self.weights = moved
        self._sum = self._light = None
        self._asked = []


def first_components(probe: np.ndarray, count: int) -> np.ndarray:
    """(count, N, N) to start from: what a probe (N, N) changes by when it moves, spreads and turns; host arrays."""
    field = fftshift2(fft2(probe.astype(np.complex128)))
    return ifft2(ifftshift2(probe_modes(field, count + 1)[1:]))


def principal(
    probe: np.ndarray, components: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same beams by their mean and its principal variations; host arrays.

    The phase of a whole beam shows in no pattern: the brightness is made real.

    Parameters
    ----------
    probe, components, weights : as of :func:`probes_of`, of all patterns.
    """
    probe, weights = probe.astype(np.complex128), weights.astype(np.complex128)
    shape, flat = components.shape, components.reshape(len(components), -1).astype(np.complex128)
    mean = weights[:, 1:].mean(axis=0) / (weights[:, 0].mean() + _TINY)
    first = probe[0].ravel() + mean @ flat
    weights[:, 1:] -= weights[:, :1] * mean
    shared = flat @ first.conj() / max(float(np.sum(intensity(first))), _TINY)
    flat = flat - shared[:, None] * first
    weights[:, 0] += weights[:, 1:] @ shared
    weights = weights * (np.abs(weights[:, :1]) / (weights[:, :1] + _TINY))
    level = max(float(np.real(weights[:, 0]).mean()), _TINY)
    probe = np.concat([np.reshape(first, (1, *shape[1:])), probe[1:]]) * level
    weights[:, 0] /= level
    values, turn = np.linalg.eigh(weights[:, 1:].conj().T @ weights[:, 1:] / len(weights))
    size = np.sqrt(np.maximum(values, 1e-12 * max(float(values.max()), _TINY)))
    flat = (turn * size).conj().T @ flat
    own = weights[:, 1:] @ (turn / size)
    _, turn = np.linalg.eigh(flat @ flat.conj().T)
    turn = turn[:, ::-1]
    weights = np.concat([weights[:, :1], own @ turn], axis=1)
    return probe, np.reshape(turn.conj().T @ flat, shape), weights
