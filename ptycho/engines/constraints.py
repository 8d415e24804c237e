"""What an object and a probe are known to be like, imposed after every epoch."""

from __future__ import annotations

import numpy as np

from ptycho.backends import Array, Backend, array_namespace, device, get_backend, to_numpy
from ptycho.config.engines import EngineSettings
from ptycho.physics.probe import disc_mask
from ptycho.physics.propagation import intensity

__all__ = ["constrain_object", "constrain_probe", "orthogonal_modes", "smoothed", "total_variation_step"]


def constrain_object(image: Array, config: EngineSettings) -> Array:
    """An object (H, W) within the limits of the settings."""
    if config.object_tv:
        image = total_variation_step(image, config.object_tv)
    if config.object_smoothness:
        image = image * (1.0 - config.object_smoothness) + smoothed(image) * config.object_smoothness
    if config.amplitude_limit is not None:
        image = _limited_amplitude(image, config.amplitude_limit)
    if config.phase_limit is not None:
        image = _limited_phase(image, config.phase_limit)
    return image


def constrain_probe(probe: Array, config: EngineSettings, power: float, backend: Backend) -> Array:
    """A probe (P, N, N) on its support, with orthogonal modes, and with the power where that is to be kept."""
    xp = backend.xp
    if config.probe_support is not None:
        size = probe.shape[-1]
        inside = backend.asarray(disc_mask(size, config.probe_support * size), dtype="bool", device=device(probe))
        probe = xp.where(inside, probe, xp.zeros_like(probe))
    if probe.shape[0] > 1:
        probe = orthogonal_modes(probe)
    if config.keep_probe_power:
        probe = probe * xp.astype(xp.sqrt(power / xp.sum(intensity(probe))), probe.dtype)
    return probe


def orthogonal_modes(probe: Array) -> Array:
    """The same incoherent beam in mutually orthogonal modes (P, N, N), the strongest first.

    The modes are turned into the eigenvectors of their Gram matrix; every pattern stays as it is. Each keeps the phase
    of the old mode that it is most like.
    """
    xp = array_namespace(probe)
    flat = xp.reshape(probe, (probe.shape[0], -1))
    turn = _turn(to_numpy(flat @ xp.permute_dims(xp.conj(flat), (1, 0))))
    lent = get_backend(probe).asarray(turn, device=device(probe))
    return xp.reshape(xp.astype(lent, probe.dtype) @ flat, tuple(probe.shape))


def _turn(gram: np.ndarray) -> np.ndarray:
    """Unitary matrix from old modes to orthogonal ones; host arrays."""
    _, vectors = np.linalg.eigh(gram.astype(np.complex128))
    turn = np.conj(vectors[:, ::-1]).T
    likest = turn[np.arange(turn.shape[0]), np.argmax(np.abs(turn), axis=1)]
    return turn * (np.conj(likest) / np.abs(likest))[:, None]


def smoothed(image: Array) -> Array:
    """Mean of the four neighbours of every pixel, the edge repeated."""
    xp = array_namespace(image)
    up = xp.concat([image[:1, :], image[:-1, :]], axis=0)
    down = xp.concat([image[1:, :], image[-1:, :]], axis=0)
    left = xp.concat([image[:, :1], image[:, :-1]], axis=1)
    right = xp.concat([image[:, 1:], image[:, -1:]], axis=1)
    return (up + down + left + right) * 0.25


def total_variation_step(image: Array, weight: float, edge: float = 0.05) -> Array:
    r"""One step down the total variation :math:`\sum \sqrt{|\nabla O|^2 + \epsilon^2}`, which keeps edges.

    Parameters
    ----------
    image : (H, W) complex.
    weight : length of the step; up to a quarter of ``edge`` it is stable.
    edge : :math:`\epsilon`, differences below which smoothing is as of a quadratic.
    """
    xp = array_namespace(image)
    row = xp.zeros((1, image.shape[1]), dtype=image.dtype, device=device(image))
    column = xp.zeros((image.shape[0], 1), dtype=image.dtype, device=device(image))
    down = xp.concat([image[1:, :] - image[:-1, :], row], axis=0)
    right = xp.concat([image[:, 1:] - image[:, :-1], column], axis=1)
    size = xp.astype(xp.sqrt(intensity(down) + intensity(right) + edge**2), image.dtype)
    down, right = down / size, right / size
    inward = down - xp.concat([row, down[:-1, :]], axis=0) + right - xp.concat([column, right[:, :-1]], axis=1)
    return image + min(weight, edge / 4) * inward


def _limited_amplitude(image: Array, limit: float) -> Array:
    xp = array_namespace(image)
    amplitude = xp.sqrt(intensity(image))
    over = amplitude > limit
    factor = xp.where(over, limit / xp.where(over, amplitude, xp.ones_like(amplitude)), xp.ones_like(amplitude))
    return image * xp.astype(factor, image.dtype)


def _limited_phase(image: Array, limit: float) -> Array:
    """Phases within ``limit`` of the phase of the object's mean."""
    xp = array_namespace(image)
    mean = xp.mean(image)
    size = xp.sqrt(intensity(mean))
    turn = mean / xp.astype(xp.where(size > 0, size, xp.ones_like(size)), image.dtype)
    turned = image * xp.conj(turn)
    phase = xp.atan2(xp.imag(turned), xp.real(turned))
    held = xp.clip(phase, -limit, limit)
    amplitude = xp.sqrt(intensity(image))
    real, imag = xp.astype(amplitude * xp.cos(held), image.dtype), xp.astype(amplitude * xp.sin(held), image.dtype)
    return xp.where(phase == held, image, (real + imag * 1j) * turn)
