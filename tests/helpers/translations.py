"""Networks translated for other engines, once for all processes of a test session: each takes longer than a test."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock
from model_parts import NARROW_CARD, narrow_network

from refinenet.inference.backends.graph import Engine, Graph
from refinenet.inference.backends.translation.translated import TRANSLATORS
from refinenet.inference.backends.translation.translation_cache import read_or_translate
from refinenet.models.files.model_file import save
from refinenet.models.network import Network


def translated(network: Network, engine: Engine = "openvino") -> Graph:
    """Translate a network, or read what a process of this session has translated; whoever asks later finds it."""
    cache = Path(os.environ["REFINENET_CACHE"])
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    translator = TRANSLATORS[engine]
    with FileLock(cache / f"{engine}.lock"):
        return read_or_translate(network, translator.translate, engine, translator.title)


def save_small(path: Path, *engines: Engine) -> Path:
    """Write the model file of `narrow_network`, which is translated for these engines."""
    network = narrow_network()
    for engine in engines:
        translated(network, engine)
    save(path, network, NARROW_CARD, "float32")
    return path
