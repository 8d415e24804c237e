"""The model as compiled steps: parameters in JAX's arrays, the loss from the core, Adam from optax."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Sharding

from ptycho.config import TrainingConfig
from ptycho.model.pinn import PtychoPINN
from ptycho_jax.namespace import xp

__all__ = ["PtychoModule", "Schedule"]

_TRAINED_IF = {
    "probe/real": "probe_trainable",
    "probe/imag": "probe_trainable",
    "log_scale": "intensity_scale_trainable",
}

Arrays = dict[str, jax.Array]


class PtychoModule:
    """PtychoPINN's parameters, those that are trained apart from the rest, and its loss as compiled steps.

    Parameters
    ----------
    model : what stays fixed.
    params : host arrays by name.
    config : losses, optimiser, precision.
    place : where the parameters lie.
    """

    def __init__(
        self, model: PtychoPINN, params: dict[str, np.ndarray], config: TrainingConfig, place: Sharding
    ) -> None:
        self.model, self.config = model, config
        kept = {name for name, setting in _TRAINED_IF.items() if not getattr(config, setting)}
        # copied: a step reuses the memory of the parameters it was given
        arrays = {name: jax.device_put(np.array(values), place, may_alias=False) for name, values in params.items()}
        self.frozen = {name: values for name, values in arrays.items() if name in kept}
        self.trained = {name: values for name, values in arrays.items() if name not in kept}
        self.state = jax.device_put(self._optimiser(0.0, 0.9).init(self.trained), place)
        self._train = jax.jit(self._updated, donate_argnums=(0, 1))
        self._validate = jax.jit(self._losses)

    def to_params(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters."""
        return {name: np.array(values) for name, values in {**self.trained, **self.frozen}.items()}

    def training_step(self, batch: Arrays, rate: float, momentum: float) -> Arrays:
        """One step of Adam; the losses before it."""
        self.trained, self.state, losses = self._train(self.trained, self.state, self.frozen, batch, rate, momentum)
        return losses

    def validation_step(self, batch: Arrays) -> Arrays:
        """The losses of a batch."""
        return self._validate(self.trained, self.frozen, batch)[1]

    def _updated(
        self, trained: Arrays, state: Any, frozen: Arrays, batch: Arrays, rate: float, momentum: float
    ) -> tuple[Arrays, Any, Arrays]:
        # every parameter is real, so JAX's own gradient needs no conjugation
        gradient, losses = jax.grad(self._losses, has_aux=True)(trained, frozen, batch)
        updates, state = self._optimiser(rate, momentum).update(gradient, state)
        return optax.apply_updates(trained, updates), state, losses

    def _losses(self, trained: Arrays, frozen: Arrays, batch: Arrays) -> tuple[jax.Array, Arrays]:
        params = {**trained, **frozen}
        if self.config.precision == "bf16":  # the network alone
            params = {k: v if k in _TRAINED_IF else xp.astype(v, xp.bfloat16) for k, v in params.items()}
        total, terms = self.model.loss(params, batch, self.config)
        return total, {"loss": total, **terms}

    def _optimiser(self, rate: float, momentum: float) -> optax.GradientTransformation:
        clip = self.config.gradient_clip
        limit = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
        return optax.chain(limit, optax.adam(rate, b1=momentum))


class Schedule:
    """Learning rate and momentum (Adam's beta1) of every step, as PyTorch's schedules of these names have them.

    Parameters
    ----------
    config : learning rate and course.
    steps : of the whole training.
    """

    def __init__(self, config: TrainingConfig, steps: int) -> None:
        self.course, self.peak, self.steps = config.lr_schedule, config.learning_rate, max(1, steps)
        self.rate, self._best, self._waited = config.learning_rate, math.inf, 0

    def at(self, step: int) -> tuple[float, float]:
        """Rate and momentum of a step, counted from 0."""
        if self.course == "cosine":
            return _cosine(self.peak, 0.0, step / self.steps), 0.9
        if self.course != "onecycle":
            return self.rate, 0.9
        turn = 0.3 * (self.steps + 1) - 1.0  # the rate after the last step belongs to the cycle too
        if step <= turn:
            part = step / turn
            return _cosine(self.peak / 25.0, self.peak, part), _cosine(0.95, 0.85, part)
        part = (step - turn) / (self.steps - turn)
        return _cosine(self.peak, self.peak / 25e4, part), _cosine(0.85, 0.95, part)

    def watch(self, loss: float) -> None:
        """Told of every epoch's loss; on a plateau of three epochs the rate is halved, down to a tenth."""
        if self.course != "plateau":
            return
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited > 2:
            self.rate, self._waited = max(0.5 * self.rate, 0.1 * self.peak), 0


def _cosine(start: float, end: float, part: float) -> float:
    """Half a cosine from ``start`` to ``end``."""
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * part))
