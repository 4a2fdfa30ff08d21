"""Networks run by an engine other than PyTorch: as graphs that are read, or that a network is translated to.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from refinenet.inference.backends import onnxruntime, openvino
from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.graph import Engine, Graph, Run, require_openvino, start_engine
from refinenet.inference.backends.isolated import IsolatedEngine
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.backends.translation_cache import translated
from refinenet.io.console import print_note
from refinenet.io.threads import TRACING, ThreadLock
from refinenet.models.inference_graph import Weights, note_weights
from refinenet.models.network import Network

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Translator:
    """How a network becomes an engine's graph."""

    title: str
    packages: Sequence[str]
    """What makes the graph."""
    translate: Callable[[Network], Graph]
    require: Callable[[], object]
    """Raises ValueError where a package is missing."""


TRANSLATORS: Mapping[Engine, Translator] = MappingProxyType(
    {
        "openvino": Translator(
            title="OpenVINO", packages=openvino.PACKAGES, translate=openvino.translate, require=require_openvino
        ),
        "onnxruntime": Translator(
            title="ONNX Runtime",
            packages=onnxruntime.PACKAGES,
            translate=onnxruntime.translate,
            require=onnxruntime.require_translator,
        ),
    }
)


class GraphBackend:
    """Runs a graph on the CPU.

    Args:
        graph: A network of one input, images, and one output, logits before upsampling.
        engine: Runs it.
        precision: Of the arithmetic: "float32", or by OpenVINO "bfloat16", on processors that compute in it.
        classes: That its logits are of.
        source: What messages call it.

    Raises:
        ValueError: the engine is not installed, or cannot read the graph.
    """

    def __init__(self, graph: Graph, engine: Engine, precision: str, classes: int, source: str) -> None:
        self._graph, self._engine, self._precision = graph, engine, precision
        self._threads = torch.get_num_threads()
        self._lock = ThreadLock()
        self._start()
        self._classes, self._source = classes, source

    def _start(self) -> tuple[int, Run]:
        start = start_engine if self._graph.has_bounded_memory else IsolatedEngine
        self._running = os.getpid(), start(self._graph, self._engine, self._precision, self._threads)
        return self._running

    def _runner(self) -> Run:
        """The engine, which does not survive a fork: a child starts its own."""
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

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return CPU

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, ceil(H/4), ceil(W/4))`.

        Raises:
            ValueError: the graph cannot be run on them, or its answer is of another shape.
        """
        try:
            logits = torch.from_numpy(self._runner()(images.numpy()))
        except ValueError as error:
            raise ValueError(f"{self._source} fails on images of shape {tuple(images.shape)}: {error}") from error
        count, _, height, width = images.shape
        expected = (count, self._classes, -(-height // 4), -(-width // 4))
        if tuple(logits.shape) != expected or logits.dtype != torch.float32:
            raise ValueError(
                f"{self._source} answers images of shape {tuple(images.shape)} by {logits.dtype} logits of shape "
                f"{tuple(logits.shape)}, not float32 {expected}."
            )
        return logits


class TranslatedBackend:
    """Runs a network by another engine; when its weights change, by training or by hand, it is translated anew.

    The translation takes some ten seconds or more, once for each network: it is kept in
    `translation_cache.cache_folder`, under a hash of the weights and of the versions that made it.

    Args:
        network: On the CPU.
        engine: Which one.
        precision: Of the arithmetic: "float32", or by OpenVINO "bfloat16", on processors that compute in it.

    Raises:
        ValueError: the engine is not installed, or the network is not on the CPU.
    """

    def __init__(self, network: Network, engine: Engine, precision: str = "float32") -> None:
        self._translator = TRANSLATORS[engine]
        self._translator.require()
        if network.mean.device != CPU:
            raise ValueError(f"{self._translator.title} runs on the CPU here, the network is on {network.mean.device}.")
        self.network, self.engine, self.precision = network, engine, precision
        self._translated: tuple[Weights, GraphBackend] | None = None
        self._lock = ThreadLock()

    def __getstate__(self) -> dict[str, Any]:
        # Copies have tensors of their own, by which weights are recognised.
        return {**self.__dict__, "_translated": None}

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return CPU

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed."""
        return self.open()(images)

    def open(self) -> GraphBackend:
        """The network, translated as its weights are now.

        Raises:
            BackendError: it cannot be translated, or the engine says something else than PyTorch.
        """
        held = self._translated
        if held is not None and held[0] == note_weights(self.network):
            return held[1]
        with self._lock:  # of concurrent first calls one translates, the others wait for it
            held, weights = self._translated, note_weights(self.network)
            if held is None or held[0] != weights:
                held = self._translated = weights, self._translate()
            return held[1]

    def _translate(self) -> GraphBackend:
        title, maker = self._translator.title, self._translator
        with TRACING:
            graph = translated(self.network, maker.packages, maker.translate, self.engine, title)
        classes = self.network.architecture.num_classes
        return GraphBackend(graph, self.engine, self.precision, classes, f"The network translated for {title}")


class AutoBackend:
    """Runs a network by an engine that nobody asked for by name; if that cannot, PyTorch does, and it is said so.

    Args:
        network: On the CPU.
        wanted: Runs it by the engine.
    """

    def __init__(self, network: Network, wanted: TranslatedBackend) -> None:
        self._network = network
        self._backend: TranslatedBackend | PyTorchBackend = wanted
        self._lock = ThreadLock()

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self._backend.device

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed."""
        backend = self._backend
        return backend(images) if isinstance(backend, PyTorchBackend) else self._open(backend)(images)

    def _open(self, wanted: TranslatedBackend) -> GraphBackend | PyTorchBackend:
        try:
            return wanted.open()
        except BackendError as error:
            with self._lock:  # of concurrent first calls one says it
                if isinstance(self._backend, PyTorchBackend):
                    return self._backend
                print_note(f"{error} PyTorch runs the network instead.")
                self._backend = PyTorchBackend(self._network)
                return self._backend
