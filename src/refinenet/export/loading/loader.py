"""Loader of exported files: a graph that can be run, and its model card."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from refinenet.distributed.environment import INSTALL
from refinenet.export.loading.checked_files import read_checked, write_checked
from refinenet.export.loading.checksum import hash_files, is_sealed
from refinenet.export.loading.schema import HEADER_KEY, LOGITS
from refinenet.inference.backends.graph import (
    ENGINES,
    ONNX_FILE,
    OPENVINO_FILES,
    Engine,
    ExportedModel,
    Graph,
    GraphKind,
    require_onnxruntime,
    require_openvino,
)
from refinenet.io.console import print_note
from refinenet.io.processes.child_process import pack_message, unpack_message
from refinenet.models.files.file_checks import MAX_FILE_BYTES, printable
from refinenet.models.files.model_card import (
    CERTIFICATE_ENDING,
    ModelCard,
    bundled_path,
    read_graph_metadata,
    read_header,
)
from refinenet.outputs import has_only_classes

_KINDS: Mapping[str, GraphKind] = {".onnx": "onnx", ".xml": "openvino"}
_SECONDS = 300
"""Seconds that the sandbox may take for a file."""
_START_SANDBOX = "import sys; sys.path[:] = {path!r}; from refinenet.export.loading.sandbox import main; main()"
_ENCODER = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def graph_kind(model: str | os.PathLike[str]) -> GraphKind | None:
    """Return the format of an exported file by its suffix; None for all other files."""
    return _KINDS.get(Path(model).suffix.lower())


def choose_engine(model: str | os.PathLike[str], asked: str | None) -> Engine:
    """Return the engine for an exported file: the requested one, or the usual one of its format.

    Raises:
        ValueError: The engine cannot run the file, or is not installed.
    """
    kind = graph_kind(model)
    assert kind is not None
    possible = ENGINES[kind]
    chosen = next((engine for engine in possible if asked in (None, engine)), None)
    if chosen is None:
        raise ValueError(f"{model} is an exported graph, run by backend={' or '.join(possible)}, not by {asked!r}.")
    if chosen == "openvino":
        require_openvino()
    else:
        require_onnxruntime()
    return chosen


def open_bundled(name: str) -> tuple[ExportedModel, ModelCard]:
    """Open the translation of a bundled model for OpenVINO, which is part of this package and trusted as its code.

    Raises:
        ValueError: OpenVINO is not installed, or the translation is missing or damaged.
    """
    require_openvino()
    path = bundled_path(name).with_suffix(".xml")
    if not path.is_file():
        raise ValueError(f"This package holds no translation of {name}, which then needs PyTorch: {INSTALL}")
    files = _read(path)
    metadata = read_graph_metadata(files[OPENVINO_FILES[0]])
    _check_seal(path, files, metadata)
    card, _ = read_header(metadata)
    channels = card.architecture.num_channels
    return ExportedModel(path=path, graph=Graph(files), channels=channels, sha256=hash_files(files.values())), card


def open_exported(path: Path, engine: Engine) -> tuple[ExportedModel, ModelCard]:
    """Read an exported file, check it, and try it; a file that passed before is not tried again.

    Returns:
        The network and its model card.

    Raises:
        ValueError: The file is damaged, has no header of this package, or has contents that are not allowed; names the
            file and the contents.
        OSError: The file cannot be read.
    """
    files = _read(path)
    # Only the bytes that were read are checked and used from here on: the files may be replaced meanwhile.
    is_certified = _check_certificate(path, files)
    remembered = read_checked(files, engine)
    found, checked = remembered or _try_in_sandbox(path, engine, files)
    has_sums = _check_seal(path, files, found["entries"]) or is_certified
    if not has_sums:
        print_note(f"{path} has no checksum and no certificate next to it: damage cannot be detected.")
    opened = _describe(path, files, found, checked)
    if not found["has_bounded_memory"]:
        print_note(f"{path} has operators or sizes that this package does not export: it runs with limited memory.")
    if remembered is None:
        write_checked(files, engine, (found, checked))
    return opened


def _describe(
    path: Path, files: Mapping[str, bytes], found: Mapping[str, Any], checked: Mapping[str, bytes]
) -> tuple[ExportedModel, ModelCard]:
    """Return the model and its card, from the checked files and what is known about them.

    Raises:
        ValueError: Its header is not valid, or contradicts the graph.
    """
    try:
        card, preprocessing = read_header({HEADER_KEY: found["header"]})
        _check_card(card, preprocessing, found)
    except (ValueError, TypeError, RecursionError) as error:
        reason = printable(str(error), limit=500)
        raise ValueError(f"{path} is not a usable export of this package: {reason}") from error
    graph = Graph(checked, has_bounded_memory=found["has_bounded_memory"])
    return ExportedModel(path=path, graph=graph, channels=found["channels"], sha256=hash_files(files.values())), card


def _read(path: Path) -> dict[str, bytes]:
    """Read the file, or OpenVINO's two, by their names in a `Graph`."""
    if graph_kind(path) == "onnx":
        return {ONNX_FILE: _read_file(path)}
    weights = path.with_suffix(".bin")
    if path.is_file() and not weights.exists():
        raise FileNotFoundError(f"{path} needs its weights in {weights.name} next to it, which is missing.")
    return dict(zip(OPENVINO_FILES, (_read_file(path), _read_file(weights)), strict=True))


