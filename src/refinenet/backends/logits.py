"""What of a network is translated: all up to its logits before upsampling, which PyTorch then does for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from refinenet.network import Network

EXAMPLE_SHAPE = (2, 3, 65, 97)
"""Of the images that a network is traced with: none of its sides has a special size."""
_FREE = torch.export.Dim.DYNAMIC
FREE_SIZES: Mapping[str, Any] = MappingProxyType({"images": {0: _FREE, 2: _FREE, 3: _FREE}})


class Logits(nn.Module):
    """A network whose answer is its logits before upsampling."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, ceil(H/4), ceil(W/4))`."""
        return self.network.logits(images)
