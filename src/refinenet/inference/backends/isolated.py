"""Engine in a process with limited memory, for graphs whose memory use cannot be bounded.

Nothing here needs PyTorch. On systems without memory limits (Windows, macOS) the process only isolates crashes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import (
    Engine,
    Floats,
    Graph,
    Run,
    require_onnxruntime,
    require_openvino,
    start_engine,
)
from refinenet.io.processes.child_process import (
    ChildEndedError,
    ChildProcess,
    answer_messages,
    open_replies,
    pack_message,
    read_message,
    set_limit,
    unpack_message,
    used_addresses,
    write_message,
)
from refinenet.io.processes.threads import ThreadLock

SPARE_BYTES = 1024**3
"""Memory that the process may take, in addition to a multiple of the file's size and of the number of pixels."""
SIZE_FACTOR = 8
PIXEL_BYTES = 16 * 1024


def load_engine(engine: Engine) -> None:
    """Import an engine before memory is limited, so that its own libraries are not counted."""
    if engine == "openvino":
        require_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME")
    else:
        require_onnxruntime()


class IsolatedEngine:
    """An engine in a separate process of limited memory; arguments and errors as for `graph.start_engine`."""

    def __init__(self, graph: Graph, engine: Engine, precision: str = "float32", threads: int | None = None) -> None:
        facts = {"engine": engine, "precision": precision, "threads": threads}
        self._message = pack_message(facts, graph.files)
        self._lock = ThreadLock()
        self._child = self._start()

    def __call__(self, images: Floats) -> Floats:
        """Map images `(N, 3, H, W)` float32 RGB in [0, 1] to logits `(N, K, h, w)` float32.

        Raises:
            ValueError: The graph cannot run, or needs more memory than it may take.
        """
        with self._lock:
            if not self._child.is_ready:
                self._child = self._start()
            try:
                facts, files = self._child.ask(pack_message({"shape": images.shape}, {"images": images.tobytes()}))
            except ChildEndedError as error:
                raise ValueError(_describe(error)) from error
        if "failed" in facts:
            raise ValueError(facts["failed"])
        return np.frombuffer(files["logits"], np.float32).reshape(facts["shape"]).copy()  # writable, as PyTorch asks

    def _start(self) -> ChildProcess:
        try:
            child = ChildProcess(__name__)
            facts, _ = child.ask(self._message)
        except ChildEndedError as error:
            raise BackendError(_describe(error)) from error
        if "failed" in facts:
            raise BackendError(facts["failed"])
        return child


def _describe(error: ChildEndedError) -> str:
    return (
        f"the memory-limited process that runs it {error}. A graph whose memory use cannot be bounded may use 1 GiB "
        "plus 16 KiB per pixel; use smaller images, or windows"
    )


def main() -> None:
    """Read a graph from standard input, then images one after the other, and write logits to standard output."""
    with open_replies() as replies:
        facts, files = unpack_message(read_message(sys.stdin.buffer))
        load_engine(facts["engine"])
        taken, size = used_addresses(), sum(map(len, files.values()))
        set_limit("RLIMIT_FSIZE", 0)
        set_limit("RLIMIT_CORE", 0)
        _limit_memory(taken, size, 0)
        try:
            run = start_engine(Graph(files), facts["engine"], facts["precision"], facts["threads"])
        except (ValueError, MemoryError) as error:
            write_message(replies, _report(error))
            return

        def answer(asked: Mapping[str, Any], content: Mapping[str, bytes]) -> bytes:
            images = np.frombuffer(content["images"], np.float32).reshape(asked["shape"])
            _limit_memory(taken, size, images[:, 0].size)
            return _answer(run, images)

        write_message(replies, pack_message({}, {}))
        answer_messages(replies, answer)


def _answer(run: Run, images: Floats) -> bytes:
    try:
        logits = np.ascontiguousarray(run(images), np.float32)
        return pack_message({"shape": logits.shape}, {"logits": logits.tobytes()})
    except (ValueError, MemoryError) as error:
        return _report(error)


def _report(error: ValueError | MemoryError) -> bytes:
    return pack_message({"failed": str(error) or "it needs too much memory"}, {})


def _limit_memory(taken: int, size: int, pixels: int) -> None:
    if taken:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wanted = SPARE_BYTES + SIZE_FACTOR * size + PIXEL_BYTES * pixels
        set_limit("RLIMIT_AS", taken + min(wanted, machine // 2))
