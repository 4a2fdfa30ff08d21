"""The fastest backend where it can be had, else PyTorch.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.backends.translated import GraphBackend, TranslatedBackend
from refinenet.io.console import print_note
from refinenet.io.threads import ThreadLock
from refinenet.models.network import Network


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
