"""PyTorch's namespace of the array API standard."""

import array_api_compat.torch as xp

__all__ = ["xp"]