def _check_seal(path: Path, files: Mapping[str, bytes], entries: Collection[str]) -> bool:
    """Return whether the file carries a hash of itself, after comparing it.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return is_sealed(list(files.values()), entries)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or was changed after export: {error}. Copy it again, with all files that "
            "belong to it, or export it again."
        ) from error


def _check_certificate(path: Path, files: Mapping[str, bytes]) -> bool:
    """Compare a file with the certificate beside it.

    Returns:
        Whether there is a certificate.

    Raises:
        ValueError: The file has changed, or the certificate is damaged.
    """
    certificate = path.with_name(path.name + CERTIFICATE_ENDING)
    if not certificate.is_file():
        return False
    try:
        known = json.loads(certificate.read_text(encoding="utf-8"))["files"]
        said = {known[path.with_suffix(Path(name).suffix).name]["sha256"] for name in files}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{certificate} is damaged: remove it, or export {path.name} again.") from error
    if said != {hashlib.sha256(content).hexdigest() for content in files.values()}:
        raise ValueError(
            f"{path} is not what {certificate.name} certifies: it is damaged, or was replaced. Export or copy it "
            "again; if it was replaced on purpose, remove the certificate."
        )
    return True


def _read_file(path: Path) -> bytes:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not an exported model.")
    if not path.exists():
        raise FileNotFoundError(f"There is no model file {path}.")
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is a pipe or a device, not an exported model.")
    if not 0 < found.st_size <= MAX_FILE_BYTES:
        raise ValueError(f"{path} has {found.st_size} bytes; an exported model has 1 to {MAX_FILE_BYTES}.")
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES)  # the file may have grown meanwhile


def _try_in_sandbox(path: Path, engine: Engine, files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Check and try the files in the sandbox; return its facts, and the reduced files to run."""
    command = [sys.executable, "-c", _START_SANDBOX.format(path=sys.path)]
    message = pack_message({"engine": engine}, files)
    try:
        done = subprocess.run(
            command, input=message, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path} is rejected: testing it took more than {_SECONDS} s.") from error
    try:
        found, checked = unpack_message(done.stdout)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is rejected: the process that tested it ended without a result ({done.returncode}); it is "
            "damaged, or needs more memory or time than such a network should."
        ) from error
    if "refused" in found:
        raise ValueError(f"{path} is rejected: {printable(found['refused'], limit=1000)}.")
    return found, checked


def _check_card(card: ModelCard, preprocessing: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    architecture, channels = card.architecture, found["channels"]
    if has_only_classes(architecture.outputs) != (found["result"] == LOGITS):
        named = ", ".join(spec.name for spec in architecture.outputs)
        raise ValueError(f"its header names the outputs {named}, but its graph returns {found['result']}")
    if architecture.num_channels != channels:
        if found["result"] == LOGITS:
            raise ValueError(f"its header names {len(card.label_set)} classes, but its logits are of {channels}")
        raise ValueError(
            f"its header names outputs of {architecture.num_channels} channels, but its maps have {channels}"
        )
    if len(architecture.band_names) != found["bands"]:
        named = ", ".join(architecture.band_names)
        raise ValueError(f"its header names the bands {named}, but its graph takes {found['bands']}")
    order = list(architecture.band_names) if architecture.bands else "RGB"
    if (preprocessing.get("channel_order"), preprocessing.get("range")) != (order, [0.0, 1.0]):
        raise ValueError(f"it expects {preprocessing} images, not {order} in [0, 1]")
    if not _SHA256.fullmatch(card.weights_sha256):
        raise ValueError(f"its weights' SHA-256 is {card.weights_sha256!r}")
    if not _ENCODER.fullmatch(architecture.encoder):  # nothing is built of it: it is shown, and part of names
        raise ValueError(f"there is no encoder named {architecture.encoder!r}")
