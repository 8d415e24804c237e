r"""PtychoPINN: the network, the physics behind it and the loss, as pure functions of a flat parameter dictionary.

A batch of groups goes through: scaled diffraction (and the estimate of the iterative engine, if there is one) ->
network -> complex patches -> merge within each group -> the C patches read back -> probe -> far field -> expected
counts -> likelihood.

Units. The probe of the model is ``exp(log_scale) * P / (probe_scale * mean(|mask * P|))`` in sqrt(photons).
``log_scale`` starts at the value at which the brightest patterns mean full transmission: amplitudes then lie in 0 ...
1, where the sigmoid can reach them, whatever the power of the probe in the file. It is a parameter like any other:
trained when asked, and saved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ptycho.backends import Array, Backend, device
from ptycho.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.model.generators import Generator, channels, find_generator
from ptycho.physics.likelihood import mae, poisson_nll
from ptycho.physics.probe import disc_mask, normalise_probe
from ptycho.physics.propagation import diffraction_intensity, far_field, intensity
from ptycho.physics.reassembly import extract_groups, merge_groups
from ptycho.physics.regularisation import complex_mae, squared_gradient
from ptycho.physics.updates import pie_object_update

__all__ = ["PtychoPINN", "initial_parameters"]


_WINDOW_FLOOR = 1e-3
"""Smallest merging weight of a pixel relative to the probe's peak, so that dark pixels of a patch still count."""
_DARK = 1e-12
"""Part of the probe's peak under which a pixel is dark: a Gaussian's tail makes subnormal numbers of everything that it
is multiplied with, and convolutions are ten times slower on those."""


def initial_parameters(
    config: ModelConfig,
    probe: np.ndarray,
    nphotons: float,
    seed: int,
    brightness: float = 1.0,
    generator: Generator | None = None,
) -> dict[str, np.ndarray]:
    """Every parameter of the model on the host, float32.

    Parameters
    ----------
    config : the model; validated.
    probe : (P, N, N) complex, in any unit.
    nphotons : mean photons per pattern.
    seed : of the network's weights.
    brightness : power of the beam over the mean power of a pattern, >= 1, estimated from the brightest patterns.
    generator : the network; default the one that ``config.architecture`` names.

    Returns
    -------
    What the network learns (for the cnn ``encoder/...``, ``amplitude/...``, ``phase/...``), ``probe/real`` and
    ``probe/imag`` (P, N, N) normalised as CONVENTIONS say, and ``log_scale`` ().
    """
    network = generator or find_generator(config.architecture)
    params = {name: np.asarray(values, np.float32) for name, values in network.init(config, seed).items()}
    taken = sorted({"probe/real", "probe/imag", "log_scale"} & set(params))
    if taken:
        raise ConfigError(f"architecture: the network names a parameter {taken[0]!r}, which is the model's own.")
    normed = normalise_probe(np.astype(probe, np.complex64), config.probe_scale)
    size = np.abs(normed)
    normed = np.where(size > _DARK * size.max(), normed, 0.0)
    params["probe/real"] = np.astype(np.real(normed), np.float32)
    params["probe/imag"] = np.astype(np.imag(normed), np.float32)
    power = float(np.sum(intensity(normed)))
    params["log_scale"] = np.asarray(0.5 * math.log(brightness * nphotons / power), dtype=np.float32)
    return params


