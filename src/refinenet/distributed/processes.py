"""Distributed processes: a single process, or a group started by torchrun on one or more machines."""

from __future__ import annotations

import atexit
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:  # importing it takes seconds, and inference does not need it
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import Precision

Arithmetic = Literal["float32", "bfloat16", "float16"]

CPU = torch.device("cpu")

PATIENCE = timedelta(minutes=10)
"""Time after which a process considers others dead that do not respond."""


@dataclass(frozen=True)
class Processes:
    """Group of processes that work together, and the rank of this one; works for a single process, too."""

    rank: int = 0
    """Index of this process, from 0."""
    count: int = 1
    device: torch.device = CPU
    """Device on which tensors are exchanged between processes."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum over all processes of tensors of the same shape; exact for whole numbers."""
        if self.count == 1:
            return values
        # A copy, because all_reduce works in place.
        total = values.detach().to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(values.device)

    def largest(self, value: int) -> int:
        """Return the largest value of all processes."""
        return max(int(tensor) for tensor in self.gather(torch.tensor([value])))

    def gather(self, values: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, of the same shape, in order of rank."""
        if self.count == 1:
            return [values]
        local = values.to(self.device)
        gathered = [torch.empty_like(local) for _ in range(self.count)]
        distributed.all_gather(gathered, local)
        return [tensor.to(values.device) for tensor in gathered]

    def take_from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite the tensors of all processes with those of the first one."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.add_up(torch.zeros(1))

    def tell(self, text: str) -> str:
        """Return the text of the first process in all processes."""
        shared = [text]
        if self.count > 1:
            distributed.broadcast_object_list(shared, src=0, device=self.device)
        return shared[0]


ALONE = Processes()


def is_launched() -> bool:
    """Whether this process is one of several started by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


def local_device(device: torch.device) -> torch.device:
    """Return the device of this process; each process of a machine uses its own GPU.

    Raises:
        ValueError: One GPU is given for several processes.
    """
    if device.type == "cuda" and device.index is None and is_launched():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda" and is_launched():
        raise ValueError(f"Under torchrun each process uses its own GPU: pass 'cuda', not '{device}'.")
    return device


@dataclass(frozen=True)
class Engine:
    """Lightning Fabric with the process group and the arithmetic of a run."""

    fabric: Fabric
    processes: Processes
    arithmetic: Arithmetic
    scaler: torch.amp.GradScaler | None
    """Scaler of the loss, for float16."""


def launch(device: object, arithmetic: Arithmetic = "float32") -> Engine:
    """Set up the engine; under torchrun the processes connect here.

    Args:
        device: Device of this process, or its name.
        arithmetic: Arithmetic of the network; "float16" scales the loss.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    device = torch.device(str(device))
    for name in ("lightning.fabric", "lightning.pytorch"):  # they print the settings that the user just passed
        logging.getLogger(name).setLevel(logging.WARNING)
    scaler = torch.amp.GradScaler(device.type) if arithmetic == "float16" else None
    plugin = _precision(arithmetic, device, scaler)
    if not is_launched():
        devices = [device.index or 0] if device.type == "cuda" else 1
        fabric = Fabric(accelerator=device.type, devices=devices, plugins=[plugin])
    else:
        on_machine = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // on_machine
        fabric = Fabric(
            accelerator=device.type,
            devices=on_machine,
            num_nodes=machines,
            strategy=DDPStrategy(timeout=PATIENCE),
            plugins=[plugin],
        )
        atexit.register(_leave)
    fabric.launch()
    processes = Processes(fabric.global_rank, fabric.world_size, fabric.device)
    return Engine(fabric, processes, arithmetic, scaler)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an error means that another process of the group is gone or does not respond."""
    return isinstance(error, distributed.DistBackendError) or "gloo/transport" in str(error)


def _leave() -> None:
    """Close the connections to the others; a process that exits while their threads run would abort."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _precision(arithmetic: Arithmetic, device: torch.device, scaler: torch.amp.GradScaler | None) -> Precision:
    from lightning.fabric.plugins import MixedPrecision, Precision

    if arithmetic == "float32":
        return Precision()
    return MixedPrecision("bf16-mixed" if scaler is None else "16-mixed", device=device.type, scaler=scaler)
