"""Networks translated for an engine, kept on the disk: the next process finds what this one made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from refinenet import __version__
from refinenet.backends import BackendError
from refinenet.backends.graph import Engine, Graph, start_engine
from refinenet.fusion import fuse
from refinenet.network import Network
from refinenet.sealed_folder import read_sealed, write_sealed
from refinenet.tensors import digest
from refinenet.terminal import print_note

ALLOWED_DIFFERENCE = 1e-3
"""Of logits from PyTorch's, as a share of their range."""
LARGEST_CACHE = 4 * 2**30
"""Bytes of the networks of one engine that are kept; beyond, the oldest ones go."""
_KEY = re.compile(r"[0-9a-f]{32}")
_TRIED = (2, 3, 79, 113)
"""Shape of the images on which a new translation is tried."""


def cache_folder() -> Path:
    """Where translated networks lie: `REFINENET_CACHE`, or the system's place for caches, below `refinenet`."""
    named = os.environ.get("REFINENET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refinenet"


def translated(
    network: Network, packages: Sequence[str], translate: Callable[[Network], Graph], engine: Engine, title: str
) -> Graph:
    """A network as a graph, from the cache where it is there; a new one is tried against PyTorch first.

    Args:
        network: Stays as it is; a fused copy is translated.
        packages: What makes the translation; another version of one makes another translation.
        translate: Makes it.
        engine: For which.
        title: The same in words.

    Raises:
        BackendError: the network cannot be translated, or does not say the same then.
    """
    folder = cache_folder() / engine / _key(network, packages)
    if folder.is_dir():
        try:
            return Graph(dict(read_sealed(folder)[1]))
        except ValueError as error:
            print_note(f"{folder} is damaged ({error}); the network is translated anew.")
            shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it, too
    print_note(f"Translating the network for {title}, once; it is kept for the next time.")
    fused = fuse(network)
    try:
        graph = translate(fused)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"The network cannot be translated for {title} ({reason}).") from error
    _compare(fused, graph, engine, title)
    _keep(graph.files, folder)
    return graph


def _compare(network: Network, graph: Graph, engine: Engine, title: str) -> None:
    """Refuse a graph that does not say what the network says."""
    images = torch.rand(_TRIED, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.logits(images)
    found = torch.from_numpy(start_engine(graph, engine)(images.numpy()))
    difference = float((found - expected).abs().max() / (expected.max() - expected.min()).clamp(min=1e-12))
    if not difference <= ALLOWED_DIFFERENCE and bool(expected.isfinite().all()):
        raise BackendError(
            f"{title} says something else than PyTorch here: its logits differ by {difference:.2g} of their range, "
            f"{ALLOWED_DIFFERENCE:g} is allowed."
        )


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
        _prune(folder)
    except OSError as error:
        print_note(f"Warning: the translated network cannot be kept in {folder}: {error}")


def _prune(newest: Path) -> None:
    """Remove the oldest networks beside a new one until all together are small enough."""
    # Those that are being written have other names.
    folders = [path for path in newest.parent.iterdir() if _KEY.fullmatch(path.name) and path != newest]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    held = _size(newest)
    for folder in folders:
        held += _size(folder)
        if held > LARGEST_CACHE:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be reading it, or removing it, too


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
