"""Translations of model files in the cache, which run without loading the network. Nothing here needs PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from refinenet._version import __version__
from refinenet.inference.backends.graph import Engine, Graph
from refinenet.inference.backends.translation.private_cache import read_cached, trusted_root

if TYPE_CHECKING:
    from refinenet.models.architecture import Architecture
    from refinenet.models.files.int8_record import Int8Record

PACKAGES: Mapping[Engine, tuple[str, ...]] = MappingProxyType(
    {"openvino": ("openvino",), "onnxruntime": ("onnx", "onnxscript")}
)
"""Packages that make the translation for an engine, besides PyTorch; another version translates again."""


def read_translation(folder: Path | None) -> Graph | None:
    """Read a translation from what `find_folder` returned; None if there is none."""
    cached = None if folder is None else read_cached(folder, "the network is translated again")
    return None if cached is None else Graph(cached)


def find_folder(
    engine: Engine, weights: str, architecture: Architecture, record: Int8Record | None = None
) -> Path | None:
    """Return the folder of a translation in the cache, whether it exists or not.

    Args:
        engine: Engine that runs it.
        weights: Hexadecimal SHA-256 of the weights of the network (`models.digest`), which are float32.
        architecture: Architecture of the network.
        record: How the network runs in int8; None for floating point.

    Returns:
        None if there is no cache, or a package that translates is not installed.
    """
    root = trusted_root()
    try:
        versions = {package: version(package) for package in ("torch", *PACKAGES[engine])}
    except PackageNotFoundError:
        return None
    if root is None:
        return None
    inputs = {
        "weights": weights,
        "architecture": architecture.to_dict(),
        "refinenet": __version__,
        **versions,
        **({} if record is None else {"int8": record.digest()}),
    }
    return root / engine / hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
