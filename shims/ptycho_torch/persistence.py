"""PyTorch's own form of a trained model, to lie in the bundle beside the neutral weights."""

from __future__ import annotations

import io

import torch

__all__ = ["native_members"]


def native_members(module: torch.nn.Module) -> dict[str, bytes]:
    """``model.pth``: the module's state dictionary, loadable with ``weights_only=True``."""
    buffer = io.BytesIO()
    torch.save({name: values.detach().cpu() for name, values in module.state_dict().items()}, buffer)
    return {"model.pth": buffer.getvalue()}
