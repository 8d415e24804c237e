"""The primitives that the array API standard lacks, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ptycho.backends import NumpyBackend, cached_parts
from ptycho.errors import BackendError
from ptycho_torch.namespace import xp

__all__ = ["TorchBackend"]

_HOST = NumpyBackend()


class TorchBackend:
    """See :class:`ptycho.backends.Backend`."""

    name = "pytorch"
    xp = xp

    def asarray(self, a: Any, dtype: str | None = None, device: Any = None) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`; a tensor keeps its place in the graph."""
        wanted = None if dtype is None else getattr(torch, dtype)
        if isinstance(a, torch.Tensor):
            return a.to(dtype=wanted, device=device)
        host = np.asarray(a)
        if not host.flags.writeable or any(stride < 0 for stride in host.strides):
            host = host.copy()
        try:
            return torch.as_tensor(host, dtype=wanted, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch built without CUDA
            reason = str(error).splitlines()[0].rstrip(".")
            raise BackendError(f"device: {device!r} cannot be used here ({reason}); choose --device cpu.") from error

    def to_numpy(self, a: torch.Tensor) -> np.ndarray:
        """See :class:`~ptycho.backends.Backend`."""
        host = a.detach().cpu()
        return (host.float() if host.dtype == torch.bfloat16 else host).resolve_conj().numpy()

    def best_device(self) -> str:
        """The CUDA device where there is one, as Lightning chooses for training; else the CPU."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def gather_windows(
        self, image: torch.Tensor, corners: torch.Tensor, weights: torch.Tensor, size: int
    ) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return _Gather.apply(image, corners, weights, size)

    def scatter_windows(
        self, windows: torch.Tensor, corners: torch.Tensor, weights: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return _Scatter.apply(windows, corners, weights, tuple(shape))

    def conv2d(self, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`; permuted views keep channels-last memory."""
        kernel = kernel.permute(3, 2, 0, 1)
        if kernel.dtype == torch.float64:  # the CPU's double-precision convolution takes no other layout
            kernel = kernel.contiguous()
        y = functional.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding="same")
        return y.permute(0, 2, 3, 1)

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return functional.relu(x)

    def max_pool2d(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def in_parts(self, f: Callable[[torch.Tensor], torch.Tensor], stack: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        parts = cached_parts(tuple(stack.shape))
        if len(parts) < 2 or not _on_host(stack):
            return f(stack)
        first = f(stack[parts[0]])
        if first.requires_grad:
            return f(stack)
        found = torch.empty((stack.shape[0], *first.shape[1:]), dtype=first.dtype)
        found[parts[0]] = first
        for part in parts[1:]:
            found[part] = f(stack[part])
        return found

    def stop_gradient(self, a: torch.Tensor) -> torch.Tensor:
        """See :class:`~ptycho.backends.Backend`."""
        return a.detach()

    def value_and_grad(self, f: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, Any]]:
        """See :class:`~ptycho.backends.Backend`."""

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
    """Weighted sums of windows; its backward pass is the scatter, far cheaper than that of ``unfold``."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, corners: torch.Tensor, weights: torch.Tensor, size: int) -> torch.Tensor:
        ctx.save_for_backward(image, corners, weights)
        if _on_host(image):  # numpy's is the fastest on the host, and shares the memory
            return torch.from_numpy(_HOST.gather_windows(*_lent(image, corners, weights), size))
        views = image.unfold(0, size, 1).unfold(1, size, 1)
        places = corners.long()
        shares = weights[:, :, None, None]
        return sum(views[places[:, j, 0], places[:, j, 1]] * shares[:, j] for j in range(places.shape[1]))  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None, None]:
        image, corners, weights = ctx.saved_tensors
        by_image, _, by_weights, _ = ctx.needs_input_grad
        return (
            _Scatter.apply(grads[0], corners, weights, tuple(image.shape)) if by_image else None,
            None,
            _overlaps(image, grads[0], corners) if by_weights else None,
            None,
        )


class _Scatter(torch.autograd.Function):
    """Weighted sum of windows on an image; its backward pass is the gather."""

    @staticmethod
    def forward(
        ctx: Any, windows: torch.Tensor, corners: torch.Tensor, weights: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        ctx.save_for_backward(windows, corners, weights)
        if _on_host(windows):
            return torch.from_numpy(_HOST.scatter_windows(*_lent(windows, corners, weights), shape))
        image = torch.zeros(shape[0] * shape[1], dtype=windows.dtype, device=windows.device)
        steps = torch.arange(windows.shape[-1], device=windows.device)
        inside = steps[:, None] * shape[1] + steps
        first = corners[:, :, 0].long() * shape[1] + corners[:, :, 1]
        for j in range(corners.shape[1]):
            index = (first[:, j, None, None] + inside).reshape(-1)
            image.index_add_(0, index, (windows * weights[:, j, None, None]).reshape(-1))
        return image.reshape(shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None, None]:
        windows, corners, weights = ctx.saved_tensors
        by_windows, _, by_weights, _ = ctx.needs_input_grad
        return (
            _Gather.apply(grads[0], corners, weights, windows.shape[-1]) if by_windows else None,
            None,
            _overlaps(grads[0], windows, corners) if by_weights else None,
            None,
        )


def _on_host(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _lent(*tensors: torch.Tensor) -> tuple[Any, Any, Any]:
    """The same memory as numpy's arrays."""
    values, corners, weights = (tensor.detach().resolve_conj().resolve_neg().numpy() for tensor in tensors)
    return values, corners, weights


def _overlaps(image: torch.Tensor, windows: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """(K, J) real scalar product of each window with the image at each of its places: the gradient by the weights."""
    whole = torch.ones_like(corners[:, :1, 0], dtype=windows.real.dtype)
    return torch.stack(
        [
            (_Gather.apply(image, corners[:, j : j + 1], whole, windows.shape[-1]).conj() * windows).real.sum((1, 2))
            for j in range(corners.shape[1])
        ],
        dim=-1,
    )
