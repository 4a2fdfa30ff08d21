"""Engine in a process with limited memory, for graphs whose memory use cannot be bounded.

Nothing here needs PyTorch. On systems without memory limits (Windows, macOS) the process only isolates crashes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from typing import IO, Any

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
_START = "import sys; sys.path[:] = {path!r}; from refinenet.inference.backends.isolated import main; main()"


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
        self._process = self._start()

    def __call__(self, images: Floats) -> Floats:
        """Map images `(N, 3, H, W)` float32 RGB in [0, 1] to logits `(N, K, h, w)` float32.

        Raises:
            ValueError: The graph cannot run, or needs more memory than it may take.
        """
        with self._lock:
            if self._process.poll() is not None:
                self._process = self._start()
            facts, files = self._ask(pack_message({"shape": images.shape}, {"images": images.tobytes()}))
        if "failed" in facts:
            raise ValueError(facts["failed"])
        return np.frombuffer(files["logits"], np.float32).reshape(facts["shape"]).copy()  # writable, as PyTorch asks

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        weakref.finalize(self, self._process.kill)
        try:
            facts, _ = self._ask(self._message)
        except ValueError as error:
            raise BackendError(str(error)) from error
        if "failed" in facts:
            raise BackendError(facts["failed"])
        return self._process

    def _ask(self, message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_message(self._process.stdin, message)
            return unpack_message(read_message(self._process.stdout))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            self._process.kill()
            self._process.wait()
            raise ValueError(
                "the memory-limited process that runs it has ended. A graph whose memory use cannot be bounded may "
                "use 1 GiB plus 16 KiB per pixel; use smaller images, or windows"
            ) from error


def main() -> None:
    """Read a graph from standard input, then images one after the other, and write logits to standard output."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # engines print there
        facts, files = unpack_message(read_message(sys.stdin.buffer))
        load_engine(facts["engine"])
        taken, size = used_addresses(), sum(map(len, files.values()))
        set_limit("RLIMIT_FSIZE", 0)
        set_limit("RLIMIT_CORE", 0)
        _limit_memory(taken, size, 0)
        try:
            run = start_engine(Graph(files), facts["engine"], facts["precision"], facts["threads"])
        except (ValueError, MemoryError) as error:
            write_message(replies, pack_message({"failed": str(error) or "it needs too much memory"}, {}))
            return
        write_message(replies, pack_message({}, {}))
        _serve(run, replies, taken, size)


def _serve(run: Run, replies: IO[bytes], taken: int, size: int) -> None:
    while True:
        try:
            asked, content = unpack_message(read_message(sys.stdin.buffer))
        except EOFError:
            return
        images = np.frombuffer(content["images"], np.float32).reshape(asked["shape"])
        _limit_memory(taken, size, images[:, 0].size)
        try:
            logits = np.ascontiguousarray(run(images), np.float32)
            reply = pack_message({"shape": logits.shape}, {"logits": logits.tobytes()})
        except (ValueError, MemoryError) as error:
            reply = pack_message({"failed": str(error) or "it needs too much memory"}, {})
        write_message(replies, reply)


def _limit_memory(taken: int, size: int, pixels: int) -> None:
    if taken:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wanted = SPARE_BYTES + SIZE_FACTOR * size + PIXEL_BYTES * pixels
        set_limit("RLIMIT_AS", taken + min(wanted, machine // 2))
