"""PyTorch itself: the network in fewer steps, channels last in memory, no gradients.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refinenet.inference.backends.memory import keep_freed_memory
from refinenet.io.threads import ThreadLock, survive_fork
from refinenet.models.inference_graph import Weights, fuse, note_weights
from refinenet.models.network import Network

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
        self._fused: tuple[int, Weights, Callable[[Tensor], Tensor]] | None = None
        self._lock = ThreadLock()

    def __getstate__(self) -> dict[str, Any]:
        # Copies have tensors of their own, by which weights are recognised.
        return {**self.__dict__, "_fused": None}

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self.network.mean.device

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed."""
        survive_fork()
        run = self._open()
        with torch.inference_mode():
            return run(images.to(self._dtype)).float()

    def _open(self) -> Callable[[Tensor], Tensor]:
        held = self._fused
        if held is not None and held[:2] == (os.getpid(), note_weights(self.network)):
            return held[2]
        with self._lock:  # of concurrent first calls one fuses, the others wait for it
            held, now = self._fused, (os.getpid(), note_weights(self.network))
            if held is None or held[:2] != now:
                fused = fuse(self.network).to(self._dtype).to(memory_format=torch.channels_last)
                held = self._fused = (*now, self._make_run(fused))
            return held[2]

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        return fused.logits
