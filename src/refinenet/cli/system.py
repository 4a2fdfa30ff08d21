"""Facts about this installation and machine: versions, devices, backends, extras, caches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from refinenet._version import __version__
from refinenet.inference.backends import AUTO, BACKENDS, choose_backend

_DISTRIBUTIONS = ("refinenet-torch", "refinenet-runtime", "refinenet")
"""Names under which this package may be installed."""
_OF_DEVELOPERS = ("dev", "docs")


def describe_system() -> dict[str, Any]:
    """Return versions, processor, devices, backends, extras and caches as JSON-ready values."""
    from refinenet import models
    from refinenet.distributed.environment import describe_run, has_pytorch
    from refinenet.inference.backends.base import CPU

    run, device = describe_run(), str(models.choose_device(None)) if has_pytorch() else CPU
    kind = device.partition(":")[0]
    return {
        "version": __version__,
        "python": run["python"],
        "platform": run["platform"],
        "packages": {name: number for name, number in run["packages"].items() if name not in _DISTRIBUTIONS},
        "cpu": f"{run['cpu']}, {run['cpu_cores']} cores, {run['torch_threads'] or run['cpu_cores']} threads",
        "gpus": run["gpus"],
        "cuda": run["cuda"],
        "default_device": device,
        "default_backend": choose_backend(AUTO, kind, "float32"),
        "backends": {name: _describe_backend(name) for name in BACKENDS},
        "extras": _find_extras(),
        "caches": _measure_caches(),
    }


def _describe_backend(name: Any) -> str:
    spec = BACKENDS[name]
    if not spec.is_installed:
        return f"needs {spec.package}"
    number = f" {_version(spec.package) or ''}".rstrip()
    return f"available{number}: {', '.join(spec.precisions)}"


def _find_extras() -> dict[str, str]:
    """Return for each extra of the package whether it is installed, or what it lacks."""
    requirements = next((listed for name in _DISTRIBUTIONS if (listed := _read_requirements(name))), [])
    needed: dict[str, list[str]] = {}
    for requirement in requirements:
        found = re.match(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]", requirement)
        if found is not None and found[2] not in _OF_DEVELOPERS:
            needed.setdefault(found[2], []).append(found[1])
    missing = {extra: [name for name in names if _version(name) is None] for extra, names in needed.items()}
    return {extra: f"lacks {', '.join(names)}" if names else "installed" for extra, names in missing.items()}


def _read_requirements(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _measure_caches() -> Mapping[str, str]:
    """Return folder and size of each cache: translated networks, and weights that other packages fetch."""
    from refinenet.inference.backends.translation.private_cache import cache_folder

    home = Path.home() / ".cache"
    hub = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
    torch_home = Path(os.environ.get("TORCH_HOME") or home / "torch") / "hub"
    folders = {"refinenet": cache_folder(), "huggingface": Path(hub), "torch": torch_home}
    return {name: f"{folder} ({_size_of(folder)})" for name, folder in folders.items()}


def _size_of(folder: Path) -> str:
    if not folder.is_dir():
        return "none"
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    # Links lead to files of the same cache, which are counted already.
    total = sum(path.lstat().st_size for path in files if not path.is_symlink())
    return f"{total / 1e6:,.1f} MB"
