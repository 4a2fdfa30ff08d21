"""Versions, machine and command of a run, recorded beside its results."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
import warnings
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from refinenet._version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow")


def describe_run() -> dict[str, Any]:
    """Return versions, machine, command, time (UTC) and number of processes as JSON-ready values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {
            "refinenet": __version__,
            **{name: found for name in _PACKAGES if (found := _version(name)) is not None},
        },
        "cpu": _cpu_name(),
        "cpu_cores": os.cpu_count(),
        **_describe_pytorch(),
    }


def _describe_pytorch() -> dict[str, Any]:
    if not has_pytorch():
        return {"torch_threads": None, "gpus": [], "cuda": None, "processes": 1}
    import torch
    from torch import distributed

    is_group = distributed.is_available() and distributed.is_initialized()
    return {
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "processes": distributed.get_world_size() if is_group else 1,
    }


INSTALL = "pip install refinenet-torch"
"""Command that installs everything, with PyTorch, also beside the small installation."""


def has_pytorch() -> bool:
    """Whether PyTorch is installed; it is not imported."""
    return importlib.util.find_spec("torch") is not None


_DRIVERS = {"win32": "nvcuda.dll", "darwin": None}
"""Library of NVIDIA's driver by platform; on Linux and the like libcuda.so.1."""


def may_have_gpu() -> bool:
    """Whether there is a driver of a GPU that PyTorch may be able to use; PyTorch is not imported."""
    driver = _DRIVERS.get(sys.platform, "libcuda.so.1")
    if driver is None:
        return False
    try:
        ctypes.CDLL(driver)
    except OSError:
        return Path("/dev/kfd").exists()  # AMD's
    return True


def require_pytorch(what: str) -> None:
    """Refuse what needs PyTorch if it is not installed.

    Args:
        what: What needs it, as the beginning of a sentence: "Training".

    Raises:
        ValueError: PyTorch is not installed.
    """
    if not has_pytorch():
        raise ValueError(f"{what} needs PyTorch, which this small installation lacks: {INSTALL}")


def warn_of_predecessor() -> None:
    """Warn of an environment that also holds the predecessor, refinenet 0.9, whose modules have the same name."""
    found = _version("refinenet")
    if found is not None and found.startswith("0."):
        warnings.warn(
            f"This environment also has refinenet {found}, the predecessor, whose modules are imported by the same "
            "name: one of the two has replaced files of the other. Reinstall this package: pip uninstall -y refinenet "
            "refinenet-torch && pip install refinenet-torch",
            stacklevel=3,
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """Return the name of the processor from Linux, or else from Python."""
    path = Path("/proc/cpuinfo")
    line = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return line[1].strip() if line else platform.processor() or platform.machine()
