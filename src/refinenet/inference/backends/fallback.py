"""PyTorch in place of a backend that turns out not to be able to run a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.io.arrays import Array
from refinenet.io.console import print_note
from refinenet.io.processes.threads import ThreadLock
from refinenet.models.network import Network

if TYPE_CHECKING:
    from refinenet.inference.segmenter import Backend


class AutoBackend:
    """The backend that "auto" selected; if it cannot run the network, PyTorch replaces it and a note is printed.

    Args:
        network: Network to run.
        preferred: Backend to try first.
    """

    def __init__(self, network: Network, preferred: Backend) -> None:
        self._network = network
        self._backend = preferred
        self._lock = ThreadLock()

    @property
    def device(self) -> object:
        """Device on which images must be."""
        return self._backend.device

    def __call__(self, images: Array) -> Array:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling, in evaluation mode."""
        backend = self._backend
        try:
            return backend(images)
        except BackendError as error:
            return self._replace(backend, error)(images)

    def _replace(self, failed: Backend, error: BackendError) -> Backend:
        with self._lock:  # one of several concurrent first calls prints the note
            if self._backend is failed:
                self._backend = replace_by_pytorch(self._network, error)
            return self._backend


def replace_by_pytorch(network: Network, error: BackendError) -> PyTorchBackend:
    """Return PyTorch's backend, in float32, and print why it runs the network."""
    print_note(f"{error} PyTorch runs the network instead.")
    return PyTorchBackend(network)
