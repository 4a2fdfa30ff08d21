"""Cache of translated networks on disk, shared by all processes of a user."""

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
from refinenet.inference.backends.int8 import check_difference, check_network, quantise_graph
from refinenet.io.console import print_note
from refinenet.io.sealed_folder import read_checksummed, write_checksummed
from refinenet.models.inference_graph import fuse, without_changes_in_place
from refinenet.models.int8_record import Int8Record
from refinenet.models.network import Network
from refinenet.models.tensor_files import digest

ALLOWED_DIFFERENCE = 1e-3
"""Largest allowed difference from PyTorch's logits, as a fraction of their range."""
LARGEST_CACHE = 4 * 2**30
"""Size limit in bytes for each engine; beyond it the oldest networks are removed."""
_KEY = re.compile(r"[0-9a-f]{32}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_reported: set[Path] = set()
"""Folders already reported as writable by other users; each is reported once per process."""
_TEST_SIZE = (79, 113)
"""Size of the two random images on which a new translation is compared with PyTorch."""


def cache_folder() -> Path:
    """Return the cache folder: `REFINENET_CACHE`, or `refinenet` in the user's cache folder."""
    named = os.environ.get("REFINENET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refinenet"


def read_or_translate(
    network: Network,
    packages: Sequence[str],
    translate: Callable[[Network], Graph],
    engine: Engine,
    title: str,
    record: Int8Record | None = None,
) -> Graph:
    """Translate a network to a graph, or read it from the cache; a new translation is first compared with PyTorch.

    Args:
        network: Network to translate; it is not modified, since a fused copy is translated.
        packages: Packages that make the translation; their versions are part of the cache key.
        translate: Function that translates the fused network.
        engine: Engine that runs the graph.
        title: Name of the engine in messages.
        record: How to run the network in int8, with OpenVINO only; None for floating point.

    Raises:
        BackendError: the network cannot be translated, or the translation disagrees with PyTorch; or it is not the one
            that was quantised.
    """
    weights, root = digest(network.state_dict()), _trusted_root()
    if record is not None:
        check_network(record, weights)
    folder = None if root is None else root / engine / _key(network, weights, packages, record)
    cached = None if folder is None else _read(folder)
    if cached is not None:
        return cached
    print_note(f"Translating the network for {title}, once" + ("." if root is None else "; the result is cached."))
    fused = without_changes_in_place(fuse(network))
    try:
        graph = translate(fused)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"The network cannot be translated for {title} ({reason}).") from error
    _compare(fused, graph, engine, title)
    if record is not None:
        graph = quantise_graph(graph, record, fused)
        check_difference(fused, graph, record)
    if folder is not None:
        _write(graph.files, folder)
    return graph


def _read(folder: Path) -> Graph | None:
    """Read a graph from its folder; None if there is none or it cannot be trusted."""
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
    shutil.rmtree(folder, ignore_errors=True)  # another process may remove it at the same time
    return None


def _trusted_root() -> Path | None:
    """Return the cache folder, or else the one in the home folder, whichever only this user can write to; or None.

    Cached graphs run without another check, and anyone could compute their hashes, so the folder must be private.
    """
    configured, default = cache_folder(), Path.home() / ".cache" / "refinenet"
    for root in dict.fromkeys((configured, default)):
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
    """Describe how another user could change the content of a folder, which may not exist yet; None if nobody can."""
    if not hasattr(os, "getuid"):  # Windows separates the users' caches by other means
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
    """Describe how another user could replace a path: as its owner, or by its permissions; root is trusted."""
    trusted = (os.getuid(), 0)
    link, target = path.lstat(), path.stat()
    for owner in (link.st_uid, target.st_uid):
        if owner not in trusted:
            return f"{path} belongs to another user (id {owner})"
    if target.st_mode & _OTHERS_WRITE and not (may_be_sticky and target.st_mode & stat.S_ISVTX):
        return f"other users may write to {path} (mode {stat.S_IMODE(target.st_mode):o})"
    return None


def _refuse_open_entry(folder: Path) -> None:
    """Reject a cached network that another user can change although the cache folder is private."""
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
    """Reject a graph whose logits differ from the network's."""
    images = torch.rand(
        (2, len(network.architecture.band_names), *_TEST_SIZE), generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        expected = network.maps(images)
    actual = torch.from_numpy(start_engine(graph, engine)(images.numpy()))
    difference = float((actual - expected).abs().max() / (expected.max() - expected.min()).clamp(min=1e-12))
    if not difference <= ALLOWED_DIFFERENCE and bool(expected.isfinite().all()):
        raise BackendError(
            f"{title} disagrees with PyTorch here: its logits differ by {difference:.2g} of their range, "
            f"{ALLOWED_DIFFERENCE:g} is allowed."
        )


def _key(network: Network, weights: str, packages: Sequence[str], record: Int8Record | None) -> str:
    inputs = {
        "weights": weights,
        "architecture": network.architecture.to_dict(),
        "refinenet": __version__,
        "torch": torch.__version__,
        **{package: importlib.metadata.version(package) for package in packages},
        **({} if record is None else {"int8": record.digest()}),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files to the cache atomically; after a failure the network is translated again next time."""
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
        print_note(f"Warning: the translated network cannot be cached in {folder}: {error}")


def _prune(newest: Path) -> None:
    """Remove the oldest networks of an engine until the cache is below its size limit."""
    # Folders that are being written have other names.
    folders = [path for path in newest.parent.iterdir() if _KEY.fullmatch(path.name) and path != newest]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    total = _size(newest)
    for folder in folders:
        total += _size(folder)
        if total > LARGEST_CACHE:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be reading or removing it


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
