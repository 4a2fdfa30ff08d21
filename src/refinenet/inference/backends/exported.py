"""Backend for graphs: exported files, and networks that were translated. Nothing here needs PyTorch.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from refinenet.inference.backends.base import CPU
from refinenet.inference.backends.graph import Engine, Graph, Run, start_engine
from refinenet.inference.backends.isolated import IsolatedEngine
from refinenet.io.arrays import Array, as_numpy, like
from refinenet.io.processes.threads import ThreadLock, choose_threads


class GraphBackend:
    """An engine running a graph on the CPU.

    Args:
        graph: Graph with one input, images, and one output, the maps before upsampling.
        engine: Engine that runs it.
        precision: Precision of the arithmetic: "float32", or with OpenVINO "bfloat16" on processors that support it.
        channels: Number of channels of its output: of classes alone their number.
        source: Name of the graph in messages.

    Raises:
        ValueError: the engine is not installed, or cannot read the graph.
    """

    device = CPU
    """Device on which images must be."""

    def __init__(self, graph: Graph, engine: Engine, precision: str, channels: int, source: str) -> None:
        self._graph, self._engine, self._precision = graph, engine, precision
        self._threads = choose_threads()
        self._lock = ThreadLock()
        self._start()
        self._channels, self._source = channels, source

    def _start(self) -> tuple[int, Run]:
        start = start_engine if self._graph.has_bounded_memory else IsolatedEngine
        self._running = os.getpid(), start(self._graph, self._engine, self._precision, self._threads)
        return self._running

    def _runner(self) -> Run:
        """Return the running engine; it does not survive a fork, so a child process starts its own."""
        process, run = self._running
        if process != os.getpid():
            with self._lock:
                process, run = self._running
                if process != os.getpid():
                    _, run = self._start()
        return run

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_running"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __call__(self, images: Array) -> Array:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, ceil(H/4), ceil(W/4))`, alike arrays.

        Raises:
            ValueError: the graph cannot be run on them, or returns logits of another shape.
        """
        try:
            logits = self._runner()(as_numpy(images))
        except ValueError as error:
            raise ValueError(f"{self._source} fails on images of shape {tuple(images.shape)}: {error}") from error
        count, _, height, width = images.shape
        expected = (count, self._channels, -(-height // 4), -(-width // 4))
        if logits.shape != expected or logits.dtype != np.float32:
            raise ValueError(
                f"{self._source} returns, for images of shape {tuple(images.shape)}, {logits.dtype} logits of shape "
                f"{logits.shape}, not float32 {expected}."
            )
        return like(logits, images)
