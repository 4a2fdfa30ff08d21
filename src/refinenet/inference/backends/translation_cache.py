"""Networks translated for an engine, kept on the disk: the next process finds what this one made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from refinenet._version import __version__
from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import Engine, Graph, start_engine
from refinenet.io.console import print_note
from refinenet.io.sealed_folder import read_checksummed, write_checksummed
from refinenet.models.inference_graph import fuse
from refinenet.models.network import Network
from refinenet.models.tensor_files import digest

ALLOWED_DIFFERENCE = 1e-3
"""Of logits from PyTorch's, as a share of their range."""
LARGEST_CACHE = 4 * 2**30
"""Bytes of the networks of one engine that are kept; beyond, the oldest ones go."""
_KEY = re.compile(r"[0-9a-f]{32}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_reported: set[Path] = set()
"""Folders that were reported as open to others, once in each process."""
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
    root = _trusted_root()
    folder = None if root is None else root / engine / _key(network, packages)
    kept = None if folder is None else _read(folder)
    if kept is not None:
        return kept
    print_note(f"Translating the network for {title}, once" + ("." if root is None else "; it is kept for next time."))
    fused = fuse(network)
    try:
        graph = translate(fused)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"The network cannot be translated for {title} ({reason}).") from error
    _compare(fused, graph, engine, title)
    if folder is not None:
        _keep(graph.files, folder)
    return graph


def _read(folder: Path) -> Graph | None:
    """What is kept in a folder; None where nothing is, or nothing that can be trusted."""
    if not os.path.lexists(folder):
        return None
    try:
        _refuse_open_entry(folder)
    except ValueError as error:
        print_note(f"{folder} is not used ({error}); the network is translated again.")
    else:
        try:
            return Graph(dict(read_checksummed(folder)[1]))
        except ValueError as error:
            print_note(f"{folder} is damaged ({error}); the network is translated again.")
    if folder.is_symlink():
        folder.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it, too
    return None


def _trusted_root() -> Path | None:
    """The cache folder, or else the one in the home folder, where no other user can write; None where both are open.

    What is in the cache is run without another check, and its hashes could be made by anyone.
    """
    named, own = cache_folder(), Path.home() / ".cache" / "refinenet"
    for root in dict.fromkeys((named, own)):
        reason = _why_open(root)
        if reason is None:
            return root
        if root not in _reported:
            _reported.add(root)
            print_note(
                f"Warning: translated networks in {root} are not used: {reason}. Set REFINENET_CACHE to a folder that "
                "only you can write to."
            )
    return None


def _why_open(folder: Path) -> str | None:
    """How another user could change what lies in a folder that may not exist yet; None where nobody can."""
    if not hasattr(os, "getuid"):  # Windows keeps the caches of users apart by other means
        return None
    absolute = folder.absolute()
    try:
        resolved = folder.resolve()
        for path in dict.fromkeys((*reversed(absolute.parents), absolute, *reversed(resolved.parents), resolved)):
            if os.path.lexists(path):
                reason = _why_writable(path, may_be_sticky=path != resolved)
                if reason is not None:
                    return reason
    except (OSError, RuntimeError) as error:
        return f"{folder} cannot be examined ({error})"
    return None


def _why_writable(path: Path, *, may_be_sticky: bool) -> str | None:
    """How another user could replace a path: it is theirs, or its permissions allow it; root is trusted."""
    trusted = (os.getuid(), 0)
    link, found = path.lstat(), path.stat()
    for owner in (link.st_uid, found.st_uid):
        if owner not in trusted:
            return f"{path} belongs to another user (id {owner})"
    if found.st_mode & _OTHERS_WRITE and not (may_be_sticky and found.st_mode & stat.S_ISVTX):
        return f"other users may write to {path} (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _refuse_open_entry(folder: Path) -> None:
    """Refuse a kept network, in a trusted folder, that another user can nevertheless change."""
    if not hasattr(os, "getuid"):
        return
    try:
        for path in (folder.parent, folder, *sorted(folder.iterdir())):
            if path.is_symlink() and path != folder.parent:
                raise ValueError(f"{path.name} is a symbolic link")
            reason = _why_writable(path, may_be_sticky=False)
            if reason is not None:
                raise ValueError(reason)
    except OSError as error:
        raise ValueError(f"{folder.name}: {error.strerror}") from error


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
        for parent in (*reversed(folder.parent.parents), folder.parent):
            parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            graph = Path(temporary) / "graph"
            write_checksummed(graph, 0, files)
            for file in graph.iterdir():
                file.chmod(_PRIVATE_FILE)
            graph.chmod(_PRIVATE_FOLDER)
            graph.rename(folder)
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
