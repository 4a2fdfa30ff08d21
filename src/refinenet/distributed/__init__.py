"""Distributed runs: the group of processes that torchrun starts, and the versions and hardware of a run.

Begin with `processes.launch` and `environment.describe_run`.
"""

from typing import TYPE_CHECKING

from refinenet._lazy import attach

if TYPE_CHECKING:
    from refinenet.distributed.environment import (
        INSTALL,
        describe_run,
        has_pytorch,
        may_have_gpu,
        require_pytorch,
        warn_of_predecessor,
    )
    from refinenet.distributed.processes import (
        ALONE,
        CPU,
        Arithmetic,
        Engine,
        Processes,
        is_launched,
        is_lost_process,
        launch,
        local_device,
    )
else:
    __getattr__, __dir__ = attach(__name__)

__all__ = [
    "ALONE",
    "CPU",
    "INSTALL",
    "Arithmetic",
    "Engine",
    "Processes",
    "describe_run",
    "has_pytorch",
    "is_launched",
    "is_lost_process",
    "launch",
    "local_device",
    "may_have_gpu",
    "require_pytorch",
    "warn_of_predecessor",
]
