"""How PyTorch holds a parameter, and the way back to the shape and order of axes that every backend shares."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

__all__ = ["gathered", "is_sharded", "native", "neutral", "numbers"]


def _is_kernel(name: str) -> bool:
    return name.endswith("/kernel")


def numbers(params: dict[str, np.ndarray]) -> list[str]:
    """Names of the parameters that have no axis."""
    return [name for name, values in params.items() if np.ndim(values) == 0]


def native(name: str, values: np.ndarray) -> torch.Tensor:
    """A parameter as PyTorch holds it: with an axis along which it can be sharded, copied.

    Kernels HWIO become OHWI: in memory the channels-last OIHW that convolutions want.
    """
    tensor = torch.tensor(np.atleast_1d(values))
    return tensor.permute(3, 0, 1, 2).contiguous() if _is_kernel(name) else tensor


def neutral(name: str, held: torch.Tensor, numbers: Collection[str]) -> torch.Tensor:
    """A view of it as the core names and shapes it."""
    if name in numbers:
        return held.reshape(())
    return held.permute(1, 2, 3, 0) if _is_kernel(name) else held


def is_sharded(held: torch.Tensor) -> bool:
    """Whether the tensor is spread over several processes."""
    return hasattr(held, "full_tensor")


def gathered(held: Any) -> torch.Tensor:
    """The whole tensor in this process, where it is sharded; else the tensor itself."""
    return held.full_tensor() if is_sharded(held) else held
