"""PyTorch backends: a fused copy of the network, channels last in memory, without gradients; eager or compiled.

Shape letters: N batch, K classes, H height, W width.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refinenet.inference.backends.base import BackendError
from refinenet.io.arrays import Array
from refinenet.io.console import print_note
from refinenet.io.processes.threads import TRACING, ThreadLock, survive_fork
from refinenet.models.inference_graph import Weights, fuse, note_weights
from refinenet.models.network import Network

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**30
"""Largest amount of freed memory that the process keeps, in bytes."""


def keep_freed_memory() -> None:
    """Keep freed memory in the process instead of returning it to the system, on Linux with glibc.

    A forward pass allocates and frees hundreds of megabytes. By default glibc returns them each time, and the system
    zeroes the pages again, which takes up to half of the pass. Nothing is changed if the environment sets one of
    glibc's `MALLOC_...` variables, or on other systems.

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
    """PyTorch running a fused copy of a network, which is rebuilt when the network's weights change.

    With channels last, convolutions, pools and resizing access contiguous memory; on a CPU this alone is several
    times as fast as PyTorch's default order (`benchmarks/deploy.py`).

    Args:
        network: Network to run; it is not modified.
        precision: Precision of the arithmetic: "float32", "bfloat16", or on a GPU "float16".

    Raises:
        ValueError: the device does not support the precision.
    """

    def __init__(self, network: Network, precision: str = "float32") -> None:
        if precision not in _TYPES or (precision == "float16" and network.mean.device.type == "cpu"):
            raise ValueError(f"PyTorch supports float32 and bfloat16 here, and float16 on GPUs, not {precision!r}.")
        keep_freed_memory()
        self._dtype = _TYPES[precision]
        self.network = network
        self._fused: tuple[int, Weights, Callable[[Tensor], Tensor]] | None = None
        self._lock = ThreadLock()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has new tensors, so its fused network has to be built again.
        return {**self.__dict__, "_fused": None}

    @property
    def device(self) -> torch.device:
        """Device on which images must be."""
        return self.network.mean.device

    def __call__(self, images: Array) -> Array:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling, in evaluation mode."""
        survive_fork()
        run = self._open()
        is_numpy = isinstance(images, np.ndarray)
        with torch.inference_mode():
            given = torch.from_numpy(images).to(self.device) if is_numpy else images
            logits = run(given.to(self._dtype)).float()
            return logits.cpu().numpy() if is_numpy else logits

    def _open(self) -> Callable[[Tensor], Tensor]:
        fused = self._fused
        if fused is not None and fused[:2] == (os.getpid(), note_weights(self.network)):
            return fused[2]
        with self._lock:  # one of several concurrent first calls fuses the network, the others wait
            fused, now = self._fused, (os.getpid(), note_weights(self.network))
            if fused is None or fused[:2] != now:
                copy = fuse(self.network).to(self._dtype).to(memory_format=torch.channels_last)
                fused = self._fused = (*now, self._make_run(copy))
            return fused[2]

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        return fused.maps


class CompiledBackend(PyTorchBackend):
    """PyTorch running a fused copy of a network compiled by `torch.compile`.

    The first image takes up to a minute, and so does the first one of another size; then all sizes run. PyTorch caches
    compiled code on disk (`TORCHINDUCTOR_CACHE_DIR`).

    Args:
        network: Network to run; it is not modified.
        precision: As for `PyTorchBackend`.

    Raises:
        ValueError: as `PyTorchBackend`.
    """

    def __call__(self, images: Array) -> Array:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1] to logits before upsampling, in evaluation mode.

        Raises:
            BackendError: PyTorch cannot compile the network here.
        """
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.exc import InductorError

        try:
            # PyTorch 2.14 checks the guards of compiled code without a lock: now and then they fail in one of several
            # threads, and after eight superfluous compilations all calls run without compiled code.
            with TRACING:
                return super().__call__(images)
        except (BackendCompilerFailed, InductorError) as error:
            raise BackendError(
                f"PyTorch cannot compile the network here ({str(error).strip().splitlines()[0]}). On CPUs it needs a "
                "C++ compiler (g++ or clang++); backend='pytorch' needs none."
            ) from error

    def _make_run(self, fused: Network) -> Callable[[Tensor], Tensor]:
        print_note(
            "Compiling the network takes up to a minute for the first image, and for the first image of another size."
        )
        # The fused copy is replaced rather than changed, so the compiler may treat its weights as constants.
        run: Callable[[Tensor], Tensor] = torch.compile(fused.maps, options={"freezing": True})
        return run
