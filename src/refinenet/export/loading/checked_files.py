"""Exported files that passed the sandbox, remembered on disk, so that they are not tested again at each start.

The cache holds the bytes that the sandbox accepted, under a hash of the file, the versions of the programs that checked
and ran it, and the rules. Like translated networks, they are kept where only this user can write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from refinenet._version import __version__
from refinenet.inference.backends.graph import Engine
from refinenet.inference.backends.translation.private_cache import read_cached, trusted_root, write_cached

FACTS = "facts.json"
"""Name of what the sandbox found, beside the files of the graph."""
_FOLDER = "checked"
_PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino")
"""Packages that check and run files."""

Found = tuple[dict[str, Any], dict[str, bytes]]
"""What the sandbox found, and the files of the graph to run."""


def read_checked(files: Mapping[str, bytes], engine: Engine) -> Found | None:
    """Return what the sandbox found about these files, and the files to run; None if it has not seen them yet.

    Args:
        files: Content of an exported file, or of OpenVINO's two.
        engine: Program that is to run it.
    """
    folder = _folder(files, engine)
    found = None if folder is None else read_cached(folder, "the file is tested again")
    if found is None:
        return None
    facts: dict[str, Any] = json.loads(found.pop(FACTS))
    return facts, found


def write_checked(files: Mapping[str, bytes], engine: Engine, found: Found) -> None:
    """Remember what the sandbox found; without a private folder nothing is remembered."""
    folder, (facts, checked) = _folder(files, engine), found
    if folder is not None:
        write_cached({**checked, FACTS: json.dumps(facts).encode()}, folder)


def _folder(files: Mapping[str, bytes], engine: Engine) -> Path | None:
    root = trusted_root()
    if root is None:
        return None
    inputs = {
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "engine": engine,
        "versions": {"refinenet": __version__, **{name: _find_version(name) for name in _PACKAGES}},
        "rules": _hash_rules(),
    }
    return root / _FOLDER / hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _hash_rules() -> str:
    """Return a hash of the modules that decide what is accepted: a developer's change of them counts at once."""
    total = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        total.update(module.read_bytes())
    return total.hexdigest()
