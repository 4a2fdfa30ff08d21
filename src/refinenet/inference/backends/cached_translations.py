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
from refinenet.inference.backends.private_cache import read_cached, trusted_root

if TYPE_CHECKING:
    from refinenet.models.architecture import Architecture
    from refinenet.models.int8_record import Int8Record

PACKAGES: Mapping[Engine, tuple[str, ...]] = MappingProxyType(
    {"openvino": ("openvino",), "onnxruntime": ("onnx", "onnxscript")}
)
"""Packages that make the translation for an engine, besides PyTorch; another version translates again."""


def read_translation(
    engine: Engine, weights: str, architecture: Architecture, record: Int8Record | None = None
) -> Graph | None:
    """Read a translation from the cache; None if there is none. The arguments are those of `find_folder`."""
    try:
        folder = find_folder(engine, weights, architecture, record)
    except PackageNotFoundError:
        return None
    cached = None if folder is None else read_cached(folder, "the network is translated again")
    return None if cached is None else Graph(cached)


def find_folder(
    engine: Engine, weights: str, architecture: Architecture, record: Int8Record | None = None
) -> Path | None:
    """Return the folder of a translation in the cache, whether it exists or not; None if there is no cache.

    Args:
        engine: Engine that runs it.
        weights: Hexadecimal SHA-256 of the weights of the network (`models.digest`), which are float32.
        architecture: Architecture of the network.
        record: How the network runs in int8; None for floating point.

    Raises:
        PackageNotFoundError: a package that translates is not installed.
    """
    root = trusted_root()
    if root is None:
        return None
    inputs = {
        "weights": weights,
        "architecture": architecture.to_dict(),
        "refinenet": __version__,
        **{package: version(package) for package in ("torch", *PACKAGES[engine])},
        **({} if record is None else {"int8": record.digest()}),
    }
    return root / engine / hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
