"""What a training in PyTorch leaves: the bundle's native member and checkpoints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ptycho.files import written_whole
from ptycho.model.safe_archive import SafeArchive
from ptycho.model.training import damaged

__all__ = ["CheckpointFiles", "load_checkpoint", "native_members"]


def native_members(module: torch.nn.Module) -> dict[str, bytes]:
    """``model.pth``: the module's state dictionary, kernels OHWI, loadable with ``weights_only=True``."""
    buffer = io.BytesIO()
    torch.save({name: values.detach().cpu() for name, values in module.state_dict().items()}, buffer)
    return {"model.pth": buffer.getvalue()}


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here: whole or not at all, and without running what they say."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See Lightning, which would write the file somewhere else first and copy it here."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # PyTorch's own writer makes another error of a full disk's
        torch.save(checkpoint, buffer)
        # Lightning's own callbacks, which a caller may add, replace their files as well
        with written_whole(path, overwrite=True, own=Path(path).stem in ("best", "last")) as stream:
            stream.write(buffer.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """See Lightning, which would unpickle the file."""
        return super().load_checkpoint(path, map_location, weights_only=True)


def load_checkpoint(path: Path, module: torch.nn.Module) -> str:
    """Bring the weights to what a checkpoint holds; the plan, see :class:`ptycho.model.training.TrainingPlan`.

    Parameters
    ----------
    path : the file.
    module : of the same network.

    Raises
    ------
    DataError
        The file is not there, damaged, or of another network.
    """
    try:
        with SafeArchive(path) as archive:
            for name in archive.names():  # each against its sum
                archive.read(name)
        content = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(content["state_dict"])
        return str(content["course"])
    except Exception as error:  # whatever another network's file makes of PyTorch
        raise damaged(path, error) from error