@dataclass(frozen=True)
class PtychoPINN:
    """The model without its parameters: settings, physics and loss as functions of them.

    Parameters
    ----------
    config : the model's settings; validated.
    backend : whose arrays the parameters and batches are.
    intensity_scale : s; ``s * X`` is the measured amplitude in sqrt(photons).
    side : pixels of a group's own canvas, from :func:`ptycho.physics.reassembly.group_canvas_size`.
    mask : (N, N) bool on the host, True on good detector pixels; None where all are.
    merge_window : (N, N) weights on the host, with which the patches of a group are averaged.
    generator : the network; None takes the one that ``config.architecture`` names.

    A batch is a dictionary: ``X`` (B, N, N, C) normalised amplitude; ``relative`` (B, C, 2) position minus the group's
    centre, (row, col) pixels; ``start`` (B, C, N, N) complex, object estimate at the patches, where the model has one;
    ``patches`` (B, C, N, N) complex, the truth, for supervised training.
    """

    config: ModelConfig
    backend: Backend
    intensity_scale: float
    side: int
    mask: np.ndarray | None = None
    merge_window: np.ndarray | None = None
    generator: Generator | None = None

    def probe(self, params: dict[str, Array]) -> Array:
        """(P, N, N) complex probe in sqrt(photons), masked where the configuration says so."""
        xp = self.backend.xp
        modes = _complex(xp, params["probe/real"], params["probe/imag"])
        modes = modes * xp.astype(xp.exp(params["log_scale"]), modes.dtype)
        if self.config.probe_mask:
            modes = modes * xp.astype(self._constant(disc_mask(self.config.N), modes), modes.dtype)
        return modes

    def patches(self, params: dict[str, Array], batch: dict[str, Array]) -> Array:
        """Object patches (B, C, N, N) complex; those of one group agree where they overlap."""
        if self.config.start_iterations is None:
            seen = batch["X"] * self.intensity_scale * self.backend.xp.exp(-params["log_scale"])
            return self.consistent(self._answer(params, seen), batch["relative"])
        start, update, seen = self._known(params, batch)
        answer = self._answer(params, seen)
        if self.config.start_iterations == 0:  # the patches of single patterns disagree before they are merged
            return self.consistent((start + update) * answer, batch["relative"])
        return start * self.consistent(answer, batch["relative"])

    def correction(self, params: dict[str, Array], batch: dict[str, Array]) -> Array:
        """Factor (B, C, N, N) complex on the object estimate at the patches; needs start_iterations above 0."""
        return self.consistent(self._answer(params, self._known(params, batch)[2]), batch["relative"])

    def consistent(self, patches: Array, relative: Array) -> Array:
        """The C patches of each group after merging them into one: they agree where they overlap."""
        if self.config.gridsize == 1:
            return patches
        window = None if self.merge_window is None else self._constant(self.merge_window, patches)
        xp = self.backend.xp
        at = relative if patches.shape[1] > 1 else xp.zeros_like(relative[:, :1, :])
        return extract_groups(merge_groups(patches, at, self.side, window), relative, self.config.N)

    def expected_counts(self, params: dict[str, Array], patches: Array) -> Array:
        """Photons per pixel (B, C, N, N) that the patches predict."""
        propagate = far_field if self.config.gaussian_smoothing_sigma == 0 else self._smoothed_far_field
        return diffraction_intensity(patches, self.probe(params), propagate)

    def loss(
        self, params: dict[str, Array], batch: dict[str, Array], weights: TrainingConfig
    ) -> tuple[Array, dict[str, Array]]:
        """Weighted loss and its terms, each a mean over the batch; see CONVENTIONS, losses."""
        xp = self.backend.xp
        patches = self.patches(params, batch)
        terms: dict[str, Array] = {}
        if self.config.model_type == "supervised":
            if "patches" not in batch:
                raise ConfigError("model_type: 'supervised' needs a scan with its object (objectGuess) to learn from.")
            terms["realspace"] = complex_mae(patches, batch["patches"])
            total = terms["realspace"]
        else:
            predicted = self.expected_counts(params, patches)
            measured = xp.permute_dims(batch["X"], (0, 3, 1, 2)) * self.intensity_scale
            mask = None if self.mask is None else self._constant(self.mask, predicted, "bool")
            terms["nll"] = poisson_nll(I_pred=predicted, I_meas=measured * measured, mask=mask)
            total = terms["nll"] * weights.nll_weight
            if weights.mae_weight:
                tiny = xp.finfo(predicted.dtype).smallest_normal
                terms["mae"] = mae(A_pred=xp.sqrt(predicted + tiny), A_meas=measured, mask=mask)
                total = total + terms["mae"] * weights.mae_weight
            if weights.realspace_weight and weights.realspace_mae_weight and "patches" in batch:
                terms["realspace"] = complex_mae(patches, batch["patches"])
                total = total + terms["realspace"] * (weights.realspace_weight * weights.realspace_mae_weight)
        if weights.tv_weight:
            terms["tv"] = squared_gradient(patches) / patches.shape[0]
            total = total + terms["tv"] * weights.tv_weight
        return total, terms

    def flat_level(self, params: dict[str, Array]) -> Array:
        """Transmission of the flat object that explains the mean pattern: 0-d real."""
        xp = self.backend.xp
        power = xp.sum(intensity(self.probe(params)))
        return self.intensity_scale * (self.config.N / 2) / xp.sqrt(power)

    def _known(self, params: dict[str, Array], batch: dict[str, Array]) -> tuple[Array, Array, Array]:
        """Object estimate at the patches, the update that each pattern requests, and both as input of the network."""
        xp = self.backend.xp
        # the estimate is data: no gradient passes into it
        fixed = {k: self.backend.stop_gradient(params[k]) for k in ("probe/real", "probe/imag", "log_scale")}
        amplitude = xp.permute_dims(batch["X"], (0, 3, 1, 2)) * self.intensity_scale
        level = self.flat_level(fixed)
        probe = self.probe(fixed)
        start = batch["start"] if "start" in batch else xp.astype(xp.ones_like(amplitude) * level, probe.dtype)
        mask = None if self.mask is None else self._constant(self.mask, amplitude)
        update = pie_object_update(start, probe, amplitude, mask)
        parts = [xp.real(start) / level - 1.0, xp.imag(start) / level, xp.real(update), xp.imag(update)]
        return start, update, xp.concat([xp.permute_dims(part, (0, 2, 3, 1)) for part in parts], axis=-1)

    def _answer(self, params: dict[str, Array], x: Array) -> Array:
        """Output of the network for (B, N, N, channels): (B, C, N, N) complex."""
        network = self.generator or find_generator(self.config.architecture)
        answer = network.apply(params, x, self.config, self.backend)
        expected = (*x.shape[:3], channels(self.config)[1])
        xp = self.backend.xp
        if tuple(answer.shape) != tuple(expected) or not xp.isdtype(answer.dtype, "complex floating"):
            raise ConfigError(
                f"architecture: the network {self.config.architecture!r} returned {answer.dtype} of shape "
                f"{tuple(answer.shape)}; expected complex of shape {tuple(expected)}."
            )
        return xp.permute_dims(answer, (0, 3, 1, 2))

    def _smoothed_far_field(self, wave: Array) -> Array:
        return far_field(_smoothed(self.backend.xp, wave, self.config.gaussian_smoothing_sigma))

    def _constant(self, values: np.ndarray, like: Array, dtype: str = "float32") -> Array:
        if dtype == "float32" and like.dtype in (self.backend.xp.float64, self.backend.xp.complex128):
            dtype = "float64"
        return self.backend.asarray(values, dtype=dtype, device=device(like))


def merge_window(probe: np.ndarray) -> np.ndarray:
    """(N, N) merging weights: the probe's intensity over its peak, with a floor that keeps the average defined."""
    power = np.sum(intensity(probe), axis=0)
    return power / power.max() + _WINDOW_FLOOR


def _complex(xp: Array, real: Array, imag: Array) -> Array:
    kind = xp.complex128 if real.dtype == xp.float64 else xp.complex64
    return xp.astype(real, kind) + xp.astype(imag, kind) * 1j


def _smoothed(xp: Array, wave: Array, sigma: float) -> Array:
    """Exit wave after a 3 x 3 Gaussian of width sigma pixels."""
    side = math.exp(-0.5 / sigma**2)
    total = 1.0 + 2.0 * side
    for axis in (-2, -1):
        wave = (wave + (xp.roll(wave, 1, axis=axis) + xp.roll(wave, -1, axis=axis)) * side) * (1.0 / total)
    return wave
