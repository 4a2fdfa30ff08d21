"""Networks translated for an engine, kept on the disk: the next process finds what this one made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from refinenet import __version__
from refinenet.backends.graph import Graph
from refinenet.fusion import fuse
from refinenet.network import Network
from refinenet.sealed_folder import read_sealed, write_sealed
from refinenet.tensors import digest
from refinenet.terminal import print_note


def cache_folder() -> Path:
    """Where translated networks lie: `REFINENET_CACHE`, or the system's place for caches, below `refinenet`."""
    named = os.environ.get("REFINENET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refinenet"


def translated(network: Network, packages: Sequence[str], translate: Callable[[Network], Graph], engine: str) -> Graph:
    """A network as a graph, from the cache where it is there.

    Args:
        network: Stays as it is; a fused copy is translated.
        packages: What makes the translation; another version of one makes another translation.
        translate: Makes it.
        engine: For which, in words.
    """
    kind = engine.lower().replace(" ", "")
    folder = cache_folder() / kind / _key(network, packages)
    if folder.is_dir():
        try:
            return Graph(dict(read_sealed(folder)[1]))
        except ValueError as error:
            print_note(f"{folder} is damaged ({error}); the network is translated anew.")
            shutil.rmtree(folder)
    print_note(f"Translating the network for {engine}, once; it is kept for the next time.")
    graph = translate(fuse(network))
    _keep(graph.files, folder)
    return graph


def _key(network: Network, packages: Sequence[str]) -> str:
    facts = {
        "weights": digest(network.state_dict()),
        "architecture": network.architecture.to_dict(),
        "refinenet": __version__,
        "torch": torch.__version__,
        **{package: importlib.metadata.version(package) for package in packages},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _keep(files: Mapping[str, bytes], folder: Path) -> None:
    """Put files into the cache, all or none; where that fails, the network is translated again next time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            write_sealed(Path(temporary) / "graph", 0, files)
            (Path(temporary) / "graph").rename(folder)
    except OSError as error:
        print_note(f"Warning: the translated network cannot be kept in {folder}: {error}")
