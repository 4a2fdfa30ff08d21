"""PyTorch itself: channels last in memory, no gradients, evaluation mode.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from refinenet.memory import keep_freed_memory
from refinenet.network import Network


class PyTorchBackend:
    """Runs a network as it is, sharing its weights: what training changes is seen at once.

    Channels last lets convolutions, pools and resizing run over neighbouring memory; on a CPU that alone is several
    times the speed of PyTorch's default order (`benchmarks/deploy.py`).
    """

    def __init__(self, network: Network) -> None:
        keep_freed_memory()
        self.network = network.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self.network.mean.device

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`; dropout off, batch norm fixed."""
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.inference_mode():
                logits: Tensor = self.network(images)
                return logits
        finally:
            self.network.train(was_training)
