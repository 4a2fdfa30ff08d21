"""PyTorch itself: the network in fewer steps, channels last in memory, no gradients.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refinenet.inference.backends.base import BackendError
from refinenet.io.console import print_note
from refinenet.io.threads import ThreadLock, survive_fork
from refinenet.models.inference_graph import Weights, fuse, note_weights
from refinenet.models.network import Network

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**30
"""Freed memory that at most waits for its next use."""


def keep_freed_memory() -> None:
    """Let freed memory wait for its next use instead of going back to the system: on Linux with glibc, for the process.

    A network's pass takes and frees hundreds of megabytes. By its defaults glibc hands them back each time, and the
    system fills them with zeros again, page by page: up to half of a pass's time. Where the environment sets any of
    glibc's own `MALLOC_...` variables, and on other systems, nothing is changed.

    Source: `man 3 mallopt`.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


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


class CompiledBackend(PyTorchBackend):
    """Runs a fused copy of a network through `torch.compile`.

    The first image takes up to a minute, as does the first of another size; then any size runs. PyTorch keeps what it
    compiled on the disk (`TORCHINDUCTOR_CACHE_DIR`).

    Args:
        network: Stays as it is.
        precision: As for `PyTorchBackend`.

    Raises:
        ValueError: as `PyTorchBackend`.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling; dropout off, batch norm fixed.

        Raises:
            BackendError: PyTorch cannot compile the network here.
        """
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            return super().__call__(images)
        except (BackendCompilerFailed, InductorError) as error:
            raise BackendError(
                f"PyTorch cannot compile the network here ({str(error).strip().splitlines()[0]}). On CPUs it needs a "
                "C++ compiler (g++ or clang++); backend='pytorch' needs none."
            ) from error

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        print_note("PyTorch compiles the network, up to a minute for the first image and the first of another size.")
        # Weights are constants to the compiler: the fused copy is never changed, but made anew.
        run: Callable[[Tensor], Tensor] = torch.compile(fused.logits, options={"freezing": True})
        return run
