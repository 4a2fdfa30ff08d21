"""The processes that train or measure together: one alone, or as many as torchrun started, on however many machines."""

from __future__ import annotations

import atexit
import logging
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:  # it takes seconds to import, which who segments a picture need not wait for
    from lightning.fabric import Fabric
    from lightning.fabric.plugins import Precision

Arithmetic = Literal["float32", "bfloat16", "float16"]

CPU = torch.device("cpu")

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it takes them for dead."""


@dataclass(frozen=True)
class Processes:
    """The processes that work together, and which one this is; alone, all questions answer themselves."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    device: torch.device = CPU
    """Where tensors have to be to travel between processes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks to the user."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """The sum of all processes' tensors, which have one shape; exact for whole numbers."""
        if self.count == 1:
            return values
        total = values.detach().to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(values.device)

    def largest(self, value: int) -> int:
        """The largest of all processes' numbers."""
        return max(int(tensor) for tensor in self.gather(torch.tensor([value])))

    def gather(self, values: Tensor) -> list[Tensor]:
        """All processes' tensors, which have one shape, by rank."""
        if self.count == 1:
            return [values]
        own = values.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(found, own)
        return [tensor.to(values.device) for tensor in found]

    def take_from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors of all processes with the first one's."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.add_up(torch.zeros(1))

    def tell(self, text: str) -> str:
        """What the first process says, for all."""
        said = [text]
        if self.count > 1:
            distributed.broadcast_object_list(said, src=0, device=self.device)
        return said[0]


ALONE = Processes()


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of a machine's GPUs, each of its processes takes its own.

    Raises:
        ValueError: one GPU is named for several processes.
    """
    if device.type == "cuda" and device.index is None and is_launched():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda" and is_launched():
        raise ValueError(f"Under torchrun each process takes a GPU of its own: say 'cuda', not '{device}'.")
    return device


@dataclass(frozen=True)
class Engine:
    """What spreads a network over devices and processes, and chooses the arithmetic of its layers."""

    fabric: Fabric
    processes: Processes
    arithmetic: Arithmetic
    scaler: torch.amp.GradScaler | None
    """Of the loss, in float16."""


def launch(device: torch.device, arithmetic: Arithmetic = "float32") -> Engine:
    """Set up the engine; under torchrun the processes find each other here.

    Args:
        device: Where this process computes.
        arithmetic: Of the network; "float16" scales the loss.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.ddp import DDPStrategy

    for name in ("lightning.fabric", "lightning.pytorch"):  # they announce what was asked for
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
    """Whether an error says that another process of those that work together is gone, or does not answer."""
    return isinstance(error, distributed.DistBackendError) or "gloo/transport" in str(error)


def _leave() -> None:
    """Close the connections to the others: the threads that serve them would abort a process that ends before."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _precision(arithmetic: Arithmetic, device: torch.device, scaler: torch.amp.GradScaler | None) -> Precision:
    from lightning.fabric.plugins import MixedPrecision, Precision

    if arithmetic == "float32":
        return Precision()
    return MixedPrecision("bf16-mixed" if scaler is None else "16-mixed", device=device.type, scaler=scaler)
