"""JAX's namespace of the array API standard."""

import jax.numpy as xp

__all__ = ["xp"]
