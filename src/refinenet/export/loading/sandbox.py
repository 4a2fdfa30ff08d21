"""The process that looks at a stranger's file: it reads it, checks it, and tries it, with little memory and time.

A file that needs more, or brings the engine down, ends this process and not the one that asked. It may write no files.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refinenet.export.loading.schema import Checked
from refinenet.inference.backends.graph import (
    OPENVINO_FILES,
    Engine,
    Graph,
    require_onnxruntime,
    require_openvino,
    start_engine,
)


def pack(facts: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Facts, JSON-ready, and files as bytes that `unpack` takes apart."""
    sizes = {name: len(content) for name, content in files.items()}
    return json.dumps({"facts": facts, "sizes": sizes}).encode() + b"\n" + b"".join(files.values())


def unpack(parcel: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts and files of `pack`.

    Raises:
        ValueError, KeyError: it is none of those.
    """
    end = parcel.index(b"\n")
    told = json.loads(parcel[:end])
    files, start = {}, end + 1
    for name, size in told["sizes"].items():
        files[name] = parcel[start : start + size]
        start += size
    if start != len(parcel):
        raise ValueError(f"a parcel of {len(parcel)} bytes instead of {start}")
    return told["facts"], files


SECONDS = 120
"""Of computing, that reading and trying may take."""
SPARE_BYTES = 1024**3
"""Of memory that they may take, beside a multiple of the file's size."""
SIZE_FACTOR = 8
TRIALS = ((1, 3, 128, 128), (2, 3, 33, 47))
"""Shapes of the images that the graph is tried on; of the first, a number for each pair of pixels is a gigabyte."""


def main() -> None:
    """Read a parcel from standard input, and write one to standard output: what was found, or why it is refused."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where engines print is not where the answer goes
        facts, files = unpack(sys.stdin.buffer.read())
        engine: Engine = facts["engine"]
        _load_libraries(engine, is_onnx=len(files) == 1)
        _limit(sum(map(len, files.values())))
        try:
            checked = _check(files)
            _try(checked, engine)
            answer.write(pack({"header": checked.header, "classes": checked.classes}, checked.files))
        except (ValueError, MemoryError) as error:
            answer.write(pack({"refused": str(error) or "it needs too much memory"}, {}))


def _load_libraries(engine: Engine, *, is_onnx: bool) -> None:
    """Before memory is limited: they are not the file's fault."""
    importlib.import_module(f"refinenet.export.loading.{'onnx' if is_onnx else 'openvino'}")
    if engine == "openvino":
        require_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME")
    else:
        require_onnxruntime()


def _limit(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has other means
        return
    taken = _address_space()
    _set(resource.RLIMIT_CPU, SECONDS)
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_CORE, 0)
    if taken:
        _set(resource.RLIMIT_AS, taken + SPARE_BYTES + SIZE_FACTOR * size)


def _set(kind: int, wanted: int) -> None:
    import resource

    hard = resource.getrlimit(kind)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, hard))


def _address_space() -> int:
    """Bytes of addresses that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _check(files: Mapping[str, bytes]) -> Checked:
    if len(files) == 1:
        from refinenet.export.loading.onnx import check_onnx

        return check_onnx(*files.values())
    from refinenet.export.loading.openvino import check_openvino

    return check_openvino(*(files[name] for name in OPENVINO_FILES))


def _try(checked: Checked, engine: Engine) -> None:
    run = start_engine(Graph(checked.files), engine, threads=1)
    for shape in TRIALS:
        count, _, height, width = shape
        images = np.random.default_rng(0).random(shape, np.float32)
        logits = run(images)
        expected = (count, checked.classes, -(-height // 4), -(-width // 4))
        if logits.shape != expected or logits.dtype != np.float32:
            raise ValueError(
                f"it answers images of shape {shape} by {logits.dtype} of shape {logits.shape}, not float32 {expected}"
            )
