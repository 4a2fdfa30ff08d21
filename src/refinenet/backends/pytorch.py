"""PyTorch itself: the network in fewer steps, channels last in memory, no gradients.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from refinenet.fusion import Weights, fuse, note_weights
from refinenet.memory import keep_freed_memory
from refinenet.network import Network

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PyTorchBackend:
    """Runs a fused copy of a network; when the network's weights change, by training or by hand, it is made anew.

    Channels last lets convolutions, pools and resizing run over neighbouring memory; on a CPU that alone is several
    times the speed of PyTorch's default order (`benchmarks/deploy.py`).

    Args:
        network: Stays as it is.
        precision: Of the arithmetic: "float32", "bfloat16", or on a GPU "float16".

    Raises:
        ValueError: there is no such precision there.
    """

    def __init__(self, network: Network, precision: str = "float32") -> None:
        if precision not in _TYPES or (precision == "float16" and network.mean.device.type == "cpu"):
            raise ValueError(
                f"PyTorch computes in float32 or bfloat16 here, on GPUs in float16, too; not {precision!r}."
            )
        keep_freed_memory()
        self._dtype = _TYPES[precision]
        self.network = network
        self._weights: Weights = ()
        self._run: Callable[[Tensor], Tensor] = network.logits

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self.network.mean.device

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed."""
        weights = note_weights(self.network)
        if weights != self._weights:
            self._run = self._make_run(fuse(self.network).to(self._dtype).to(memory_format=torch.channels_last))
            self._weights = weights
        with torch.inference_mode():
            return self._run(images.to(self._dtype)).float()

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        return fused.logits
