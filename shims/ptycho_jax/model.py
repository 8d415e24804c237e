"""The model as compiled steps: parameters in JAX's arrays, the loss from the core, Adam from optax."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Sharding

from ptycho.config import TrainingConfig
from ptycho.model.pinn import PtychoPINN
from ptycho.model.training import is_network, is_trained
from ptycho_jax.namespace import xp

__all__ = ["PtychoModule"]

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
        self.model, self.config, self._place = model, config, place
        # copied: a step reuses the memory of the parameters it was given
        arrays = self._placed(params)
        self.frozen = {name: values for name, values in arrays.items() if not is_trained(name, config)}
        self.trained = {name: values for name, values in arrays.items() if is_trained(name, config)}
        self.state = jax.device_put(self._optimiser(0.0, 0.9).init(self.trained), place)
        self._train = jax.jit(self._updated, donate_argnums=(0, 1))
        self._validate = jax.jit(self._losses)

    def to_params(self) -> dict[str, np.ndarray]:
        """Host copies of the parameters."""
        return {name: np.array(values) for name, values in {**self.trained, **self.frozen}.items()}

    def go_on(self, params: dict[str, np.ndarray], state: Any) -> None:
        """Take over the parameters and the state of the optimiser from host arrays of the same names and shapes."""
        arrays = self._placed(params)
        self.frozen = {name: arrays[name] for name in self.frozen}
        self.trained = {name: arrays[name] for name in self.trained}
        self.state = self._placed(state)

    def training_step(self, batch: Arrays, rate: float, momentum: float) -> Arrays:
        """One step of Adam; the losses before it."""
        self.trained, self.state, losses = self._train(self.trained, self.state, self.frozen, batch, rate, momentum)
        return losses

    def validation_step(self, batch: Arrays) -> Arrays:
        """The losses of a batch."""
        return self._validate(self.trained, self.frozen, batch)[1]

    def _placed(self, arrays: Any) -> Any:
        return jax.tree.map(lambda values: jax.device_put(np.array(values), self._place, may_alias=False), arrays)

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
            params = {k: xp.astype(v, xp.bfloat16) if is_network(k) else v for k, v in params.items()}
        total, terms = self.model.loss(params, batch, self.config)
        return total, {"loss": total, **terms}

    def _optimiser(self, rate: float, momentum: float) -> optax.GradientTransformation:
        clip = self.config.gradient_clip
        limit = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
        return optax.chain(limit, optax.adam(rate, b1=momentum))
