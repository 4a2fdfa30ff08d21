"""PyTorch itself: the network in fewer steps, channels last in memory, no gradients.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refinenet.fusion import Weights, fuse, note_weights
from refinenet.memory import keep_freed_memory
from refinenet.network import Network


class PyTorchBackend:
    """Runs a fused copy of a network; when the network's weights change, by training or by hand, it is made anew.

    Channels last lets convolutions, pools and resizing run over neighbouring memory; on a CPU that alone is several
    times the speed of PyTorch's default order (`benchmarks/deploy.py`).

    Args:
        network: Stays as it is.
    """

    def __init__(self, network: Network) -> None:
        keep_freed_memory()
        self.network = network
        self._weights: Weights = ()
        self._fused = network

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self.network.mean.device

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed."""
        weights = note_weights(self.network)
        if weights != self._weights:
            self._fused = fuse(self.network).to(memory_format=torch.channels_last)
            self._weights = weights
        with torch.inference_mode():
            return self._fused.logits(images)
