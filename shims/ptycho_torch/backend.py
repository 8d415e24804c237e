"""The primitives that the array API standard lacks, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ptycho.errors import BackendError
from ptycho_torch.namespace import xp

__all__ = ["TorchBackend"]


class TorchBackend:
    """See :class:`ptycho.backend.Backend`."""

    name = "pytorch"
    xp = xp

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`; a tensor keeps its place in the graph."""
        wanted = None if dtype is None else getattr(torch, dtype)
        if isinstance(a, torch.Tensor):
            return a.to(dtype=wanted, device=device)
        host = np.asarray(a)
        if not host.flags.writeable or any(stride < 0 for stride in host.strides):
            host = host.copy()
        try:
            return torch.as_tensor(host, dtype=wanted, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch built without CUDA
            raise BackendError(f"device: {device!r} cannot be used here ({str(error).splitlines()[0]}).") from error

    def to_numpy(self, a: torch.Tensor) -> np.ndarray:
        """See :class:`~ptycho.backend.Backend`."""
        host = a.detach().cpu()
        return (host.float() if host.dtype == torch.bfloat16 else host).resolve_conj().numpy()

    def best_device(self) -> str:
        """The CUDA device where there is one, as Lightning chooses for training; else the CPU."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def gather_windows(self, image: torch.Tensor, corners: torch.Tensor, size: int) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return _Gather.apply(image, corners, size)

    def scatter_windows(self, windows: torch.Tensor, corners: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return _Scatter.apply(windows, corners, tuple(shape))

    def conv2d(self, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`; both permutations are views, so channels-last memory stays as it is."""
        kernel = kernel.permute(3, 2, 0, 1)
        if kernel.dtype == torch.float64:  # the CPU's double-precision convolution takes no other layout
            kernel = kernel.contiguous()
        y = functional.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding="same")
        return y.permute(0, 2, 3, 1)

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return functional.relu(x)

    def max_pool2d(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def upsample2d(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="nearest").permute(0, 2, 3, 1)

    def stop_gradient(self, a: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backend.Backend`."""
        return a.detach()

    def value_and_grad(self, f: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        """See :class:`~ptycho.backend.Backend`."""

        def evaluated(first: Any, *rest: Any) -> tuple[torch.Tensor, Any]:
            named = isinstance(first, dict)
            leaves = {k: v.detach().requires_grad_() for k, v in (first.items() if named else {"": first}.items())}
            value = f(leaves if named else leaves[""], *rest)
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            gradients = {
                k: torch.zeros_like(leaf) if g is None else g
                for (k, leaf), g in zip(leaves.items(), found, strict=True)
            }
            return value.detach(), gradients if named else gradients[""]

        return evaluated

    def jit(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Eager: torch.compile does not survive the backward pass of complex arrays."""
        return f


class _Gather(torch.autograd.Function):
    """Windows of an image; its backward pass is the scatter, far cheaper than autograd's own through ``unfold``."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, corners: torch.Tensor, size: int) -> torch.Tensor:
        ctx.save_for_backward(corners)
        ctx.shape = tuple(image.shape)
        corners = corners.long()
        return image.unfold(0, size, 1).unfold(1, size, 1)[corners[:, 0], corners[:, 1]]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (corners,) = ctx.saved_tensors
        return _Scatter.apply(grads[0], corners, ctx.shape), None, None


class _Scatter(torch.autograd.Function):
    """Sum of windows on an image; its backward pass is the gather."""

    @staticmethod
    def forward(ctx: Any, windows: torch.Tensor, corners: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        ctx.save_for_backward(corners)
        ctx.size = windows.shape[-1]
        corners = corners.long()
        steps = torch.arange(ctx.size, device=windows.device)
        first = corners[:, 0] * shape[1] + corners[:, 1]
        index = (first[:, None, None] + steps[:, None] * shape[1] + steps).reshape(-1)
        image = torch.zeros(shape[0] * shape[1], dtype=windows.dtype, device=windows.device)
        return image.index_add_(0, index, windows.reshape(-1)).reshape(shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (corners,) = ctx.saved_tensors
        return _Gather.apply(grads[0].contiguous(), corners, ctx.size), None, None
