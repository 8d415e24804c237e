"""Several processes on one machine: they meet on its loopback interface, where nobody else can reach them.

PyTorch's store, where the processes find each other, listens on all interfaces, and Gloo and NCCL on the one of the
machine's name. None of them asks who is there, so whoever reaches the port could take part.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

__all__ = ["LoopbackDDP", "LoopbackShards"]

_ADDRESS = "127.0.0.1"


class LoopbackDDP(DDPStrategy):
    """Lightning's ``ddp``, whose processes meet on the loopback interface if Lightning starts them."""

    def setup_distributed(self) -> None:
        """Join the processes."""
        _join(self)
        super().setup_distributed()  # which finds them joined


class LoopbackShards(ModelParallelStrategy):
    """Lightning's sharded training, whose processes meet on the loopback interface if Lightning starts them."""

    def _setup_distributed(self) -> None:
        _join(self)
        super()._setup_distributed()


def _join(strategy: Any) -> None:
    """Join the processes of a strategy, as Lightning would, by a store on the loopback interface."""
    environment = strategy.cluster_environment
    if not isinstance(environment, LightningEnvironment) or environment.main_address not in (_ADDRESS, "localhost"):
        return  # torchrun, Slurm and others bring their own store, which may serve several machines
    loopback = "lo0" if os.uname().sysname == "Darwin" else "lo"
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
    strategy.set_world_ranks()
    rank, world = environment.global_rank(), environment.world_size()
    first = rank == 0
    with socket.socket() as listening:
        if first:
            listening.bind((_ADDRESS, environment.main_port))
            listening.listen()
        store = torch.distributed.TCPStore(
            _ADDRESS,
            environment.main_port,
            world,
            is_master=first,
            timeout=strategy._timeout,
            wait_for_workers=False,
            master_listen_fd=listening.detach() if first else None,  # the store closes it
        )
    torch.distributed.init_process_group(
        strategy._get_process_group_backend(), rank=rank, world_size=world, store=store, timeout=strategy._timeout
    )
