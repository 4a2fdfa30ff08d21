"""Backends for other engines that run networks of PyTorch, translated to graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from refinenet.inference.backends import onnxruntime, openvino
from refinenet.inference.backends.base import CPU, INT8
from refinenet.inference.backends.exported import GraphBackend
from refinenet.inference.backends.graph import Engine, Graph, require_openvino
from refinenet.inference.backends.translation.translation_cache import read_or_translate
from refinenet.io.arrays import Array
from refinenet.io.processes.threads import TRACING, ThreadLock
from refinenet.models.files.int8_record import Int8Record
from refinenet.models.inference_graph import Weights, note_weights
from refinenet.models.network import Network

NO_RECORD = (
    "The model says nothing about int8: `refinenet quantise MODEL --dataset DATASET` adds what it needs to the file, "
    "once. Or choose another precision."
)


@dataclass(frozen=True, kw_only=True)
class Translator:
    """Translation of a network to a graph for one engine."""

    title: str
    """Name of the engine in messages."""
    translate: Callable[[Network], Graph]
    require: Callable[[], object]
    """Raises ValueError if a package is missing."""


TRANSLATORS: Mapping[Engine, Translator] = MappingProxyType(
    {
        "openvino": Translator(title="OpenVINO", translate=openvino.translate, require=require_openvino),
        "onnxruntime": Translator(
            title="ONNX Runtime",
            translate=onnxruntime.translate,
            require=onnxruntime.require_onnx,
        ),
    }
)


class TranslatedBackend:
    """An engine running a translated network, which is translated again when its weights change.

    The translation takes several seconds or more, once per network: it is cached in `private_cache.cache_folder`
    under a hash of the weights and of the package versions.

    Args:
        network: Network to run, on the CPU; it is not modified.
        engine: Engine that runs it.
        precision: Precision of the arithmetic: "float32"; or with OpenVINO "bfloat16" on processors that support it, or
            "int8", in which the layers that stay in floating point are in float32.
        record: How to run the network in int8.

    Raises:
        ValueError: the engine is not installed, or there is no record for int8.
    """

    def __init__(
        self, network: Network, engine: Engine, precision: str = "float32", record: Int8Record | None = None
    ) -> None:
        if precision == INT8 and record is None:
            raise ValueError(NO_RECORD)
        self._translator = TRANSLATORS[engine]
        self._translator.require()
        self.network, self.engine, self.precision = network, engine, precision
        self._record = record if precision == INT8 else None
        self._translated: tuple[Weights, GraphBackend] | None = None
        self._lock = ThreadLock()

    def adopt(self, translation: object) -> None:
        """Use a translation of the network with its present weights; anything but a `GraphBackend` is passed over."""
        if isinstance(translation, GraphBackend):
            self._translated = note_weights(self.network), translation

    def __getstate__(self) -> dict[str, Any]:
        # A copy has new tensors, so it has to look up its translation again.
        return {**self.__dict__, "_translated": None}

    @property
    def device(self) -> str:
        """Device on which images must be."""
        return CPU

    def __call__(self, images: Array) -> Array:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling, in evaluation mode."""
        return self.open()(images)

    def open(self) -> GraphBackend:
        """Translate the network with its current weights, unless that was done before.

        Raises:
            BackendError: the network cannot be translated, or the engine disagrees with PyTorch.
        """
        translated = self._translated
        if translated is not None and translated[0] == note_weights(self.network):
            return translated[1]
        with self._lock:  # one of several concurrent first calls translates, the others wait
            translated, weights = self._translated, note_weights(self.network)
            if translated is None or translated[0] != weights:
                translated = self._translated = weights, self._translate()
            return translated[1]

    def _translate(self) -> GraphBackend:
        title, translator = self._translator.title, self._translator
        with TRACING:
            graph = read_or_translate(self.network, translator.translate, self.engine, title, self._record)
        channels = self.network.architecture.num_channels
        return GraphBackend(graph, self.engine, self.precision, channels, f"The network translated for {title}")
